"""How a worker's channel speaks: length-prefixed msgpack frames after a mutual challenge.

Nothing on it is pickled. Both sides prove that they have the driver's key before anything else is
read, each with an HMAC over both nonces, in a role of its own so that no proof can be reflected.

```
worker → driver   (VERSION, nonce)
driver → worker   (nonce, proof of the driver)
worker → driver   (proof of the worker,)
driver → worker   (READY, [(unit, positions or None for all, force), …]) what is cancelled already
worker → driver   (HERE, node id, worker id, process id, host, file of its traces)
                  (BEGAN, unit, positions, at in ns)
                  (PROGRESSED, unit, report, how many outcomes of the unit, log records and span
                      messages there are with it, all in all)
                  (ALIVE, unit, seconds, key of a task run that has begun) no silence from now on
                      may be longer than that; 0 for any
                  (HEARD, unit) that it carries out a CANCEL
                  (HOLDS,) once it keeps objects for later units; (CLOSED,) when it does no more
driver → worker   (CANCEL, unit, positions or None for all, force)
                  (ACKNOWLEDGE, unit, the same numbers of what is there, to be forgotten)
                  (CLOSE,) the objects that it keeps
```
"""

import hmac
import secrets
import struct
from typing import Any

import msgpack

BEGAN = 1
PROGRESSED = 2
CANCEL = 3
ACKNOWLEDGE = 4
HOLDS = 5
CLOSE = 6
CLOSED = 7
READY = 8
HERE = 9
ALIVE = 10
HEARD = 11

HANDSHAKE_MAX_BYTES = 256
"""Largest frame that is accepted from somebody who has not proved anything."""

FRAME_MAX_BYTES = 256 * 1024**2
"""Largest frame that is accepted at all."""

_LENGTH = struct.Struct(">I")


class WireError(Exception):
    """The other side does not speak this protocol, or does not have the key."""


def frame(*message: Any) -> bytes:
    """Return a message as a frame."""
    body: bytes = msgpack.packb(message)
    return _LENGTH.pack(len(body)) + body


def new_nonce() -> bytes:
    """Return what the other side has to prove its key over."""
    return secrets.token_bytes(32)


def proof(key: bytes, role: bytes, first: bytes, second: bytes) -> bytes:
    """Return the proof of having `key`, in a role, over two nonces."""
    return hmac.digest(key, b"\0".join((role, first, second)), "sha256")


def check(given: object, expected: bytes) -> None:
    """Compare two proofs in constant time.

    Raises:
        WireError: They differ.
    """
    if not isinstance(given, bytes) or not hmac.compare_digest(given, expected):
        raise WireError("the proof of the key is wrong")


class FrameReader:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self.limit = HANDSHAKE_MAX_BYTES
        """Largest accepted frame (bytes); to be raised once the other side is known."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        """Take bytes, return the messages that are complete.

        Raises:
            WireError: A frame is too large or is no message.
        """
        self._buffer += data
        messages, start = [], 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > self.limit:
                raise WireError(f"a frame of {length} bytes is larger than {self.limit}")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(_message(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return messages


def _message(body: bytes) -> tuple[Any, ...]:
    try:
        message = msgpack.unpackb(body, use_list=False)
    except Exception as error:
        raise WireError(f"a frame is no msgpack: {error}") from error
    if not isinstance(message, tuple):
        raise WireError("a frame is no message")
    return message
