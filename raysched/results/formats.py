"""Values in formats other than pickle: JSON, tables by Arrow and Parquet, and compression."""

import json
import zlib
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any

from raysched.errors import SerializationError
from raysched.model import serializers
from raysched.results import envelope
from raysched.results.envelope import ARROW, COMPRESSED, JSON, PARQUET, Encoded, framed

ZLIB_LEVEL = 1
"""Of several hundred MB/s, as results are written while a slot is held; 6 takes four times as long
for a tenth of the size."""

ZSTD_LEVEL = 3
"""Zstandard's default."""

_PLAIN = frozenset({str, int, bool, type(None)})


class Codec(IntEnum):
    """How a compressed envelope was compressed."""

    ZLIB = 1
    ZSTD = 2


def write(value: object, serializer: str) -> Encoded:
    """Encode `value` by a named serializer.

    Args:
        value: The value.
        serializer: One of `model.serializers.RESULT_SERIALIZERS`.

    Raises:
        SerializationError: The value does not fit.
    """
    name = serializer.removeprefix(serializers.COMPRESSED)
    try:
        encoded = _WRITERS[name](value)
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(
            f"{type(value).__qualname__} cannot be written as {name}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return encoded if name == serializer else _compressed(encoded)


def read(kind: int, detail: int, body: memoryview) -> Any:
    """Decode what follows the head of an envelope.

    Raises:
        SerializationError: A library that it takes is not installed here.
    """
    if kind == JSON:
        return json.loads(str(body, "ascii"))
    if kind == COMPRESSED:
        return envelope.decode(_decompressed(detail, body))
    from raysched.results import frames

    return frames.read_arrow(detail, body) if kind == ARROW else frames.read_parquet(detail, body)


def as_table(value: object) -> Encoded | None:
    """Encode a table of pyarrow or polars by Arrow; return None for what is none, or does not fit.

    Pickle would carry along all of the table that a slice was cut from.
    """
    from raysched.results import frames

    return _arrow(value) if frames.fits(value) else None


def _json(value: object) -> Encoded:
    for path, found in _not_json("", value):
        raise SerializationError(
            f"result{path} is {_told(found)}, which JSON would not give back as it is: return "
            "lists, dicts with texts as keys, texts, finite numbers, booleans and None, or choose "
            "another result_serializer"
        )
    return framed(JSON, 0, json.dumps(value, separators=(",", ":")).encode("ascii"))


def _told(found: object) -> str:
    return repr(found) if type(found) is float else f"of type {type(found).__qualname__}"


def _not_json(path: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield what does not come back from JSON as it was, with where it is: `['rows'][3]`."""
    kind = type(value)
    if kind in _PLAIN:
        return
    if isinstance(value, list) and kind is list:
        for index, element in enumerate(value):
            if type(element) not in _PLAIN:
                yield from _not_json(f"{path}[{index}]", element)
    elif isinstance(value, dict) and kind is dict:
        for key, element in value.items():
            if type(key) is not str:
                yield f"{path}: the key {key!r}", key
            elif type(element) not in _PLAIN:
                yield from _not_json(f"{path}[{key!r}]", element)
    elif kind is not float or value in _INFINITE or value != value:  # noqa: PLR0124 - NaN
        yield path, value


_INFINITE = frozenset({float("inf"), float("-inf")})


def _pickle(value: object) -> Encoded:
    return envelope.encode(value, "pickle")


def _arrow(value: object) -> Encoded:
    from raysched.results import frames

    return framed(ARROW, *frames.write_arrow(value))


def _parquet(value: object) -> Encoded:
    from raysched.results import frames

    return framed(PARQUET, *frames.write_parquet(value))


_WRITERS: dict[str, Callable[[object], Encoded]] = {
    "pickle": _pickle,
    "json": _json,
    "arrow": _arrow,
    "parquet": _parquet,
}


def _compressed(encoded: Encoded) -> Encoded:
    parts = envelope.pieces(encoded.parts())
    try:
        import zstandard
    except ImportError:
        deflate = zlib.compressobj(ZLIB_LEVEL)
        chunks = [*map(deflate.compress, parts), deflate.flush()]
        return framed(COMPRESSED, Codec.ZLIB, b"".join(chunks))
    zstd = zstandard.ZstdCompressor(ZSTD_LEVEL).compressobj()
    chunks = [*map(zstd.compress, parts), zstd.flush()]
    return framed(COMPRESSED, Codec.ZSTD, b"".join(chunks))


def _decompressed(codec: int, body: memoryview) -> bytes:
    if codec == Codec.ZLIB:
        return zlib.decompress(body)
    try:
        import zstandard
    except ImportError as error:
        raise SerializationError(
            "a value was compressed with Zstandard, which is not installed here: "
            "pip install zstandard"
        ) from error
    return zstandard.ZstdDecompressor().decompressobj().decompress(body)
