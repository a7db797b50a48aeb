"""Spans of user code in a worker, seen without one: the extension alone."""

import sys
import threading
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from raysched.telemetry.workers import UserSpans
from raysched.worker.protocol import RunHeader

RUN = "0af7651916cd43dd8448eb211c80319c"
HEADER = RunHeader(RUN, "run", "flow", traceparent=f"00-{RUN}-b7ad6b7169203331-01", execution=1)
THREADS = 8


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("_", range(20))
def test_no_item_begins_before_its_spans_are_taken(_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    extension, ready = UserSpans(), threading.Barrier(THREADS)

    def item(index: int) -> None:
        ready.wait()
        extension.enter(HEADER, "task", index, 1)
        with trace.get_tracer("users").start_as_current_span("user"):
            pass

    threads = [threading.Thread(target=item, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages, dropped = extension.collect()
    (scope,) = [ScopeSpans.FromString(message) for message in messages]
    assert len({span.parent_span_id for span in scope.spans}) == THREADS
    assert dropped == 0
