"""From committed rows to spans: one way for a run that goes on, and for one that is long over.

What a trace has depends on its rows alone, not on when or in which batches they came. So what can
be decided early is told early, and all else when the flow run at the top has ended.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from raysched.model.rows import Batch, FlowRunRow
from raysched.model.states import FAILURES, StateType
from raysched.telemetry.building.adopting import adopt
from raysched.telemetry.building.bulk import group_spans
from raysched.telemetry.building.chunks import Chunk, chunk_span, fold
from raysched.telemetry.building.early import Early
from raysched.telemetry.building.encoding import (
    Counts,
    computed_again,
    flow_span,
)
from raysched.telemetry.building.folding import Selection
from raysched.telemetry.building.members import Members, OpenRun
from raysched.telemetry.building.needs import Needs
from raysched.telemetry.building.parts import FOLDED, KEPT, Part, parts_of, top_of

HELD_BYTES = 16 * 1024**2
"""So large may be what user code has made of a trace that is not decided yet (bytes); more is
counted."""


class Executions(Enum):
    """Which executions of a flow run are told."""

    LAST = "last"
    """The one that goes on: its rows come as they are committed."""
    UNDELIVERED = "undelivered"
    """Those after `FlowRunRow.traced`: the rows of all come from the database."""
    ALL = "all"
    """All of them, likewise."""


@dataclass(slots=True)
class Spans:
    """What a batch has brought.

    Attributes:
        run_id: The flow run at the top.
        spans: Encoded OTLP `Span`s of our own.
        scopes: Encoded OTLP `ScopeSpans` of user code.
        is_complete: Whether all has been told of the execution of the flow run at the top.
    """

    run_id: str
    spans: list[bytes] = field(default_factory=list)
    scopes: list[bytes] = field(default_factory=list)
    is_complete: bool = False


class TraceBuilder:
    """Makes spans of what was committed.

    A flow run's first batch has to come before those of its subflows; the attempts of a task run no
    later than its terminal row; and the end of a flow run after all else of it and of its subflows.

    Args:
        max_spans: So many spans of one trace are told one by one, 0 for all (see `folding`).
        executions: Which executions are told.
    """

    def __init__(self, max_spans: int, executions: Executions = Executions.LAST) -> None:
        self._max_spans = max_spans
        self._executions = executions
        self._runs: dict[str, OpenRun] = {}
        self._early: dict[str, Early] = {}
        self._waiting: dict[str, bool] = {}
        """For each flow run at the top whether any task run of it has to wait for its end."""

    def take(self, row: FlowRunRow, batch: Batch) -> Spans:
        """Take note of a committed batch, and return what can be told now."""
        run = self._runs.get(row.id)
        if run is None:
            run = self._open(row)
        run.take(row, batch)
        top = _top(run)
        spans = Spans(top.row.id)
        self._tell_early(run, batch, spans)
        self._take_scopes(top, batch.spans, spans)
        if run.change is not None and run is top:
            self._end(run, spans)
        return spans

    def end(self, run_id: str) -> Spans:
        """Tell a flow run at the top as far as it is known, although it has not ended.

        Its `flow` span ends with the last thing that is known of it.
        """
        run = self._runs.get(run_id)
        spans = Spans(run_id)
        if run is not None:
            self._end(run, spans)
        return spans

    def _open(self, row: FlowRunRow) -> OpenRun:
        run = OpenRun(row, self._runs.get(row.parent))
        self._runs[row.id] = run
        self._early[row.id] = Early(run, self._max_spans)
        if run.parent is not None:
            run.parent.children.append(run)
        else:
            self._waiting[row.id] = False
        return run

    def _told(self, run: OpenRun) -> range:
        """Return the numbers of the executions of a flow run at the top that are told."""
        last = len(run.executions)
        if self._executions is Executions.LAST:
            return range(last, last + 1)
        first = 1 + run.row.traced if self._executions is Executions.UNDELIVERED else 1
        return range(first, last + 1)

    # ------------------------------------------------------------------------------ as it goes on

    def _tell_early(self, run: OpenRun, batch: Batch, spans: Spans) -> None:
        """Tell the task runs of a batch that need not wait for the end of the trace."""
        top = _top(run)
        early = self._early[run.row.id]
        if not all(early.has(run.groups[row.id]) for row in batch.groups):
            self._waiting[top.row.id] = True
        for columns in batch.task_runs:
            members = run.groups.get(columns.group)
            if members is not None and early.has(members):
                for part, positions in early.ended(members, columns.indices):
                    if part.top.sampled and _number_at_top(part) in self._told(top):
                        spans.spans += early.tell(part, members, positions)

    def _take_scopes(self, top: OpenRun, scopes: Sequence[bytes], spans: Spans) -> None:
        """Take note of spans of user code; they wait if what is above them may be folded."""
        if not scopes:
            return
        if not top_of(top, len(top.executions)).sampled:
            return
        if not self._max_spans or not self._waiting[top.row.id]:
            spans.scopes += scopes
            return
        for scope in scopes:
            if top.held_bytes + len(scope) > HELD_BYTES:
                top.dropped += 1
            else:
                top.held.append(scope)
                top.held_bytes += len(scope)

    # ---------------------------------------------------------------------------------- at the end

    def _end(self, top: OpenRun, spans: Spans) -> None:
        for number in self._told(top):
            parts = parts_of(top, number)
            if not parts[0].top.sampled:
                continue
            Selection(parts, self._max_spans, self._is_early).select()
            suppressed = sum(part.suppressed for part in parts)
            for part in parts:
                if part.kept:
                    lost = suppressed if part.parent is None else 0
                    spans.spans += _part_spans(part, lost)
            if top.held and number == len(top.executions):
                spans.scopes += adopt(top.held, parts)
        spans.is_complete = True
        self._forget(top)

    def _is_early(self, part: Part, members: Members) -> bool:
        return self._early[part.run.row.id].has(members)

    def _forget(self, run: OpenRun) -> None:
        del self._runs[run.row.id]
        del self._early[run.row.id]
        self._waiting.pop(run.row.id, None)
        for child in run.children:
            self._forget(child)


def _top(run: OpenRun) -> OpenRun:
    while run.parent is not None:
        run = run.parent
    return run


def _number_at_top(part: Part) -> int:
    """Return the number of the execution at the top that a part belongs to."""
    run, number = part.run, part.number
    while run.parent is not None:
        number = run.parent.execution_at(run.executions[number - 1].started)
        run = run.parent
    return number


def _part_spans(part: Part, suppressed: int) -> Iterator[bytes]:
    """Yield what is still to be told of a part; its `flow` span is the last."""
    counts = Counts(suppressed=suppressed, dropped=part.run.dropped if part.is_last else 0)
    chunks: dict[tuple[str, int], Chunk] = {}
    for members in part.groups:
        fates = part.fates.get(members.row.id, b"")
        _count(counts, part, members)
        own = [i for i, fate in enumerate(fates) if fate == KEPT and not members.told[i]]
        yield from group_spans(Needs(part, members), own)
        yield from _later_attempts(part, members)
        if FOLDED in fates:
            counts.folded += fold(part, members, chunks)
    for (task, _), chunk in chunks.items():
        yield chunk_span(part, task, chunk)
    yield flow_span(part, counts)


def _later_attempts(part: Part, members: Members) -> Iterator[bytes]:
    """Yield the attempts that were made after the ends of task runs that are told."""
    for position in members.attempts:
        task_run = part.task_run(members, position)
        if task_run is not None and part.fate(members, position) == KEPT:
            for attempt in task_run.again:
                yield computed_again(part, members, position, attempt)


def _count(counts: Counts, part: Part, members: Members) -> None:
    """Count the task runs of a group."""
    present = part.present(members)
    counts.total += len(present)
    if isinstance(present, range):
        counts.failed += sum(members.states.count(state) for state in FAILURES)
        counts.cached += members.states.count(StateType.CACHED)
        return
    for position in present:
        task_run = part.task_run(members, position)
        if task_run is not None:
            counts.failed += task_run.state in FAILURES
            counts.cached += task_run.state is StateType.CACHED
