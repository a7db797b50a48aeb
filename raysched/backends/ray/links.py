"""The connection of one worker, from the driver's side."""

import socket
import time
from typing import TYPE_CHECKING, Any

from raysched.worker.protocol import VERSION
from raysched.worker.wire import FRAME_MAX_BYTES, FrameReader, WireError, check, new_nonce, proof

if TYPE_CHECKING:
    from raysched.backends.ray.hearts import Whereabouts

HANDSHAKE_SECONDS = 5.0
"""How long a connection has time to prove that it is a worker."""


class Link:
    """One connection, and what is known of whoever is at its other end.

    Args:
        connection: The connection.

    Attributes:
        reader: Cuts what comes into messages.
        unsent: What did not fit yet.
        is_known: Whether it has proved that it is a worker.
        deadline: Until when it has time for that (monotonic seconds).
        acknowledged: How many outcomes, log records and messages of spans of a unit it knows to be
            here, by unit.
        whereabouts: Where it is, once it has said so.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = FrameReader()
        self.unsent = b""
        self.is_known = False
        self.deadline = time.monotonic() + HANDSHAKE_SECONDS
        self.acknowledged: dict[int, tuple[int, int, int]] = {}
        self.whereabouts: Whereabouts | None = None
        self._nonce = b""
        self._their_nonce = b""

    def introduce(self, message: tuple[Any, ...], key: bytes) -> tuple[Any, ...] | None:
        """Take a message of somebody who has not proved anything yet; return the answer.

        None if that was the proof.

        Raises:
            WireError: It is no worker.
        """
        match message:
            case (int() as version, bytes() as nonce) if not self._nonce:
                if version != VERSION:
                    raise WireError(f"it speaks version {version} of the protocol, not {VERSION}")
                self._nonce, self._their_nonce = new_nonce(), nonce
                return self._nonce, proof(key, b"driver", nonce, self._nonce)
            case (bytes() as theirs,) if self._nonce:
                check(theirs, proof(key, b"worker", self._nonce, self._their_nonce))
                self.is_known = True
                self.reader.limit = FRAME_MAX_BYTES
                return None
            case _:
                raise WireError("it does not introduce itself")
