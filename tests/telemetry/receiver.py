"""A small receiver of OTLP that fails on demand, and a collector that nobody here wrote."""

import gzip
import socket
import ssl
import subprocess
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
from google.rpc.status_pb2 import Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ports import free_port
from raysched.telemetry.ports import Signal
from raysched.telemetry.sending.environment import Destination, Protocol
from telemetry.messages import PARTIAL, REQUESTS, SERVICES, retry_info

WAIT_SECONDS = 100.0
"""After this a test has failed, however busy the machine is."""

SAID = "too many for today"
"""What it says with a failure."""

GARBAGE = b"\xff\xfe<html>not a collector</html>"


class Answer(Enum):
    """How a receiver answers; with `OK` and `PARTIAL` it keeps the request."""

    OK = auto()
    PARTIAL = auto()
    BUSY = auto()
    AWAY = auto()
    REFUSED = auto()
    UNSUPPORTED = auto()
    GARBAGE = auto()
    NEVER = auto()


_HTTP_CODES = {
    Answer.BUSY: 429,
    Answer.AWAY: 503,
    Answer.REFUSED: 400,
    Answer.UNSUPPORTED: 404,
}

_GRPC_CODES = {
    Answer.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Answer.AWAY: grpc.StatusCode.UNAVAILABLE,
    Answer.NEVER: grpc.StatusCode.UNAVAILABLE,
    Answer.REFUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Answer.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
}


@dataclass(frozen=True)
class Received:
    """A request that was kept, with its headers (names in lower case)."""

    signal: Signal
    message: Any
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Identity:
    """Files of a certificate with its key, and of the authority that has signed it."""

    certificate: Path
    key: Path
    ca: Path

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a server of gRPC needs, which takes clients of the same authority only."""
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        return grpc.ssl_server_credentials([pair], self.ca.read_bytes(), require_client_auth=True)


class Receiver(ABC):
    """Keeps what it gets; may be stopped and started again on its port."""

    protocol: Protocol

    def __init__(self, identity: "Identity | None" = None) -> None:
        self.identity = identity
        self.answer = Answer.OK
        self.retry_after: float | str | None = None
        """What it says with `Answer.BUSY` (seconds; by HTTP also a date)."""
        self.never_takes = b""
        """Requests with this in them are answered with `AWAY`, whatever the others are."""
        self.asked = 0
        """Requests that came, kept or not."""
        self.received: list[Received] = []
        self.port = free_port()
        self.connections: set[socket.socket] = set()
        """Who is connected now, by HTTP."""
        self._changed = threading.Condition()
        self._stopped = threading.Event()

    @property
    def endpoint(self) -> str:
        """The general endpoint."""
        scheme = "https" if self.identity else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    def destination(self, signal: Signal = Signal.TRACES, **changes: Any) -> Destination:
        """Return where requests of a signal go."""
        endpoint = f"{self.endpoint}/v1/{signal}"
        if self.protocol is Protocol.GRPC:
            endpoint = f"127.0.0.1:{self.port}"
        return Destination(
            signal, self.protocol, endpoint, secure=self.identity is not None, **changes
        )

    def start(self) -> None:
        """Listen."""
        self._stopped.clear()
        self._listen()

    def stop(self) -> None:
        """Close the port and all connections; whoever waits for an answer gets none."""
        self._stopped.set()
        self._close()

    def spans(self) -> list[Span]:
        """Return all spans that were kept."""
        with self._changed:
            messages = [one.message for one in self.received if one.signal is Signal.TRACES]
        return [
            span
            for message in messages
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def names(self) -> dict[str, int]:
        """Return how often spans of each name were kept."""
        return dict(Counter(span.name for span in self.spans()))

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait until something holds that changes with requests; fail if it never does."""
        with self._changed:
            came = self._changed.wait_for(until, WAIT_SECONDS)
        assert came, (
            f"after {self.asked} requests, of which {len(self.received)} were kept, it has the "
            f"spans {self.names()}"
        )

    def until_left(self) -> None:
        """Wait until nobody is connected: what the dead had sent has come then."""
        self.wait(lambda: not self.connections)

    def take(self, signal: Signal, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Take note of a request; return how to answer, or NEVER if nobody waits any more."""
        with self._changed:
            is_poison = self.never_takes and self.never_takes in body
            answer = Answer.AWAY if is_poison else self.answer
            self.asked += 1
            if answer in {Answer.OK, Answer.PARTIAL}:
                self.received.append(Received(signal, REQUESTS[signal].FromString(body), headers))
            self._changed.notify_all()
        if answer is Answer.NEVER:
            self._stopped.wait()
        return answer

    def content(self, signal: Signal, answer: Answer) -> bytes:
        """Return the body of an answer."""
        if answer is Answer.PARTIAL:
            return bytes(PARTIAL[signal].SerializeToString())
        if answer is Answer.REFUSED:
            return bytes(Status(message=SAID).SerializeToString())
        return GARBAGE if answer is Answer.GARBAGE else b""

    @abstractmethod
    def _listen(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


class HttpReceiver(Receiver):
    """By HTTP."""

    protocol = Protocol.HTTP
    content_type = "application/x-protobuf"
    """What it says that its answers are."""

    def note(self, connection: socket.socket, *, is_there: bool) -> None:
        """Take note of a connection, or of its end."""
        with self._changed:
            change = self.connections.add if is_there else self.connections.discard
            change(connection)
            self._changed.notify_all()

    def _listen(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        if self.identity is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.identity.ca)
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(self.identity.certificate, self.identity.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _handler(receiver: HttpReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            receiver.note(self.connection, is_there=True)

        def finish(self) -> None:
            receiver.note(self.connection, is_there=False)
            with suppress(OSError):
                super().finish()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            signal = Signal(self.path.rpartition("/")[2])
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.take(signal, body, headers)
            if answer is Answer.NEVER:
                self.close_connection = True
                return
            content = receiver.content(signal, answer)
            self.send_response(_HTTP_CODES.get(answer, 200))
            self.send_header("Content-Type", receiver.content_type)
            self.send_header("Content-Length", str(len(content)))
            if answer is Answer.BUSY and receiver.retry_after is not None:
                self.send_header("Retry-After", str(receiver.retry_after))
            self.end_headers()
            self.wfile.write(content)

    return Handler


class GrpcReceiver(Receiver):
    """By gRPC."""

    protocol = Protocol.GRPC

    def _listen(self) -> None:
        self._server = grpc.server(
            ThreadPoolExecutor(8),
            options=[("grpc.max_receive_message_length", 2**26), ("grpc.so_reuseport", 0)],
        )
        for signal, service in SERVICES.items():
            handler = grpc.method_handlers_generic_handler(
                service, {"Export": grpc.unary_unary_rpc_method_handler(self._handler(signal))}
            )
            self._server.add_generic_rpc_handlers((handler,))
        address = f"127.0.0.1:{self.port}"
        if self.identity is None:
            self._server.add_insecure_port(address)
        else:
            self._server.add_secure_port(address, self.identity.credentials())
        self._server.start()

    def _close(self) -> None:
        self._server.stop(None).wait()

    def _handler(self, signal: Signal) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def export(request: bytes, context: grpc.ServicerContext) -> bytes:
            headers = {key: str(value) for key, value in context.invocation_metadata()}
            answer = self.take(signal, request, headers)
            if answer is Answer.BUSY and self.retry_after is not None:
                context.set_trailing_metadata(retry_info(float(self.retry_after)))
            if answer in _GRPC_CODES:
                context.abort(_GRPC_CODES[answer], SAID)
            return self.content(signal, answer)

        return export


@contextmanager
def receiving(protocol: Protocol, identity: Identity | None = None) -> Iterator[Receiver]:
    """Run a receiver; with an identity it takes encrypted connections of clients that have one."""
    kind = HttpReceiver if protocol is Protocol.HTTP else GrpcReceiver
    receiver = kind(identity)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


class Rotel:
    """`rotel`, an independent collector, which passes all on to a receiver.

    May be stopped and started again on its ports; what it has taken it passes on before it ends.

    Args:
        receiver: Gets everything.
        directory: For its log.
    """

    def __init__(self, receiver: Receiver, directory: Path) -> None:
        self.http_port = free_port()
        self.grpc_port = free_port()
        self._receiver = receiver
        self._log = directory / "rotel.log"
        self._process: subprocess.Popen[bytes] | None = None

    def endpoint(self, protocol: Protocol) -> str:
        """The general endpoint of a protocol."""
        port = self.http_port if protocol is Protocol.HTTP else self.grpc_port
        return f"http://127.0.0.1:{port}"

    def destination(self, protocol: Protocol, signal: Signal = Signal.TRACES) -> Destination:
        """Return where requests of a signal go."""
        endpoint = f"{self.endpoint(protocol)}/v1/{signal}"
        if protocol is Protocol.GRPC:
            endpoint = f"127.0.0.1:{self.grpc_port}"
        return Destination(signal, protocol, endpoint)

    def start(self) -> None:
        """Start it; return when it listens."""
        found = find_spec("rotel")
        assert found is not None
        assert found.origin is not None
        protocol = "http" if self._receiver.protocol is Protocol.HTTP else "grpc"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    Path(found.origin).with_name("rotel-agent"),
                    "start",
                    f"--otlp-http-endpoint=127.0.0.1:{self.http_port}",
                    f"--otlp-grpc-endpoint=127.0.0.1:{self.grpc_port}",
                    "--exporter=otlp",
                    f"--otlp-exporter-endpoint={self._receiver.endpoint}",
                    f"--otlp-exporter-protocol={protocol}",
                    "--otlp-exporter-retry-initial-backoff=100ms",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        _wait_for_ports(self._process, self.http_port, self.grpc_port)

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def rotel(receiver: Receiver, directory: Path) -> Iterator[Rotel]:
    """Run a collector; see `Rotel`."""
    collector = Rotel(receiver, directory)
    try:
        collector.start()
        yield collector
    finally:
        collector.stop()


def _wait_for_ports(process: subprocess.Popen[bytes], *ports: int) -> None:
    for port in ports:
        for _ in range(int(WAIT_SECONDS / 0.05)):
            assert process.poll() is None, "rotel has ended"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
        else:
            raise AssertionError(f"rotel does not listen on {port}")
