"""Values as bytes: encoded once, measured, and decoded into a fresh copy each time.

An envelope is self-describing: its first byte says how the rest was written, so that a value kept
by one version of raysched is readable by the next. A value with large buffers (numpy, Arrow) is
written with these out of band (PEP 574): they are copied when the envelope is joined or decoded,
never in between.
"""

import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from typing_extensions import Buffer

from raysched.errors import InternalError, SerializationError
from raysched.graph.payload import ATOMS, PROTOCOL, dumps
from raysched.results import scripts

PICKLE = 0x80
"""First byte of an envelope that is one pickle, as it is: of the PROTO opcode (PEP 307)."""

PICKLE_WITH_BUFFERS = 2
"""First byte of an envelope: a count, that many lengths, the pickle, its buffers."""

JSON = 3
"""First byte of an envelope: `HEAD`, then JSON text. So also with the next ones."""

ARROW = 4
"""… then an Arrow IPC stream; the second byte is a `frames.Frame`."""

PARQUET = 5
"""… then a Parquet file; the second byte is a `frames.Frame`."""

COMPRESSED = 6
"""… then another envelope, compressed; the second byte is a `formats.Codec`."""

HEAD = struct.Struct("<BB6x")
"""Kind and detail of what is no pickle. Arrow wants its data to begin at a multiple of 8 bytes."""

OUT_OF_BAND_MIN_BYTES = 8 * 1024
"""Smaller buffers stay inside the pickle: one copy of them is cheaper than keeping them apart."""

_WITH_BUFFERS = bytes((PICKLE_WITH_BUFFERS,))
_COUNT = struct.Struct("<I")

BufferLike: TypeAlias = bytes | bytearray | memoryview | pickle.PickleBuffer

Parts: TypeAlias = tuple[BufferLike, Sequence[BufferLike]]
"""A value whose buffers were left where they are: what is before them, and they."""


@dataclass(slots=True)
class Encoded:
    """An encoded value.

    Attributes:
        head: The pickle; or of what is no pickle `HEAD`, with what follows if that is small.
        buffers: The buffers out of band, which may still belong to the value: join or store them
            before the value changes.
        size: Size of all of it (bytes).
    """

    head: bytes
    buffers: tuple[pickle.PickleBuffer, ...]
    size: int

    def join(self) -> bytes:
        """Return the envelope in one piece."""
        if not self.buffers:
            return self.head
        return b"".join(pieces(self.parts()))

    def settled(self) -> Parts:
        """Return it as it is now: nobody who changes the value changes it any more."""
        return self.head, [bytes(buffer.raw()) for buffer in self.buffers]

    def parts(self) -> Parts:
        """Return it without copying anything, for a carrier that takes buffers out of band."""
        return pickle.PickleBuffer(self.head), self.buffers


def framed(kind: int, detail: int, body: Buffer) -> Encoded:
    """Return what is no pickle as an encoded value."""
    buffer = pickle.PickleBuffer(body)
    view = buffer.raw()
    head = HEAD.pack(kind, detail)
    size = len(head) + view.nbytes
    if view.nbytes < OUT_OF_BAND_MIN_BYTES:
        return Encoded(head + view, (), size)
    return Encoded(head, (buffer,), size)


def pieces(parts: Parts) -> list[memoryview]:
    """Return an envelope in pieces, to be written one after the other: nothing is copied."""
    head, *buffers = (flat(part) for part in (parts[0], *parts[1]))
    if not buffers or head[0] != PICKLE:
        return [head, *buffers]
    lengths = struct.pack(f"<{1 + len(buffers)}Q", head.nbytes, *(b.nbytes for b in buffers))
    count = _COUNT.pack(1 + len(buffers))
    return [memoryview(b"".join((_WITH_BUFFERS, count, lengths))), head, *buffers]


def flat(buffer: BufferLike) -> memoryview:
    """Return a buffer as its bytes, in whatever shape it is."""
    return buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer).cast("B")


def encode(value: object, serializer: str = "") -> Encoded:
    """Encode `value`.

    Args:
        value: The value.
        serializer: One of `model.serializers.RESULT_SERIALIZERS`, or "" to choose by its type:
            Arrow for tables of pyarrow and polars, pickle for everything else.

    Raises:
        SerializationError: It cannot be pickled, or does not fit the serializer.
        FutureError: A future is in it.
    """
    if serializer not in {"", "pickle"}:
        from raysched.results import formats  # named by few tasks

        return formats.write(value, serializer)
    if type(value) in ATOMS:
        pickled = pickle.dumps(value, PROTOCOL)
        return Encoded(pickled, (), len(pickled))
    if not serializer and type(value).__module__.startswith(("pyarrow.", "polars.")):
        from raysched.results import formats

        table = formats.as_table(value)
        if table is not None:
            return table
    buffers: list[pickle.PickleBuffer] = []
    pickled = dumps(value, buffers, OUT_OF_BAND_MIN_BYTES, scripts.dumps)
    if not buffers:
        return Encoded(pickled, (), len(pickled))
    size = len(pickled) + sum(buffer.raw().nbytes for buffer in buffers)
    return Encoded(pickled, tuple(buffers), size)


def decode(envelope: BufferLike | Parts) -> Any:
    """Return a fresh copy of an encoded value: nothing that can be changed is shared with another.

    Its arrays are writable, unless they were read-only when they were encoded.

    Args:
        envelope: What `Encoded.join` or `Encoded.parts` returned, in any process.

    Raises:
        SerializationError: Its class is not importable here, or cannot be rebuilt.
        InternalError: A newer raysched wrote it.
    """
    try:
        if isinstance(envelope, bytes) and envelope[0] == PICKLE:
            return scripts.loads(envelope)
        head, buffers = envelope if isinstance(envelope, tuple) else _split(flat(envelope))
        kind = flat(head)[0]
        if kind == PICKLE:
            return scripts.loads(head, [bytearray(buffer) for buffer in buffers])
        return _decode_format(flat(head), buffers)
    except (InternalError, SerializationError):
        raise
    except Exception as error:
        message = (
            f"a value cannot be unpickled here: {type(error).__name__}: {error}. "
            "Its class has to be importable and to pickle both ways"
        )
        raise SerializationError(message) from error


def _decode_format(head: memoryview, buffers: Sequence[BufferLike]) -> Any:
    kind = head[0]
    if kind not in {JSON, ARROW, PARQUET, COMPRESSED}:
        message = (
            f"a value is in format {kind}, which this raysched does not know: install a newer one"
        )
        raise InternalError(message)
    from raysched.results import formats

    _, detail = HEAD.unpack_from(head)
    return formats.read(kind, detail, flat(buffers[0]) if buffers else head[HEAD.size :])


def _split(envelope: memoryview) -> Parts:
    if envelope[0] != PICKLE_WITH_BUFFERS:
        return envelope, ()
    (count,) = _COUNT.unpack_from(envelope, 1)
    start = 1 + _COUNT.size
    lengths = struct.unpack_from(f"<{count}Q", envelope, start)
    start += 8 * count
    parts = []
    for length in lengths:
        parts.append(envelope[start : start + length])
        start += length
    return parts[0], parts[1:]
