"""A flow run's execution in a trace: which span is below which, when, and what becomes of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeAlias

from raysched.model.rows import Execution
from raysched.model.states import FIRST_TERMINAL
from raysched.model.traces import (
    TraceParent,
    attempt_span_id,
    attempt_span_ids,
    chunk_span_id,
    flow_span_id,
    task_span_id,
    trace_id,
)
from raysched.telemetry.building.members import Attempt, Members, OpenRun, TaskRun
from raysched.telemetry.otlp import SpanId

KEPT, FOLDED = 1, 2
"""What becomes of a task run: spans of its own, or a part of a `chunk` span; 0 for neither."""

Place: TypeAlias = tuple[Members, int]
"""A task run: its group, and its position there."""


class Interval(NamedTuple):
    """From when to when (ns)."""

    start: int
    end: int

    def hold(self, start: int, end: int) -> "Interval":
        """Return a time as far as it is within this one."""
        start = min(max(start, self.start), self.end)
        return Interval(start, min(max(start, end), self.end))


@dataclass(eq=False)
class Part:
    """A flow run's execution in a trace.

    Attributes:
        run: The flow run.
        number: Number of its execution.
        top: The trace, and the span outside of it that the root's `flow` span is below of.
        parent: What the flow run around it has in this trace, or None for the root.
        children: What its subflows have in this trace.
        kept: Whether its `flow` span is told.
        fates: For each group and member `KEPT`, `FOLDED` or 0.
        blocks: Of folded tasks, how many of their task runs a chunk stands for at most.
        suppressed: Spans that are not told at all.
    """

    run: OpenRun
    number: int
    top: TraceParent
    parent: "Part | None" = None
    children: list["Part"] = field(default_factory=list)
    kept: bool = False
    fates: dict[int, bytearray] = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)
    suppressed: int = 0

    @property
    def trace_id(self) -> bytes:
        """Id of the trace."""
        return self.top.trace_id

    @property
    def trace_state(self) -> str:
        """The `tracestate` of all its spans, or ""."""
        return self.top.state

    @property
    def execution(self) -> Execution:
        """The execution."""
        return self.run.executions[self.number - 1]

    @property
    def started(self) -> int:
        """When the execution began (ns)."""
        return self.execution.started or self.run.row.started

    @property
    def is_last(self) -> bool:
        """Whether it is the flow run's last execution."""
        return self.number == len(self.run.executions)

    @cached_property
    def span(self) -> SpanId:
        """The `flow` span."""
        return SpanId(self.trace_id, flow_span_id(self.run.row.id, self.number))

    @property
    def earlier(self) -> SpanId | None:
        """The `flow` span of the execution before this one, if its trace is exported."""
        if self.number == 1:
            return None
        top = top_of(self.run, self.number - 1)
        span_id = flow_span_id(self.run.row.id, self.number - 1)
        return SpanId(top.trace_id, span_id) if top.sampled else None

    @cached_property
    def around(self) -> Place | None:
        """The task run of the flow run around it that called it, or None."""
        return self.parent.place(self.run.row.parent_key) if self.parent is not None else None

    @property
    def is_inside_task(self) -> bool:
        """Whether it, or a flow run around it, was called in a task."""
        part: Part | None = self
        while part is not None:
            if part.run.row.parent_key:
                return True
            part = part.parent
        return False

    @cached_property
    def above(self) -> bytes:
        """Id of the span that the `flow` span is below of, `NO_SPAN` for none."""
        if self.parent is None:
            return self.top.span_id
        if self.around is None:
            return self.parent.span.span_id
        return self.parent.attempt_around(self.around, self.started)[0]

    @cached_property
    def interval(self) -> Interval:
        """The time of the `flow` span: all that is below it, and within the span above it."""
        start, end = self.started, self.started
        if self.is_last and self.run.change is not None:
            end = max(end, self.run.change.ended)
        for begun, ended in self._extents():
            start, end = min(start, begun), max(end, ended)
        for child in self.children:
            if child.around is None:
                start, end = min(start, child.interval.start), max(end, child.interval.end)
        if self.parent is None or self.around is None:
            return Interval(start, end)
        return self.parent.attempt_around(self.around, self.started)[1].hold(start, end)

    @cached_property
    def groups(self) -> list[Members]:
        """The flow run's groups, by id."""
        return [members for _, members in sorted(self.run.groups.items())]

    def place(self, key: str) -> Place | None:
        """Return a task run by its key if this execution has anything of it."""
        place = self.run.member(key) if key else None
        return place if place is not None and self.task_run(*place) is not None else None

    def present(self, members: Members) -> Sequence[int]:
        """Return the members that this execution has anything of, in order."""
        if len(self.run.executions) > 1:
            return [i for i in range(members.row.size) if self.task_run(members, i) is not None]
        states = members.states
        if states and min(states) >= FIRST_TERMINAL:
            return range(members.row.size)
        attempts, started = members.attempts, members.started
        return [
            index
            for index, state in enumerate(states)
            if state >= FIRST_TERMINAL or index in attempts or started[index]
        ]

    def task_run(self, members: Members, position: int) -> TaskRun | None:
        """Return what this execution has of a task run, or None."""
        for number, task_run in self.run.task_runs(members, position):
            if number == self.number:
                return task_run
        return None

    def fate(self, members: Members, position: int) -> int:
        """Return what becomes of a task run."""
        fates = self.fates.get(members.row.id)
        return fates[position] if fates is not None else 0

    def task_span(self, members: Members, position: int) -> bytes:
        """Return the id of a `task` span."""
        index = members.row.first + position
        return task_span_id(self.run.row.id, self.number, members.row.task, index)

    def attempt_span(self, members: Members, position: int, attempt: int) -> bytes:
        """Return the id of a `run` span."""
        index = members.row.first + position
        return attempt_span_id(self.run.row.id, self.number, members.row.task, index, attempt)

    def span_ids(self, members: Members, positions: range, attempt: int = 0) -> list[bytes]:
        """Return the ids of adjacent `run` spans, or `task` spans for attempt 0."""
        first = members.row.first
        indices = range(first + positions.start, first + positions.stop)
        run_id = self.run.row.id
        return attempt_span_ids(run_id, self.number, members.row.task, indices, attempt)

    def are_kept(self, members: Members, positions: range) -> bool:
        """Whether adjacent task runs all have spans of their own."""
        fates = self.fates.get(members.row.id, b"")
        return fates.count(KEPT, positions.start, positions.stop) == len(positions)

    def chunk_span(self, task: str, index: int) -> bytes:
        """Return the id of the `chunk` span that stands for a task run of a folded task."""
        block = self.blocks[task]
        return chunk_span_id(self.run.row.id, self.number, task, index - index % block)

    def told_as(self, members: Members, position: int) -> bytes | None:
        """Return the id of the span that tells of a task run, or None if none does."""
        fate = self.fate(members, position)
        if fate == KEPT:
            return self.task_span(members, position)
        if fate == FOLDED:
            return self.chunk_span(members.row.task, members.row.first + position)
        return None

    def above_of(self, members: Members, task_run: TaskRun) -> tuple[bytes, Interval]:
        """Return the span that a `task` span is below of, and its time."""
        around = self.place(members.row.parent_key)
        if around is None:
            return self.span.span_id, self.interval
        return self.attempt_around(around, task_run.start)

    def attempt_around(self, place: Place, at: int) -> tuple[bytes, Interval]:
        """Return the `run` span of a task run that was open at a time (ns), and its time."""
        members, position = place
        task_run = self.task_run(members, position)
        assert task_run is not None  # noqa: S101 - who asks has found it by `place`
        _, within = self.above_of(members, task_run)
        whole = within.hold(task_run.start, task_run.end)
        before = [attempt for attempt in task_run.attempts if attempt.started <= at]
        if not task_run.attempts:
            return self.task_span(members, position), whole
        attempt: Attempt = before[-1] if before else task_run.attempts[0]
        span_id = self.attempt_span(members, position, attempt.number)
        return span_id, whole.hold(attempt.started, attempt.ended)

    def _extents(self) -> Iterator[tuple[int, int]]:
        """Yield from when to when there are task runs directly below the `flow` span."""
        alone = len(self.run.executions) == 1
        for members in self.run.groups.values():
            if self.place(members.row.parent_key) is not None:
                continue
            slow: Sequence[int] = sorted(members.attempts)
            if alone:
                times = [at for column in (members.started, members.ended) for at in _ends(column)]
                if members.row.created:
                    times.append(members.row.created)
                if times:
                    yield min(times), max(times)
            else:
                slow = range(members.row.size)
            for index in slow:
                task_run = self.task_run(members, index)
                if task_run is not None:
                    ends = [attempt.ended for attempt in task_run.again]
                    yield task_run.start, max(task_run.end, *ends, task_run.end)


def part_of(run: OpenRun, number: int, parent: Part | None) -> Part:
    """Return what an execution of a flow run is in a trace, without its subflows.

    Args:
        run: The flow run.
        number: Number of its execution.
        parent: What the flow run around it is there, or None for the root.
    """
    if parent is not None:
        return Part(run, number, parent.top, parent)
    return Part(run, number, top_of(run, number))


def top_of(run: OpenRun, number: int) -> TraceParent:
    """Return the trace that an execution of a flow run is in, and the span outside above it."""
    execution = run.executions[number - 1]
    if run.parent is not None:
        return top_of(run.parent, run.parent.execution_at(execution.started))
    return trace_of(run.row.id, number, execution)


def trace_of(run_id: str, number: int, execution: Execution) -> TraceParent:
    """Return the trace of an execution of a flow run at the top, and the span outside above it.

    Of one that was not traced it is the one that it is told in later.
    """
    known = TraceParent.parse(execution.traceparent, execution.tracestate)
    return known or TraceParent(trace_id(run_id, number))


def parts_of(run: OpenRun, number: int, parent: Part | None = None) -> list[Part]:
    """Return what a flow run's execution is in a trace, and then what its subflows are there.

    A subflow belongs to the execution of the flow run around it in whose time its own began.
    """
    part = part_of(run, number, parent)
    parts = [part]
    for child in sorted(run.children, key=lambda child: (child.row.started, child.row.id)):
        for own, execution in enumerate(child.executions, 1):
            if run.execution_at(execution.started or child.row.started) == number:
                below = parts_of(child, own, part)
                part.children.append(below[0])
                parts += below
    return parts


def _ends(times: Sequence[int]) -> tuple[int, ...]:
    """Return the first and the last of these times that are known (ns)."""
    known = times if min(times, default=0) else [at for at in times if at]
    return (min(known), max(known)) if known else ()
