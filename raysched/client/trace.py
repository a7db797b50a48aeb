"""Traces of runs that were kept: their spans are made again from the database.

That needs no collector, neither now nor when they ran, and gives the spans that were sent then.
Those of user code are not kept: they are only where they went while the run went on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from raysched.client.spans import Span, Tree
from raysched.errors import UsageError
from raysched.model.rows import Execution, FlowRunRow
from raysched.model.traces import NO_SPAN, TraceParent, flow_span_id, trace_id
from raysched.settings import settings
from raysched.telemetry.pages import trace_url

if TYPE_CHECKING:
    from raysched.client.critical_path import CriticalPath
    from raysched.client.waterfall import Line
    from raysched.store.reader import Reader
    from raysched.store.views import RunView
    from raysched.telemetry.reading import SpanView
    from raysched.telemetry.sending.environment import Destination

MOST_DRAWN = 20_000
"""Task runs of which each has spans to look at; of more, maps are folded as in what is sent."""


@dataclass(frozen=True, slots=True)
class Waterfall:
    """A trace to look at.

    Attributes:
        number: Number of the execution, from 1.
        executions: How many the flow run has.
        lines: What is shown.
        start: Where its time begins (ns since the epoch).
        end: Where it ends.
        path: Its critical path.
        trace_id: Id of its trace, 32 hexadecimal digits, or "" if that was not traced, or not
            sampled.
        url: Where people look at that, or "" if that is not known.
    """

    number: int
    executions: int
    lines: "Sequence[Line]"
    start: int
    end: int
    path: "CriticalPath"
    trace_id: str
    url: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a trace that was sent.

    Attributes:
        run: Id of the run at its top.
        flow: Name of that one's flow.
        spans: How many spans there are.
        unsent: How many of them did not arrive.
        endpoint: Where they went, without credentials.
        trace_id: Id of the trace of its last execution, 32 hexadecimal digits.
        url: Where people look at that, or "" if that is not known.
        reason: Why spans did not arrive, or "".
        executions: How many executions the run has had.
        delivered: How many of them, counted from the first, had been delivered before.
    """

    run: str
    flow: str
    spans: int
    unsent: int
    endpoint: str
    trace_id: str
    url: str
    reason: str
    executions: int
    delivered: int


class RunTrace:
    """Where a flow run stands in traces. A subflow stands in the trace of the run that called it.

    Args:
        reader: Where it is kept.
        view: The run.
    """

    def __init__(self, reader: "Reader", view: "RunView") -> None:
        self._reader = reader
        self._view = view

    @property
    def trace_id(self) -> str:
        """Id of the trace of its last execution, 32 hexadecimal digits.

        "" if that was not traced, or not sampled, and for a subflow.
        """
        return _exported(self._view.executions[-1]) if self._view.executions else ""

    @property
    def url(self) -> str:
        """Where people look at that trace, or "" if that is not known."""
        return trace_url(settings(), self.trace_id) if self.trace_id else ""

    def waterfall(self, execution: int | None = None) -> Waterfall:
        """Return what happened when, to look at.

        Args:
            execution: Number of the execution, from 1; by default the last one.

        Raises:
            UsageError: There is no such execution.
        """
        from raysched.client.critical_path import critical_path
        from raysched.client.waterfall import waterfall
        from raysched.telemetry.reading import read_spans

        top = self._top()
        executions = _placed(top).executions
        number = len(executions) if execution is None else execution
        if not 1 <= number <= len(executions):
            has = f"executions 1 to {len(executions)}" if len(executions) > 1 else "one execution"
            raise UsageError(f"--execution {number}: run {top.id[:8]} has {has}")
        small = sum(top.counts.values()) <= MOST_DRAWN
        place = TraceParent.parse(executions[number - 1].traceparent)
        assert place is not None  # noqa: S101 - see _placed
        encoded = chain.from_iterable(self.encoded(0 if small else settings().trace_max_spans))
        found = (span for span in read_spans(encoded) if span.id.trace_id == place.trace_id)
        tree = Tree(place.trace_id, map(_span, found))
        flow = tree.spans[flow_span_id(top.id, number)]
        path = critical_path(tree, flow)
        lines = waterfall(tree, path.spans)
        exported = _exported(top.executions[number - 1]) if top.executions else ""
        url = trace_url(settings(), exported) if exported else ""
        return Waterfall(number, len(executions), lines, flow.start, flow.end, path, exported, url)

    def encoded(self, max_spans: int, *, undelivered: bool = False) -> Iterator[Sequence[bytes]]:
        """Yield all spans of all executions, encoded as OTLP's `Span`, in parts.

        Executions that were not traced, or not sampled, get the traces that they would have had.
        Of a run that goes on that is what has ended, and the `flow` span ends with the last of it.

        Args:
            max_spans: Spans of one trace from which on maps are folded, 0 for all spans.
            undelivered: Only executions that are sampled, and were not delivered.
        """
        from raysched.store.replay import replay
        from raysched.telemetry.building.builder import Executions, TraceBuilder

        top = self._top()
        builder = TraceBuilder(max_spans, Executions.UNDELIVERED if undelivered else Executions.ALL)
        for row, batch in replay(self._reader, top):
            placed = row if row.parent or undelivered else _placed(row)
            if spans := builder.take(placed, batch).spans:
                yield spans
        if not top.state.is_terminal:
            yield builder.end(top.id).spans

    def otlp_json(self) -> str:
        """Return it as OTLP JSON: one `ExportTraceServiceRequest`, as Jaeger's page opens it, too.

        Source: OpenTelemetry Protocol, JSON Protobuf Encoding.
        """
        from raysched.telemetry.reading import to_json
        from raysched.telemetry.sending.spans import encoder

        spans = [*chain.from_iterable(self.encoded(settings().trace_max_spans))]
        return to_json(encoder()(spans, ()))

    def send(self, to: "Destination", *, undelivered: bool = False) -> Sent:
        """Send it; a run of which all has arrived is noted as delivered.

        Args:
            to: Where to (see `delivery.destination`).
            undelivered: Only executions that are sampled, and were not delivered.

        Raises:
            UsageError: The run goes on.
        """
        from raysched.client.delivery import deliver

        top = self._top()
        if not top.state.is_terminal:
            raise UsageError(
                f"run {top.id[:8]} goes on, and its own process sends its trace; raysched trace "
                f"{top.id[:8]} draws how far it is"
            )
        spans = self.encoded(settings().trace_max_spans, undelivered=undelivered)
        done = deliver(top.id, spans, to)
        if not done.unsent:
            self._reader.traces.delivered(top.id, len(top.executions))
        place = TraceParent.parse(_placed(top).executions[-1].traceparent)
        assert place is not None  # noqa: S101 - see _placed
        name = place.trace_id.hex()
        url = trace_url(settings(), name, to)
        return Sent(
            top.id,
            top.flow,
            done.spans,
            done.unsent,
            to.url,
            name,
            url,
            done.reason,
            len(top.executions),
            top.traced,
        )

    def _top(self) -> "RunView":
        """Return the run at the top of the trace."""
        view = self._view
        while view.parent:
            view = self._reader.find_run(view.parent)
        return view


def _exported(execution: Execution) -> str:
    """Return the id of the trace that an execution was exported in, in hexadecimal; "" for none."""
    place = TraceParent.parse(execution.traceparent)
    return place.trace_id.hex() if place is not None and place.sampled else ""


def _span(read: "SpanView") -> Span:
    return Span(
        read.id.span_id,
        read.parent or NO_SPAN,
        read.name,
        read.start,
        read.end,
        read.error is not None,
        read.attributes,
        tuple(link.span_id for link in read.links),
        read.scope,
    )


def _placed(row: "FlowRunRow") -> "FlowRunRow":
    """Return a row whose executions all stand in a sampled trace."""
    executions = row.executions or (Execution(row.started),)
    return replace(
        row,
        executions=tuple(
            Execution(each.started, str(_place(row.id, number, each.traceparent)))
            for number, each in enumerate(executions, 1)
        ),
    )


def _place(run_id: str, number: int, traceparent: str) -> TraceParent:
    place = TraceParent.parse(traceparent)
    if place is None:
        return TraceParent(trace_id(run_id, number))
    # What is not sampled is not there: neither is the span above it.
    return place if place.sampled else TraceParent(place.trace_id)
