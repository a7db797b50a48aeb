"""The ways to Ray: clusters that do not answer, and who may speak to a driver."""

from __future__ import annotations

import logging
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from raysched.backends.ray.listener import Alarms, Listener
from raysched.errors import BackendUnreachable
from raysched.worker.channel import Channel
from raysched.worker.wire import BEGAN, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raysched.engine.ports import Message, Sink


class TestUnreachable:
    """`connect` in the process of a running Ray: it must fail before it touches that."""

    # All interfaces: Ray takes 127.0.0.1 for the address of the node.

    def test_nobody_listens(self) -> None:
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        self.refused(f"127.0.0.1:{port}", "no Ray cluster answers")

    def test_somebody_else_listens(self) -> None:
        with socket.create_server(("", 0)) as server:
            thread = threading.Thread(target=answer_like_a_web_server, args=(server,))
            thread.start()
            self.refused(f"127.0.0.1:{server.getsockname()[1]}", "is not Ray")
            thread.join()

    def test_nobody_answers(self) -> None:
        with socket.create_server(("", 0)) as server:
            self.refused(f"127.0.0.1:{server.getsockname()[1]}", "timed out")

    def test_ray_client(self) -> None:
        self.refused("ray://head:10001", "Ray Client is not supported")

    def test_no_address(self) -> None:
        self.refused("head", "no Ray cluster at 'head'")

    @staticmethod
    def refused(address: str, why: str) -> None:
        from raysched.backends.ray.connection import connect

        with pytest.raises(BackendUnreachable, match=why):
            connect(address, {}, None)


def answer_like_a_web_server(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def new_listener(sink: Sink) -> Listener:
    alarms = Alarms(on_silence=lambda _: None, on_deafness=lambda _: None, on_end=lambda _: None)
    return Listener("127.0.0.1", sink, is_open=lambda _: True, alarms=alarms)


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = new_listener(lambda _: None)
    yield found
    found.close()


class TestListener:
    """The port for workers' channels is open to whoever reaches it."""

    def test_stranger_is_refused(
        self, listener: Listener, caplog: pytest.LogCaptureFixture
    ) -> None:
        address = listener.endpoint.host, listener.endpoint.port
        with (
            caplog.at_level(logging.WARNING),
            socket.create_connection(address, 10) as stranger,
        ):
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert stranger.recv(1000) == b""
        assert "was refused" in caplog.text

    def test_wrong_key_is_refused(self, listener: Listener) -> None:
        wrong = replace(listener.endpoint, key=b"x" * 32)
        with pytest.raises(WireError, match="proof"):
            Channel(wrong)

    def test_worker_with_the_key_may_speak(self, listener: Listener) -> None:
        channel = Channel(listener.endpoint)
        channel.send(BEGAN, 7, (0,), 1)
        channel.close()
        done = threading.Event()
        listener.after_last_words(7, done.set, died=True)
        assert done.wait(10)

    def test_worker_waits_for_a_driver_that_is_busy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("raysched.worker.channel.CONNECT_SECONDS", 0.05)
        busy, may_go_on = threading.Event(), threading.Event()

        def sink(message: Message) -> None:
            del message
            busy.set()
            may_go_on.wait()

        listener = new_listener(sink)
        try:
            first = Channel(listener.endpoint)
            first.send(BEGAN, 7, (0,), 1)
            assert busy.wait(10)
            threading.Timer(0.2, may_go_on.set).start()
            second = Channel(listener.endpoint)
        finally:
            may_go_on.set()
            listener.close()
        for channel in (first, second):
            channel.close()
