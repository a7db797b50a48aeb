"""One suite for all that carries requests to a collector."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ports import free_port
from raysched.errors import SettingsError
from raysched.telemetry.ports import Refused, Signal, Transport, Unavailable
from raysched.telemetry.sending.environment import Destination, Protocol
from raysched.telemetry.sending.transports import open_transport
from telemetry.messages import REJECTED
from telemetry.receiver import SAID, Answer, HttpReceiver, Identity, Receiver, receiving

LONG = 60.0


@pytest.fixture(params=list(Protocol))
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with receiving(request.param) as running:
        yield running


@pytest.fixture
def transport(receiver: Receiver) -> Iterator[Transport]:
    with closing(open_transport(receiver.destination())) as opened:
        yield opened


def request_of(*names: str) -> bytes:
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for name in names:
        spans.add(name=name)
    return message.SerializeToString()


def test_a_request_arrives(receiver: Receiver, transport: Transport) -> None:
    assert transport.send(request_of("a", "b"), LONG) == 0
    assert transport.send(request_of("c"), LONG) == 0
    assert receiver.names() == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("signal", list(Signal))
def test_every_signal_has_its_own_way(receiver: Receiver, signal: Signal) -> None:
    receiver.answer = Answer.PARTIAL
    with closing(open_transport(receiver.destination(signal))) as transport:
        assert transport.send(b"", LONG) == REJECTED
    assert [one.signal for one in receiver.received] == [signal]


def test_a_compressed_request_arrives(receiver: Receiver) -> None:
    with closing(open_transport(receiver.destination(gzip=True))) as transport:
        transport.send(request_of(*["same"] * 1000), LONG)
    assert receiver.names() == {"same": 1000}


def test_headers_go_with_it(receiver: Receiver) -> None:
    destination = receiver.destination(
        headers={"authorization": "Bearer secret", "x-tenant": "a b"}
    )
    with closing(open_transport(destination)) as transport:
        transport.send(request_of("a"), LONG)
        assert "secret" not in transport.url
    assert "secret" not in repr(destination)
    assert receiver.received[0].headers["authorization"] == "Bearer secret"
    assert receiver.received[0].headers["x-tenant"] == "a b"


@pytest.mark.parametrize("answer", [Answer.BUSY, Answer.AWAY])
def test_what_may_be_tried_again(receiver: Receiver, transport: Transport, answer: Answer) -> None:
    receiver.answer, receiver.retry_after = answer, 7.0
    with pytest.raises(Unavailable) as caught:
        transport.send(request_of("a"), LONG)
    assert caught.value.retry_after == (7.0 if answer is Answer.BUSY else None)
    receiver.answer = Answer.OK
    assert transport.send(request_of("a"), LONG) == 0


def test_what_may_not(receiver: Receiver, transport: Transport) -> None:
    receiver.answer = Answer.REFUSED
    with pytest.raises(Refused, match=SAID) as caught:
        transport.send(request_of("a"), LONG)
    assert not caught.value.unsupported


def test_a_signal_that_is_not_taken(receiver: Receiver, transport: Transport) -> None:
    receiver.answer = Answer.UNSUPPORTED
    with pytest.raises(Refused) as caught:
        transport.send(request_of("a"), LONG)
    assert caught.value.unsupported


def test_an_answer_that_is_garbage(receiver: Receiver, transport: Transport) -> None:
    receiver.answer = Answer.GARBAGE
    with pytest.raises((Refused, Unavailable)):
        transport.send(request_of("a"), LONG)


def test_no_answer_at_all(receiver: Receiver, transport: Transport) -> None:
    receiver.answer = Answer.NEVER
    with pytest.raises(Unavailable):
        transport.send(request_of("a"), 0.2)


def test_the_standard_timeout_holds_if_it_is_shorter(receiver: Receiver) -> None:
    receiver.answer = Answer.NEVER
    with (
        closing(open_transport(receiver.destination(timeout=0.2))) as transport,
        pytest.raises(Unavailable),
    ):
        transport.send(request_of("a"), float("inf"))


def test_nobody_listens_and_then_somebody_does(receiver: Receiver, transport: Transport) -> None:
    receiver.stop()
    with pytest.raises(Unavailable, match="refused"):
        transport.send(request_of("a"), LONG)
    receiver.start()
    for _ in range(1000):
        try:
            transport.send(request_of("b"), LONG)
            break
        except Unavailable:
            # A connection of gRPC is not tried again for a moment.
            threading.Event().wait(0.02)
    assert receiver.names() == {"b": 1}


def test_it_stops_while_a_request_waits(receiver: Receiver, transport: Transport) -> None:
    receiver.answer = Answer.NEVER
    failed = []

    def send() -> None:
        try:
            transport.send(request_of("a"), LONG)
        except Unavailable as error:
            failed.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    receiver.wait(lambda: receiver.asked == 1)
    receiver.stop()
    thread.join(LONG)
    assert failed
    receiver.start()


@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_server_of_the_other_protocol(protocol: Protocol) -> None:
    """Each of the two says how it fails, and neither hangs."""
    other = Protocol.GRPC if protocol is Protocol.HTTP else Protocol.HTTP
    with receiving(other) as receiver:
        endpoint = f"127.0.0.1:{receiver.port}"
        if protocol is Protocol.HTTP:
            endpoint = f"http://{endpoint}/v1/traces"
        destination = Destination(Signal.TRACES, protocol, endpoint)
        with closing(open_transport(destination)) as transport:
            with pytest.raises((Unavailable, Refused)) as caught:
                transport.send(request_of("a"), 5.0)
            assert str(caught.value)


def test_a_host_that_is_not_there(receiver: Receiver) -> None:
    http = receiver.protocol is Protocol.HTTP
    endpoint = "http://nowhere.invalid:4318/v1/traces" if http else "nowhere.invalid:4317"
    destination = Destination(Signal.TRACES, receiver.protocol, endpoint)
    with closing(open_transport(destination)) as transport, pytest.raises(Unavailable):
        transport.send(request_of("a"), 5.0)


def test_a_certificate_that_is_none(receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    endpoint = f"127.0.0.1:{receiver.port}"
    if receiver.protocol is Protocol.HTTP:
        endpoint = f"https://{endpoint}/v1/traces"
    destination = Destination(
        Signal.TRACES, receiver.protocol, endpoint, secure=True, certificate=file
    )
    with closing(open_transport(destination)) as transport, pytest.raises(Unavailable):
        transport.send(request_of("a"), 2.0)


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    found = Identity(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(found.ca)
    issued.cert_chain_pems[0].write_to_path(found.certificate)
    issued.private_key_pem.write_to_path(found.key)
    return found


@pytest.mark.parametrize("protocol", list(Protocol))
def test_encrypted_connections_with_certificates_of_both_sides(
    protocol: Protocol, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which requests prefers to what its sessions say.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    files: dict[str, Any] = {
        "certificate": identity.ca,
        "client_certificate": identity.certificate,
        "client_key": identity.key,
    }
    with receiving(protocol, identity) as receiver:
        with closing(open_transport(receiver.destination(**files))) as transport:
            assert transport.send(request_of("a"), LONG) == 0
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        for lacking in ({"certificate": None}, {"client_certificate": None, "client_key": None}):
            destination = receiver.destination(**{**files, **lacking})
            with closing(open_transport(destination)) as transport, pytest.raises(Unavailable):
                transport.send(request_of("b"), 2.0)
    assert receiver.names() == {"a": 1}


def test_credentials_are_not_shown_in_what_failed() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}/v1/traces?api_key=secret"
    destination = Destination(Signal.TRACES, Protocol.HTTP, endpoint, headers={"x": "secret"})
    with closing(open_transport(destination)) as transport:
        with pytest.raises(Unavailable, match="refused") as caught:
            transport.send(request_of("a"), LONG)
        assert "secret" not in f"{caught.value!r} {caught.value.reason} {transport.url}"


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("port", [4317, 4318, 43170])
def test_the_port_of_the_other_protocol(protocol: Protocol, port: int) -> None:
    # Nobody listens on this address of the loopback network.
    endpoint = f"127.9.9.9:{port}"
    if protocol is Protocol.HTTP:
        endpoint = f"http://{endpoint}/v1/traces"
    other = {(Protocol.HTTP, 4317): Protocol.GRPC, (Protocol.GRPC, 4318): Protocol.HTTP}
    wanted = other.get((protocol, port))
    with (
        closing(open_transport(Destination(Signal.TRACES, protocol, endpoint))) as transport,
        pytest.raises(Unavailable) as said,
    ):
        transport.send(request_of("a"), LONG)
    assert ("OTEL_EXPORTER_OTLP_PROTOCOL" in said.value.reason) is (wanted is not None)
    assert f"PROTOCOL={wanted}" in said.value.reason or wanted is None


class TestHttpAlone:
    @pytest.mark.parametrize(
        ("said", "at_least"),
        [
            (format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), 80_000.0),
            (format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True), 0.0),
            ("0", 0.0),
            ("soon", None),
            ("", None),
        ],
        ids=["tomorrow", "yesterday", "at once", "soon", "empty"],
    )
    def test_when_it_asks_to_be_tried_again(self, said: str, at_least: float | None) -> None:
        with receiving(Protocol.HTTP) as receiver:
            receiver.answer, receiver.retry_after = Answer.BUSY, said
            with (
                closing(open_transport(receiver.destination())) as transport,
                pytest.raises(Unavailable) as caught,
            ):
                transport.send(request_of("a"), LONG)
        wait = caught.value.retry_after
        assert (wait is None) == (at_least is None)
        assert (wait or 0.0) >= (at_least or 0.0)

    def test_an_answer_in_json(self) -> None:
        with receiving(Protocol.HTTP) as receiver:
            assert isinstance(receiver, HttpReceiver)
            receiver.content_type = "application/json"
            with closing(open_transport(receiver.destination())) as transport:
                assert transport.send(request_of("a"), LONG) == 0
                receiver.answer = Answer.GARBAGE
                with pytest.raises(Refused, match="not OTLP"):
                    transport.send(request_of("a"), LONG)

    def test_netrc_and_its_like_change_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password mine\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        with receiving(Protocol.HTTP) as receiver:
            destination = receiver.destination(headers={"authorization": "Bearer token"})
            with closing(open_transport(destination)) as transport:
                transport.send(request_of("a"), LONG)
            assert receiver.received[0].headers["authorization"] == "Bearer token"


def test_a_key_that_cannot_be_read(tmp_path: Path) -> None:
    destination = Destination(
        Signal.TRACES, Protocol.GRPC, "localhost:1", secure=True, certificate=tmp_path
    )
    with pytest.raises(SettingsError, match=str(tmp_path)):
        open_transport(destination)


@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_fork_may_end_as_it_likes(protocol: Protocol) -> None:
    """Beside an open connection a child of this process ends without hanging or printing."""
    script = """
import os, sys
from contextlib import closing
from raysched.telemetry.sending.transports import open_transport
from raysched.telemetry.sending.sender import Sender
from telemetry.receiver import Answer, Protocol, receiving
with receiving(Protocol(sys.argv[1])) as receiver:
    sender = Sender(open_transport(receiver.destination()), b"".join, linger_seconds=0)
    sender.put(b"", 1, 1, "a")
    assert sender.flush(30)
    child = os.fork()
    if child == 0:
        sender.put(b"", 1, 1, "b")
        assert sender.flush(30) and not sender.unsent() and not sender.reason()
        sender.close()
        sys.stdout.flush()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    sender.put(b"", 1, 1, "c")
    assert sender.flush(30)
    assert len(receiver.received) == 2, receiver.received
    sender.close()
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, protocol],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_lost_connection_is_told_and_not_printed(protocol: Protocol) -> None:
    script = """
import sys
from raysched.telemetry.sending.environment import Destination, Protocol, Signal
from raysched.telemetry.ports import Unavailable
from raysched.telemetry.sending.transports import open_transport
transport = open_transport(Destination(Signal.TRACES, Protocol(sys.argv[1]), sys.argv[2]))
try:
    transport.send(b"", 60)
except Unavailable:
    print("told")
"""
    with receiving(protocol) as receiver:
        receiver.answer = Answer.NEVER
        program = subprocess.Popen(
            [sys.executable, "-c", script, protocol, receiver.destination().endpoint],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        receiver.wait(lambda: receiver.asked == 1)
        receiver.stop()
        assert program.communicate(timeout=60) == ("told\n", "")
        receiver.start()
