"""What is written by a serializer comes back as it was, or is refused at once."""

from __future__ import annotations

import datetime as dt
import enum
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysched.errors import SerializationError
from raysched.model.serializers import FORMATS, RESULT_SERIALIZERS
from raysched.results import formats
from raysched.results.envelope import (
    ARROW,
    COMPRESSED,
    JSON,
    PARQUET,
    PICKLE,
    Encoded,
    decode,
    encode,
)

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
COLUMNS = st.fixed_dictionaries(
    {},
    optional={
        "ints": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
        "texts": st.lists(st.none() | st.text(), min_size=3, max_size=3),
        "floats": st.lists(st.none() | st.floats(allow_nan=False), min_size=3, max_size=3),
        "lists": st.lists(st.lists(st.integers(0, 9)), min_size=3, max_size=3),
        "times": st.lists(
            st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2200, 1, 1)),  # noqa: DTZ001
            min_size=3,
            max_size=3,
        ),
    },
)
SCHEMA = {
    "ints": pa.int64(),
    "texts": pa.string(),
    "floats": pa.float64(),
    "lists": pa.list_(pa.int64()),
    "times": pa.timestamp("us"),
}


def table(columns: dict[str, list[Any]]) -> pa.Table:
    schema = pa.schema([(name, SCHEMA[name]) for name in columns], metadata={"made": "here"})
    return pa.table(columns, schema=schema)


def there_and_back(encoded: Encoded) -> list[Any]:
    """Return the value by both ways on which it travels."""
    head, buffers = encoded.parts()
    carried = (memoryview(head), [memoryview(bytes(buffer)) for buffer in buffers])
    return [decode(encoded.join()), decode(carried), decode(encoded.settled())]


@given(JSON_VALUES, st.sampled_from(["json", "compressed/json"]))
@settings(deadline=None)
def test_json(value: Any, serializer: str) -> None:
    for found in there_and_back(encode(value, serializer)):
        assert found == value
        assert repr(found) == repr(value)


class Colour(enum.StrEnum):
    RED = "red"


class Point(NamedTuple):
    x: int


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"rows": [1, (2, 3)]}, r"result\['rows'\]\[1\] is of type tuple"),
        ({1: 2}, r"result: the key 1 is of type int"),
        ([float("nan")], r"result\[0\] is nan"),
        (float("-inf"), r"result is -inf"),
        ({"a": Colour.RED}, r"result\['a'\] is of type Colour"),
        ([[Point(1)]], r"result\[0\]\[0\] is of type Point"),
        (b"x", r"result is of type bytes"),
        (10**5000, r"int cannot be written as json: ValueError"),
    ],
    ids=["tuple", "key", "nan", "infinite", "subclass", "nested", "bytes", "digits"],
)
def test_what_json_would_change_is_refused(value: Any, told: str) -> None:
    with pytest.raises(SerializationError, match=told):
        encode(value, "json")


@given(COLUMNS)
@settings(deadline=None)
def test_tables_of_pyarrow(columns: dict[str, list[Any]]) -> None:
    given_table = table(columns)
    for serializer in ("", "arrow", "compressed/arrow", "parquet", "compressed/parquet"):
        for found in there_and_back(encode(given_table, serializer)):
            assert found.equals(given_table, check_metadata=True)
    for batch in given_table.to_batches():
        for serializer in ("", "arrow", "parquet"):
            for found in there_and_back(encode(batch, serializer)):
                assert isinstance(found, pa.RecordBatch)
                assert found.equals(batch)


@given(COLUMNS)
@settings(deadline=None)
def test_frames_of_polars(columns: dict[str, list[Any]]) -> None:
    frame = pl.DataFrame(columns, schema_overrides={"lists": pl.List(pl.Int64)}, strict=False)
    for serializer in ("", "arrow", "parquet", "compressed/arrow"):
        for found in there_and_back(encode(frame, serializer)):
            assert found.equals(frame)
            assert found.schema == frame.schema


@pytest.mark.parametrize("serializer", ["arrow", "parquet", "compressed/parquet", "pickle", ""])
def test_frames_of_pandas(serializer: str) -> None:
    index = pd.Index([3, 1, 2], name="row")
    frame = pd.DataFrame({"x": [1, 2, 3], "y": ["a", None, "c"]}, index=index)
    for found in there_and_back(encode(frame, serializer)):
        pd.testing.assert_frame_equal(found, frame)


def test_empty_batch_survives_parquet() -> None:
    batch = pa.RecordBatch.from_pylist([], schema=pa.schema([("x", pa.int64())]))
    assert decode(encode(batch, "parquet").join()).equals(batch)


@pytest.mark.parametrize(
    ("value", "serializer", "kind"),
    [
        (pa.table({"x": [1]}), "", ARROW),
        (pa.table({"x": [1]}).to_batches()[0], "", ARROW),
        (pl.DataFrame({"x": [1]}), "", ARROW),
        (pl.DataFrame({"x": [1]}), "parquet", PARQUET),
        (pd.DataFrame({"x": [1]}), "", PICKLE),
        (pl.Series([1]), "", PICKLE),
        (pa.array([1]), "", PICKLE),
        (pa.table({"x": [1]}), "pickle", PICKLE),
        ([1], "", PICKLE),
        ([1], "pickle", PICKLE),
        ([1], "json", JSON),
        ([1], "compressed/pickle", COMPRESSED),
    ],
)
def test_first_byte_tells_the_format(value: Any, serializer: str, kind: int) -> None:
    assert encode(value, serializer).join()[0] == kind


def test_types_of_somebodys_own_are_pickled() -> None:
    uuids = pa.table({"id": pa.array([b"0" * 16], pa.uuid())})
    assert encode(uuids).join()[0] == PICKLE
    assert decode(encode(uuids).join()).equals(uuids)


@pytest.mark.parametrize("serializer", ["", "arrow", "parquet", "pickle"])
def test_addresses_of_objects_are_never_written(serializer: str) -> None:
    with pytest.raises(SerializationError, match="Object"):
        encode(pl.DataFrame({"x": [object()]}), serializer)


def test_slice_does_not_take_its_table_along() -> None:
    whole = pa.table({"x": np.arange(1_000_000)})
    assert encode(whole.slice(5, 10)).size < 10_000


def test_arrow_tables_are_read_where_they_are() -> None:
    encoded = encode(pa.table({"x": np.arange(100_000)}))
    head, buffers = encoded.settled()
    before = pa.total_allocated_bytes()
    found = decode((head, buffers))
    assert pa.total_allocated_bytes() - before < 100_000
    assert found["x"][99_999].as_py() == 99_999


@pytest.mark.parametrize("name", FORMATS[2:])
def test_only_tables_fit_table_formats(name: str) -> None:
    with pytest.raises(SerializationError, match=f"'{name}' takes a DataFrame.*builtins.dict"):
        encode({"x": [1]}, name)


def test_table_that_does_not_fit_is_told() -> None:
    mixed = pd.DataFrame({"x": [1, "a", None]}, dtype=object)
    with pytest.raises(SerializationError, match="DataFrame cannot be written as arrow: Arrow"):
        encode(mixed, "arrow")


@given(st.binary(max_size=100), st.integers(1, 1000), st.booleans())
@settings(deadline=None)
def test_compression(part: bytes, times: int, zstd: bool) -> None:
    value = [part * times, np.frombuffer(part * times, np.uint8)]
    with pytest.MonkeyPatch.context() as patch:
        if not zstd:
            patch.setitem(sys.modules, "zstandard", None)
        encoded = encode(value, "compressed/pickle")
    assert encoded.head[:2] == bytes((COMPRESSED, formats.Codec.ZSTD if zstd else 1))
    for found in there_and_back(encoded):
        assert found[0] == value[0]
        np.testing.assert_array_equal(found[1], value[1])


def test_compressed_results_are_smaller() -> None:
    value = np.zeros(1_000_000)
    assert encode(value, "compressed/pickle").size < 10_000


def test_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed = encode("x" * 100, "compressed/json").join()
    arrow = encode(pa.table({"x": [1]})).join()
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(SerializationError, match="pip install zstandard"):
        decode(compressed)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SerializationError, match="pip install pyarrow"):
        decode(arrow)


def test_no_library_is_loaded_for_other_values() -> None:
    script = (
        "import sys\n"
        "from raysched.results.envelope import decode, encode\n"
        "class Row:\n"
        "    pass\n"
        "for name in ('', 'json', 'pickle', 'compressed/pickle'):\n"
        "    decode(encode([{'a': 1}], name).join())\n"
        "decode(encode(Row()).join())\n"
        "print([name for name in ('numpy', 'pyarrow', 'polars', 'pandas', 'fsspec')"
        " if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_names() -> None:
    assert RESULT_SERIALIZERS == (
        "pickle",
        "json",
        "arrow",
        "parquet",
        "compressed/pickle",
        "compressed/json",
        "compressed/arrow",
        "compressed/parquet",
    )
