"""Tables of pyarrow, polars and pandas by Arrow and Parquet; only with the library they are of."""

from enum import IntEnum
from importlib import import_module
from io import BytesIO
from typing import Any

from typing_extensions import Buffer

from raysched.errors import SerializationError


class Frame(IntEnum):
    """What an Arrow stream or a Parquet file was, and becomes again.

    Arrow keeps everything of them, but of pandas: there it changes some types, and drops `attrs`.
    """

    TABLE = 0
    BATCH = 1
    POLARS = 2
    PANDAS = 3


_CLASSES = {
    ("pyarrow", "Table"): Frame.TABLE,
    ("pyarrow", "RecordBatch"): Frame.BATCH,
    ("polars", "DataFrame"): Frame.POLARS,
    ("pandas", "DataFrame"): Frame.PANDAS,
}


def frame_of(value: object) -> Frame | None:
    """Return what kind of table a value is, None for all others; imports nothing."""
    kind = type(value)
    return _CLASSES.get((kind.__module__.partition(".")[0], kind.__qualname__))


def fits(value: Any) -> bool:
    """Whether Arrow keeps everything of a value, so that it need not be asked for."""
    frame = frame_of(value)
    if frame is Frame.POLARS:
        return not _has_objects(value)
    # Types of somebody's own are those that a reader may not know.
    return frame in {Frame.TABLE, Frame.BATCH} and "extension<" not in value.schema.to_string(
        show_field_metadata=False, show_schema_metadata=False
    )


def write_arrow(value: Any) -> tuple[Frame, Buffer]:
    """Return the kind of a table, and it as an Arrow IPC stream.

    Raises:
        SerializationError: It is no table, or pyarrow is missing.
    """
    frame = _table_or_fail(value, "arrow")
    if frame is Frame.POLARS:
        file = BytesIO()
        value.write_ipc_stream(file)
        return frame, file.getbuffer()
    pa = _library("pyarrow")
    table = pa.Table.from_pandas(value) if frame is Frame.PANDAS else value
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write(table)
    return frame, sink.getvalue()


def read_arrow(frame: int, body: memoryview) -> Any:
    """Return a table; one of pyarrow uses the memory of `body`, which nobody can change there.

    Raises:
        SerializationError: Its library is missing.
    """
    if frame == Frame.POLARS:
        return _library("polars").read_ipc_stream(BytesIO(body))
    pa = _library("pyarrow")
    with pa.ipc.open_stream(pa.py_buffer(body)) as stream:
        if frame == Frame.BATCH:
            return stream.read_next_batch()
        table = stream.read_all()
    return _as_pandas(table) if frame == Frame.PANDAS else table


def write_parquet(value: Any) -> tuple[Frame, Buffer]:
    """Return the kind of a table, and it as a Parquet file.

    Raises:
        SerializationError: It is no table, or pyarrow is missing.
    """
    frame = _table_or_fail(value, "parquet")
    if frame is Frame.POLARS:
        file = BytesIO()
        value.write_parquet(file)
        return frame, file.getbuffer()
    pa, parquet = _library("pyarrow"), _library("pyarrow.parquet")
    if frame is Frame.PANDAS:
        table = pa.Table.from_pandas(value)
    else:
        table = pa.Table.from_batches([value]) if frame is Frame.BATCH else value
    sink = pa.BufferOutputStream()
    # Otherwise the elements of lists come back under another name.
    parquet.write_table(table, sink, use_compliant_nested_type=False)
    return frame, sink.getvalue()


def read_parquet(frame: int, body: memoryview) -> Any:
    """Return a table.

    Raises:
        SerializationError: Its library is missing.
    """
    if frame == Frame.POLARS:
        return _library("polars").read_parquet(BytesIO(body))
    pa, parquet = _library("pyarrow"), _library("pyarrow.parquet")
    table = parquet.read_table(pa.BufferReader(body))
    if frame == Frame.BATCH:
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    return _as_pandas(table) if frame == Frame.PANDAS else table


def _as_pandas(table: Any) -> Any:
    _library("pandas")
    return table.to_pandas()


def _table_or_fail(value: object, name: str) -> Frame:
    frame = frame_of(value)
    if frame is None:
        raise SerializationError(
            f"result_serializer={name!r} takes a DataFrame of polars or pandas, or a Table or "
            f"RecordBatch of pyarrow, not {type(value).__module__}.{type(value).__qualname__}"
        )
    if frame is Frame.POLARS and _has_objects(value):
        raise SerializationError(
            f"result_serializer={name!r}: a column of the DataFrame has Python objects "
            "(polars.Object), of which polars would write the addresses only"
        )
    return frame


def _has_objects(frame: Any) -> bool:
    return any("Object" in str(kind) for kind in frame.dtypes)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise SerializationError(
            f"a table is written and read with {package}, which is not installed here: "
            f"pip install {package}"
        ) from error
