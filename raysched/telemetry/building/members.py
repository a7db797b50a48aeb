"""What is known of open flow runs and their task runs: columns of a few bytes for each."""

from array import array
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

from raysched.model.events import ClusterEvent
from raysched.model.ids import task_run_key
from raysched.model.rows import (
    AttemptRow,
    Batch,
    Execution,
    FlowRunChange,
    FlowRunRow,
    GroupRow,
    PlaceRow,
    TaskRunColumns,
)
from raysched.model.states import FAILED_ITSELF, FIRST_TERMINAL, StateType
from raysched.model.values import CrashKind
from raysched.telemetry.building.links import Edge, edges_of
from raysched.telemetry.failures import error_type


class Attempt(NamedTuple):
    """An attempt, with what is told of its failure.

    Attributes:
        number: From 1.
        state: How it ended.
        started: Start (ns).
        ended: End (ns).
        place: Id of its `PlaceRow`, or 0.
        error: Class of the exception, or what else broke; "" if nothing did.
        message: Its message.
        traceback: Text of the traceback, or "".
    """

    number: int
    state: StateType
    started: int
    ended: int
    place: int = 0
    error: str = ""
    message: str = ""
    traceback: str = ""


class TaskRun(NamedTuple):
    """A task run in one execution of its flow run.

    Attributes:
        position: In its group.
        state: Its state at the end of the execution.
        start: Start of its first attempt there (ns); for one that never ran its end.
        end: Its end (ns).
        attempts: Its attempts there, in order.
        again: Attempts after its end, made for nothing but its value.
    """

    position: int
    state: StateType
    start: int
    end: int
    attempts: tuple[Attempt, ...] = ()
    again: tuple[Attempt, ...] = ()

    @property
    def spans(self) -> int:
        """How many spans tell of it."""
        return 1 + len(self.attempts) + len(self.again)


@dataclass(eq=False)
class Members:
    """The task runs of a group.

    Attributes:
        row: The group.
        states: State codes.
        numbers: Attempts begun.
        started: Start of the last attempts (ns).
        ended: End of the last attempts (ns).
        places: Where the last attempts ran.
        told: Which of them have been told already, 0 or 1.
        attempts: Of eventful members, those that have rows, by position and number.
        names: Rendered task run names.
        roots: Keys of root failures.
        reasons: Why members ended as they did.
    """

    row: GroupRow
    states: bytearray = field(default_factory=bytearray)
    numbers: "array[int]" = field(default_factory=lambda: array("H"))
    started: "array[int]" = field(default_factory=lambda: array("q"))
    ended: "array[int]" = field(default_factory=lambda: array("q"))
    places: "array[int]" = field(default_factory=lambda: array("I"))
    told: bytearray = field(default_factory=bytearray)
    attempts: dict[int, dict[int, Attempt]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    roots: dict[int, tuple[str, ...]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.grow(self.row)

    def grow(self, row: GroupRow) -> None:
        """Make room for as many members as a row says."""
        self.row = row
        more = row.size - len(self.states)
        if more > 0:
            self.states += bytes(more)
            self.told += bytes(more)
            for column in (self.numbers, self.started, self.ended, self.places):
                column.frombytes(bytes(more * column.itemsize))

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """What its members need."""
        return edges_of(self.row)

    def key(self, position: int) -> str:
        """Return the key of a member, for example `parse[17]`."""
        return task_run_key(self.row.task, self.row.first + position)

    def take(self, columns: TaskRunColumns) -> None:
        """Take note of rows."""
        indices = columns.indices
        if isinstance(indices, range) and indices.step == 1:
            part = slice(indices.start, indices.stop)
            self.states[part] = bytes(columns.states)
            self.numbers[part] = array("H", columns.attempts)
            self.started[part] = array("q", columns.started)
            self.ended[part] = array("q", columns.ended)
            if columns.places:
                self.places[part] = array("I", columns.places)
        else:
            for place, index in enumerate(indices):
                self.states[index] = columns.states[place]
                self.numbers[index] = columns.attempts[place]
                self.started[index] = columns.started[place]
                self.ended[index] = columns.ended[place]
                if columns.places:
                    self.places[index] = columns.places[place]
        self.names.update((indices[at], name) for at, name in columns.names.items())
        self.roots.update((indices[at], roots) for at, roots in columns.roots.items())
        self.reasons.update((indices[at], reason) for at, reason in columns.reasons.items())

    def begin_again(self, positions: Iterable[int]) -> None:
        """Take note that members begin again; what is left are their attempts."""
        for index in positions:
            self.states[index] = self.started[index] = self.ended[index] = self.told[index] = 0
            self.names.pop(index, None)
            self.roots.pop(index, None)
            self.reasons.pop(index, None)

    def is_eventful(self, position: int) -> bool:
        """Whether a member failed itself, or had attempts that did."""
        return position in self.attempts or self.states[position] in FAILED_ITSELF


@dataclass(eq=False)
class OpenRun:
    """A flow run that is not forgotten yet.

    Attributes:
        row: Its row.
        parent: The flow run around it, if that is known.
        change: How it ended, or None while it is open.
        children: Its subflows, in the order in which they became known.
        groups: Its groups, by id.
        places: Where its task runs ran, by id.
        events: What happened to the cluster.
        dropped: Spans of user code that were left out.
        held: `ScopeSpans` of user code that wait for what becomes of the spans above them.
        held_bytes: Their size.
        lost: When attempts began that were lost with their driver (ns).
    """

    row: FlowRunRow
    parent: "OpenRun | None" = None
    change: FlowRunChange | None = None
    children: list["OpenRun"] = field(default_factory=list)
    groups: dict[int, Members] = field(default_factory=dict)
    places: dict[int, PlaceRow] = field(default_factory=dict)
    events: list[ClusterEvent] = field(default_factory=list)
    dropped: int = 0
    held: list[bytes] = field(default_factory=list)
    held_bytes: int = 0
    lost: list[int] = field(default_factory=list)
    _texts: dict[str, str] = field(default_factory=dict)
    _of_task: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    @property
    def executions(self) -> tuple[Execution, ...]:
        """Its executions; one whose trace is unknown where the row tells of none."""
        return self.row.executions or (Execution(self.row.started),)

    def execution_at(self, at: int) -> int:
        """Return the number of the execution in whose time something happened (ns)."""
        executions = self.executions
        if len(executions) == 1:
            return 1
        return max(1, bisect_right(executions, at, key=lambda execution: execution.started))

    def take(self, row: FlowRunRow, batch: Batch) -> None:
        """Take note of a batch."""
        self.row = row
        if batch.flow_run is not None:
            self.change = batch.flow_run if batch.flow_run.state.is_terminal else None
        for group in batch.groups:
            self._take_group(group)
        for group_id, positions in batch.restarted:
            if group_id in self.groups:
                self.groups[group_id].begin_again(positions)
        for attempt in batch.attempts:
            if attempt.group in self.groups:
                known = self.groups[attempt.group].attempts.setdefault(attempt.index, {})
                known[attempt.attempt] = self._attempt(attempt)
        for columns in batch.task_runs:
            if columns.group in self.groups:
                self.groups[columns.group].take(columns)
        self.places.update((place.id, place) for place in batch.places)
        self.events += batch.events
        self.dropped += batch.dropped_spans

    def member(self, key: str) -> tuple[Members, int] | None:
        """Return the group and the position of a task run, or None if it is not known."""
        task, _, number = key.removesuffix("]").rpartition("[")
        known = self._of_task.get(task)
        if not known or not number.isdecimal():
            return None
        at = bisect_right(known, int(number), key=itemgetter(0))
        members = self.groups[known[max(0, at - 1)][1]]
        position = int(number) - members.row.first
        return (members, position) if 0 <= position < members.row.size else None

    def ended(self, members: Members, position: int) -> int:
        """Return when a task run ended (ns).

        What followed from others has no time of its own: it ended with the last of these.
        """
        if members.ended[position]:
            return members.ended[position]
        roots = [self.member(key) for key in members.roots.get(position, ())]
        ends = [root.ended[at] for root, at in filter(None, roots)]
        for edge in members.edges if not ends else ():
            parent = self.groups.get(edge.parent)
            if parent is not None and edge.is_known:
                ends += (parent.ended[at] for at in edge.positions(position, parent.row.size))
        return max(0, members.row.created, *ends) or self.row.started

    def task_runs(self, members: Members, position: int) -> Iterator[tuple[int, TaskRun]]:
        """Yield a task run as each execution left it that it has anything of, by its number."""
        state = StateType(members.states[position])
        last, again = _last_attempt(members, position, state)
        rows = members.attempts.get(position, {})
        own = [rows[number] for number in sorted(rows) if rows[number] not in again]
        if last is not None:
            own.append(last)
        by_execution: dict[int, list[Attempt]] = {}
        for attempt in own:
            by_execution.setdefault(self.execution_at(attempt.started), []).append(attempt)
        final = 0
        if state >= FIRST_TERMINAL:
            end = self.ended(members, position)
            final = self.execution_at(own[-1].started if own else end)
            by_execution.setdefault(final, [])
        for number, attempts in sorted(by_execution.items()):
            ends = [attempt.ended for attempt in attempts]
            if number == final:
                ends.append(self.ended(members, position))
            end = max(ends)
            yield (
                number,
                TaskRun(
                    position,
                    state if number == final else attempts[-1].state,
                    min((attempt.started for attempt in attempts), default=end),
                    end,
                    tuple(attempts),
                    tuple(each for each in again if self.execution_at(each.started) == number),
                ),
            )

    def _take_group(self, row: GroupRow) -> None:
        if row.id in self.groups:
            self.groups[row.id].grow(row)
            return
        self.groups[row.id] = Members(row)
        insort(self._of_task.setdefault(row.task, []), (row.first, row.id))

    def _attempt(self, row: AttemptRow) -> Attempt:
        error = row.error
        if error is not None and error.kind == CrashKind.DRIVER_LOST:
            self.lost.append(row.started)
        # Many fail alike, and each row brings the text once more.
        return Attempt(
            row.attempt,
            row.state,
            row.started,
            max(row.started, row.ended),
            row.place,
            *(
                (
                    self._shared(error_type(error)),
                    self._shared(error.message),
                    self._shared(error.traceback),
                )
                if error is not None
                else ()
            ),
        )

    def _shared(self, text: str) -> str:
        return self._texts.setdefault(text, text)


def _last_attempt(
    members: Members, position: int, state: StateType
) -> tuple[Attempt | None, Sequence[Attempt]]:
    """Return the last attempt if it has no row, and those that were made after the end.

    The latter are made to have a value again that was lost, and change nothing else.
    """
    rows = members.attempts.get(position, {})
    started, ended = members.started[position], members.ended[position]
    again: list[Attempt] = []
    if state >= FIRST_TERMINAL:
        again = [row for row in rows.values() if ended and row.started >= ended > started]
    number = members.numbers[position] - len(again)
    if not started or number < 1 or number in rows or state == StateType.CACHED:
        return None, again
    ended = ended if state >= FIRST_TERMINAL else started
    place = members.places[position]
    return Attempt(number, state, started, max(started, ended), place), again
