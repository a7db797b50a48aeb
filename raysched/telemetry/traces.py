"""Traces as a consumer: what was committed becomes spans, and these go into a sink."""

from collections.abc import Callable, Iterable, Iterator

from raysched.model.rows import Batch, FlowRunRow
from raysched.model.traces import TraceParent
from raysched.telemetry.building.builder import Executions, Spans, TraceBuilder
from raysched.telemetry.ports import SpanSink
from raysched.telemetry.progress import Progress
from raysched.telemetry.readable import SpanBuffer

MAX_SPANS = 10_000
"""So many spans of user code in this process are kept between two commits; more are counted."""

MAX_BYTES = 10 * 1024**2
"""So large they may be together (bytes)."""


class Traces:
    """Exports traces; see `telemetry.ports.Consumer`.

    Args:
        max_spans: See `TraceBuilder`.
        sink: Where spans go.
        progress: Notes which executions have been told.
        replay: Returns what is kept of a flow run that goes on here.
        dropped: Called with how many spans of user code in this process were left out, because
            there were too many.

    Attributes:
        own: Where these spans wait.
    """

    def __init__(
        self,
        max_spans: int,
        sink: SpanSink,
        progress: Progress,
        replay: Callable[[str], Iterator[tuple[FlowRunRow, Batch]]],
        dropped: Callable[[int], None],
    ) -> None:
        self.own = SpanBuffer(MAX_SPANS, MAX_BYTES)
        self._max_spans = max_spans
        self._sink = sink
        self._progress = progress
        self._replay = replay
        self._dropped = dropped
        self._builder = TraceBuilder(max_spans)
        self._tops: dict[str, str] = {}
        """The flow run at the top of each open one."""
        self._resumed: dict[str, TraceBuilder] = {}
        """Makes the spans of a flow run that goes on here, and of its subflows."""
        self._runs: dict[int, str] = {}
        """The flow run at the top of each open trace, by the trace's id."""

    def take(self, row: FlowRunRow, batch: Batch) -> None:
        """See `Consumer.take`."""
        top = self._tops.get(row.parent, row.id)
        try:
            if row.id not in self._tops:
                self._begin(row, top)
            spans = self._resumed.get(top, self._builder).take(row, batch)
        except Exception:
            self._progress.failed(top)
            raise
        self._put(spans)
        self._put_own()
        if batch.flow_run is not None and batch.flow_run.state.is_terminal:
            del self._tops[row.id]
        if spans.is_complete:
            self._runs = {trace: run for trace, run in self._runs.items() if run != top}
            resumed = self._resumed.pop(top, None) is not None
            last = len(row.executions)
            told(
                self._sink,
                self._progress,
                row,
                range(row.traced + 1 if resumed else last, last + 1),
            )

    def _begin(self, row: FlowRunRow, top: str) -> None:
        self._tops[row.id] = top
        place = TraceParent.parse(row.executions[-1].traceparent) if row.executions else None
        if place is None:
            return
        self._runs[int.from_bytes(place.trace_id)] = top
        if len(row.executions) > 1 and top == row.id:
            # What it goes on from was told by another process, or by nobody.
            builder = TraceBuilder(self._max_spans, Executions.UNDELIVERED)
            self._resumed[top] = builder
            for earlier, batch in self._replay(top):
                self._put(builder.take(earlier, batch))

    def _put(self, spans: Spans) -> None:
        if spans.spans or spans.scopes:
            self._sink.put(spans.run_id, spans.spans, spans.scopes)

    def flush(self, seconds: float) -> None:
        """See `Consumer.flush`."""
        self._put_own()
        self._sink.flush(seconds)

    def close(self) -> None:
        """See `Consumer.close`."""
        self._sink.close()

    def _put_own(self) -> None:
        scopes, dropped = self.own.take()
        if dropped:
            self._dropped(dropped)
        for trace_id, spans in scopes:
            self._sink.put(self._runs.get(trace_id, ""), (), [spans])


def told(sink: SpanSink, progress: Progress, row: FlowRunRow, numbers: Iterable[int]) -> None:
    """Note that all spans of executions of a flow run at the top were put into the sink.

    Args:
        sink: The sink, which tells `progress` what has arrived from then on.
        progress: Marks it.
        row: The flow run.
        numbers: Which executions, from 1.
    """
    progress.told(row, numbers)
    if not sink.unsent().get(row.id):
        # It had told so before this was known.
        progress.delivered(row.id)
