"""Values as bytes: pickled once, measured, and decoded into a fresh copy each time.

An envelope is self-describing: its first byte says how the rest was written, so that a value kept
by one version of raysched is readable by the next. A value with large buffers (numpy, Arrow) is
pickled with these out of band (PEP 574): they are copied when the envelope is joined or decoded,
never in between.
"""

import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from raysched.errors import InternalError, SerializationError
from raysched.graph.payload import ATOMS, PROTOCOL, dumps

PICKLE = 0x80
"""First byte of an envelope that is one pickle, as it is: of the PROTO opcode (PEP 307)."""

PICKLE_WITH_BUFFERS = 2
"""First byte of an envelope: a count, that many lengths, the pickle, its buffers."""

OUT_OF_BAND_MIN_BYTES = 8 * 1024
"""Smaller buffers stay inside the pickle: one copy of them is cheaper than keeping them apart."""

_WITH_BUFFERS = bytes((PICKLE_WITH_BUFFERS,))
_COUNT = struct.Struct("<I")

BufferLike: TypeAlias = bytes | bytearray | memoryview | pickle.PickleBuffer

Parts: TypeAlias = tuple[BufferLike, Sequence[BufferLike]]
"""A value whose buffers were left where they are: the pickle, and its buffers."""


@dataclass(slots=True)
class Encoded:
    """An encoded value.

    Attributes:
        pickled: The pickle.
        buffers: Its out-of-band buffers, which still belong to the value: join or store them
            before the value changes.
        size: Size of all of it (bytes).
    """

    pickled: bytes
    buffers: tuple[pickle.PickleBuffer, ...]
    size: int

    def join(self) -> bytes:
        """Return the envelope in one piece."""
        if not self.buffers:
            return self.pickled
        parts = [memoryview(self.pickled), *(buffer.raw() for buffer in self.buffers)]
        lengths = struct.pack(f"<{len(parts)}Q", *(part.nbytes for part in parts))
        return b"".join((_WITH_BUFFERS, _COUNT.pack(len(parts)), lengths, *parts))

    def settled(self) -> Parts:
        """Return it as it is now: nobody who changes the value changes it any more."""
        return self.pickled, [bytes(buffer.raw()) for buffer in self.buffers]

    def parts(self) -> Parts:
        """Return it without copying anything, for a carrier that takes buffers out of band."""
        return pickle.PickleBuffer(self.pickled), self.buffers


def encode(value: object) -> Encoded:
    """Pickle `value`.

    Raises:
        SerializationError: It cannot be pickled.
        FutureError: A future is in it.
    """
    if type(value) in ATOMS:
        pickled = pickle.dumps(value, PROTOCOL)
        return Encoded(pickled, (), len(pickled))
    buffers: list[pickle.PickleBuffer] = []
    pickled = dumps(value, buffers, OUT_OF_BAND_MIN_BYTES)
    if not buffers:
        return Encoded(pickled, (), len(pickled))
    size = len(pickled) + sum(buffer.raw().nbytes for buffer in buffers)
    return Encoded(pickled, tuple(buffers), size)


def decode(envelope: BufferLike | Parts) -> Any:
    """Return a fresh copy of an encoded value: nothing in it is shared with another copy.

    Its arrays are writable, unless they were read-only when they were encoded.

    Args:
        envelope: What `Encoded.join` or `Encoded.parts` returned, in any process.

    Raises:
        SerializationError: Its class is not importable here, or cannot be rebuilt.
        InternalError: A newer raysched wrote it.
    """
    try:
        if isinstance(envelope, bytes) and envelope[0] == PICKLE:
            return pickle.loads(envelope)
        parts = envelope if isinstance(envelope, tuple) else _split(memoryview(envelope))
        pickled, buffers = parts
        return pickle.loads(pickled, buffers=[bytearray(buffer) for buffer in buffers])
    except InternalError:
        raise
    except Exception as error:
        message = (
            f"a value cannot be unpickled here: {type(error).__name__}: {error}. "
            "Its class has to be importable and to pickle both ways"
        )
        raise SerializationError(message) from error


def _split(envelope: memoryview) -> Parts:
    kind = envelope[0]
    if kind == PICKLE:
        return envelope, ()
    if kind != PICKLE_WITH_BUFFERS:
        message = (
            f"a value is in format {kind}, which this raysched does not know: install a newer one"
        )
        raise InternalError(message)
    (count,) = _COUNT.unpack_from(envelope, 1)
    start = 1 + _COUNT.size
    lengths = struct.unpack_from(f"<{count}Q", envelope, start)
    start += 8 * count
    parts = []
    for length in lengths:
        parts.append(envelope[start : start + length])
        start += length
    return parts[0], parts[1:]
