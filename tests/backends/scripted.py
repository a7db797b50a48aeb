"""A driver whose every word is the test's."""

from __future__ import annotations

import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from raysched.backends.ray.links import Link
from raysched.worker.context import Endpoint
from raysched.worker.wire import READY, frame

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 60.0

T = TypeVar("T")


class Connection:
    """The channel of one worker."""

    def __init__(self, connection: socket.socket, key: bytes) -> None:
        connection.settimeout(PATIENCE_SECONDS)
        self._socket = connection
        self._link = Link(connection)
        self._messages: list[tuple[Any, ...]] = []
        while not self._link.is_known:
            answer = self._link.introduce(self.receive(), key)
            if answer is not None:
                self.send(*answer)
        self.send(READY, ())

    def send(self, *message: Any) -> None:
        self._socket.sendall(frame(*message))

    def receive(self) -> tuple[Any, ...]:
        """Return the next message."""
        while not self._messages:
            data = self._socket.recv(1 << 16)
            assert data, "the worker has closed the channel"
            self._messages = self._link.reader.feed(data)
        return self._messages.pop(0)

    def until(self, kind: int) -> tuple[Any, ...]:
        """Return the next message of a kind."""
        while (message := self.receive())[0] != kind:
            pass
        return message

    def close(self) -> None:
        self._socket.close()


class Driver:
    """Where workers connect to."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(PATIENCE_SECONDS)
        port = self._server.getsockname()[1]
        self.endpoint = Endpoint("127.0.0.1", port, secrets.token_bytes(32))

    def accept(self) -> Connection:
        """Return the next worker's channel."""
        connection, _ = self._server.accept()
        return Connection(connection, self.endpoint.key)

    def while_accepting(self, connect: Callable[[], T]) -> tuple[T, Connection]:
        """Return what somebody makes who connects meanwhile, and the channel."""
        accepted: list[Connection] = []
        thread = threading.Thread(target=lambda: accepted.append(self.accept()))
        thread.start()
        made = connect()
        thread.join()
        return made, accepted[0]

    def close(self) -> None:
        self._server.close()
