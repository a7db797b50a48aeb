"""The telemetry of a driver: where its flow runs stand in traces, and what is exported of them."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from raysched.define.ports import FlowRunStart
from raysched.model.rows import Batch, Execution, FlowRunRow
from raysched.model.traces import Standing, TraceParent, flow_span_id
from raysched.settings import Settings
from raysched.telemetry.pages import trace_url

if TYPE_CHECKING:
    from raysched.telemetry.exports import Exports
    from raysched.telemetry.history import History


class Tracing:
    """The telemetry of a driver; see `engine.ports.Telemetry`.

    What it needs is imported and opened by a thread, while Ray starts.

    Args:
        settings: Settings of this process.
        open_history: Opens what is kept of runs; called by that thread.
        announce: Whether to say on standard error where the trace of each flow run can be looked
            at, for programs that nobody else says it for.
    """

    extension = "raysched.telemetry.workers:user_spans"

    def __init__(
        self, settings: Settings, open_history: "Callable[[], History]", *, announce: bool = False
    ) -> None:
        self._settings = settings
        self._announce = announce
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
        self._places: dict[str, TraceParent] = {}
        """Trace of each open flow run, by its id."""
        threads = ThreadPoolExecutor(1, "raysched telemetry")
        self._opening: Future[Exports] = threads.submit(_open, settings, open_history)
        threads.shutdown(wait=False)

    def opened(self) -> "Exports":
        """Return what exports.

        Raises:
            SettingsError: An `OTEL_*` variable has an impossible value.
        """
        return self._opening.result()

    def begin(self, start: FlowRunStart, earlier: Sequence[Execution]) -> Standing:
        """See `Telemetry.begin`."""
        return self.opened().stand(start, earlier)

    def place(self, row: FlowRunRow) -> TraceParent | None:
        """See `Telemetry.place`."""
        if row.parent:
            # It stands in the trace of its parent, whose place was asked for before.
            above = self._places.get(row.parent)
        else:
            last = row.executions[-1] if row.executions else Execution(0)
            above = TraceParent.parse(last.traceparent, last.tracestate)
        if above is None:
            return None
        place = above._replace(span_id=flow_span_id(row.id, len(row.executions)))
        self._places[row.id] = place
        return place

    @contextmanager
    def around(self, row: FlowRunRow) -> Iterator[None]:
        """See `Telemetry.around`."""
        place = self.place(row)
        if place is None:
            yield
            return
        from opentelemetry.context import attach, detach, get_current

        from raysched.telemetry.workers import context_below

        token = attach(context_below(place, around=get_current()))
        try:
            yield
        finally:
            detach(token)

    def __call__(self, run: FlowRunRow, batch: Batch) -> None:
        """See `engine.ports.Observer`."""
        self.opened().put(run, batch)
        if batch.flow_run is not None and batch.flow_run.state.is_terminal:
            place = self._places.pop(run.id, None)
            if place is not None and place.sampled and not run.parent:
                self.opened().settle()
                if self._announce:
                    self._say(place)

    def close(self) -> None:
        """See `Telemetry.close`."""
        with self._lock:
            closed, self._is_closed = self._is_closed, True
        if closed or os.getpid() != self._process or self._opening.exception() is not None:
            return
        self.opened().close()

    def _say(self, place: TraceParent) -> None:
        url = trace_url(self._settings, place.trace_id.hex())
        if url:
            sys.stderr.write(f"trace: {url}\n")


def _open(settings: Settings, open_history: "Callable[[], History]") -> "Exports":
    from raysched.telemetry.exports import Exports

    return Exports(settings, open_history())
