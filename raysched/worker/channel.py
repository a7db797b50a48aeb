"""The worker's end of the channel to the driver."""

import select
import socket
import threading
from collections import deque
from typing import Any

from raysched.worker.context import Endpoint
from raysched.worker.protocol import VERSION
from raysched.worker.wire import (
    FRAME_MAX_BYTES,
    READY,
    FrameReader,
    WireError,
    check,
    frame,
    new_nonce,
    proof,
)

CONNECT_SECONDS = 1.0
"""How long a worker's first unit waits for a connection to the driver's port, which the kernel
makes however busy the driver is. Without one it works, but cannot be told to stop gently."""

ANSWER_SECONDS = 10.0
"""How long it waits, once connected, for each answer: a busy driver may take seconds."""

_READ_BYTES = 64 * 1024


class Channel:
    """A connection to the driver. `send` is thread-safe, the rest is for one thread.

    Args:
        endpoint: Where the driver listens.

    Attributes:
        orders: Units that were cancelled before, each as the arguments of a `CANCEL`.

    Raises:
        OSError: The driver cannot be reached.
        WireError: What listens there does not have the key.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.is_open = True
        self.orders: tuple[tuple[Any, ...], ...] = ()
        self._reader = FrameReader()
        self._early: list[tuple[Any, ...]] = []
        self._waiting: deque[bytes] = deque()
        self._unsent = b""
        self._is_pushing = False
        # Reentrant: who sends from a finalizer or a handler of a signal may come from here.
        self._lock = threading.RLock()
        self._socket = socket.create_connection((endpoint.host, endpoint.port), CONNECT_SECONDS)
        self._socket.settimeout(ANSWER_SECONDS)
        try:
            self._introduce(endpoint.key)
        except BaseException:
            self._socket.close()
            raise
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket.settimeout(0)

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._socket.fileno()

    @property
    def events(self) -> int:
        """What to poll for."""
        return select.POLLIN if self.is_clear else select.POLLIN | select.POLLOUT

    @property
    def is_clear(self) -> bool:
        """Whether everything that was sent is on its way."""
        return not (self._unsent or self._waiting)

    def send(self, *message: Any) -> None:
        """Send a message; what does not fit now goes with the next `flush`.

        When this returns and `is_clear`, the message survives the death of this process.
        """
        self._waiting.append(frame(*message))
        self.flush()

    def flush(self) -> None:
        """Send what did not fit before."""
        with self._lock:
            if not self._is_pushing:
                self._is_pushing = True
                try:
                    self._push()
                finally:
                    self._is_pushing = False

    def drain(self, seconds: float) -> None:
        """Send what did not fit before, waiting for room if need be."""
        while self.is_open and not self.is_clear:
            if not select.select([], [self._socket], [], seconds)[1]:
                return
            self.flush()

    def receive(self) -> list[tuple[Any, ...]]:
        """Return the messages that have come; at its end, the channel is not open any more."""
        early, self._early = self._early, []
        try:
            data = self._socket.recv(_READ_BYTES)
            if data:
                return early + self._reader.feed(data)
        except BlockingIOError:
            return early
        except (OSError, WireError):
            pass
        self.is_open = False
        return early

    def close(self) -> None:
        """Close the connection; for the thread that receives."""
        self.is_open = False
        self._socket.close()

    def _push(self) -> None:
        try:
            while self._unsent or self._waiting:
                self._unsent = self._unsent or self._waiting.popleft()
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            # Closed by the thread that polls it, not under its hands.
            self.is_open, self._unsent = False, b""
            self._waiting.clear()

    def _introduce(self, key: bytes) -> None:
        mine = new_nonce()
        self._socket.sendall(frame(VERSION, mine))
        match self._receive_one():
            case (bytes() as theirs, bytes() as their_proof):
                check(their_proof, proof(key, b"driver", mine, theirs))
            case _:
                raise WireError("the driver's answer is no challenge")
        self._reader.limit = FRAME_MAX_BYTES
        self._socket.sendall(frame(proof(key, b"worker", theirs, mine)))
        # Waited for: an item that was cancelled long ago must not begin before that is known here.
        match self._receive_one():
            case (kind, tuple() as orders) if kind == READY:
                self.orders = orders
            case _:
                raise WireError("the driver does not say that it is ready")

    def _receive_one(self) -> tuple[Any, ...]:
        while not self._early:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise WireError("the driver has closed the connection")
            self._early = self._reader.feed(data)
        return self._early.pop(0)
