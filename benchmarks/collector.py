"""A collector in a process of its own: takes what is exported, and counts it when asked.

It keeps requests as they come, so that it takes little of the machine while a turn is measured, and
ends with the process that has started it.
"""

import gzip
import json
import subprocess
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACES, METRICS = "/v1/traces", "/v1/metrics"

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
"""A trace that has not come until then does not come."""

IN_FLOW_SPAN = b"raysched.flow.run_id"
"""What only a `flow` span has, which is the last one of its trace."""


class Collected(NamedTuple):
    """What has come since the last look.

    Attributes:
        spans: How many spans.
        distinct: How many different ones.
        bytes: Of the requests' bodies, as they travelled.
        requests: How many there were.
        at: When the last one came (`time.monotonic`).
    """

    spans: int
    distinct: int
    bytes: int
    requests: int
    at: float


class Collector:
    """Runs one, until this process ends.

    Attributes:
        endpoint: The general endpoint.
    """

    def __init__(self) -> None:
        # Its end of the pipe closes with this process, however that ends.
        self._process = subprocess.Popen(  # noqa: S603 - this module
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - as it was started
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def take(self, *, traces: int) -> Collected:
        """Wait until so many traces have come to their end; return, and forget, what has come.

        Raises:
            RuntimeError: They do not come.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        while self._ask("/flows") < traces:
            if time.monotonic() > end:
                raise RuntimeError("the trace has not come to the collector")
            time.sleep(LOOK_SECONDS)
        return Collected(*self._ask("/take"))

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(self.endpoint + path) as answer:  # noqa: S310 - ours
            return json.load(answer)


class _Kept:
    """Requests that nobody has asked for yet."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._clear()

    def _clear(self) -> None:
        self._bodies: list[bytes] = []
        self._bytes = 0
        self.flows = 0
        self._at = 0.0

    def put(self, body: bytes, *, compressed: bool) -> None:
        with self._lock:
            self._at = time.monotonic()
            self._bytes += len(body)
            self._bodies.append(gzip.decompress(body) if compressed else body)
            self.flows += self._bodies[-1].count(IN_FLOW_SPAN)

    def take(self) -> Collected:
        with self._lock:
            bodies, size, at = self._bodies, self._bytes, self._at
            self._clear()
        ids = [
            (span.trace_id, span.span_id)
            for body in bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return Collected(len(ids), len(set(ids)), size, len(bodies), at)


def _handler(kept: _Kept) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == TRACES:
                kept.put(body, compressed=self.headers["Content-Encoding"] == "gzip")
            self._answer(b"", "application/x-protobuf")

        def do_GET(self) -> None:
            answer = kept.flows if self.path == "/flows" else kept.take()
            self._answer(json.dumps(answer).encode(), "application/json")

        def _answer(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


def _serve() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(_Kept()))
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
