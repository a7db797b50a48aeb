"""From committed batches to measurements, by columns: a byte and a time are kept a task run."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from operator import sub
from typing import TypeVar

from raysched.graph.group import elements
from raysched.model.rows import (
    AttemptRow,
    Batch,
    FlowRunChange,
    FlowRunRow,
    GroupRow,
    TaskRunColumns,
)
from raysched.model.states import FAILED_ITSELF, FIRST_TERMINAL, StateType
from raysched.telemetry.building.links import Edge, edges_of
from raysched.telemetry.earlier import Replay, earlier_batches, nothing_kept
from raysched.telemetry.failures import error_type
from raysched.telemetry.metrics.instruments import (
    ACTIVE,
    ATTEMPT_DURATION,
    DROPPED,
    ERROR_TYPE,
    FLOW_DURATION,
    FLOW_NAME,
    FLOW_STATE,
    QUEUE_DURATION,
    RETRIES,
    SIGNAL,
    TASK_DURATION,
    TASK_NAME,
    TASK_STATE,
    TASKS,
    Attributes,
    Recorder,
)
from raysched.telemetry.ports import Signal

Column = TypeVar("Column", bytearray, "array[int]")


@dataclass(slots=True)
class _Group:
    """What is remembered of a group while its flow run is open.

    Attributes:
        attributes: What all its measurements are about.
        created: When it was recorded (ns), 0 if that is not known.
        edges: What its members need.
        states: States as committed.
        ended: Ends of the members (ns), 0 where there is none.
        ready: When all had ended that each member needs (ns), 0 until one of them ran.
        begun: Start of the first attempt (ns) of members with attempts that have rows.
    """

    attributes: Attributes
    created: int
    edges: Sequence[Edge]
    states: bytearray
    ended: "array[int]"
    ready: int = 0
    begun: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Ended:
    """Members of one group that have ended in one state, in columns of equal length."""

    state: StateType
    error_type: str
    indices: Sequence[int]
    attempts: Sequence[int]
    started: Sequence[int]
    ended: Sequence[int]


class Measuring:
    """Measures what was committed.

    Each task run counts once, when it ends; what a resumed or repeated flow run has only taken
    over from an earlier one was counted there.

    Args:
        recorder: Takes the measurements.
        replay: Returns what is kept of a flow run that goes on here.
    """

    def __init__(self, recorder: Recorder, replay: Replay = nothing_kept) -> None:
        self._recorder = recorder
        self._replay = replay
        self._runs: dict[str, dict[int, _Group]] = {}

    def take(self, row: FlowRunRow, batch: Batch) -> None:
        """Measure a committed batch of one flow run (see `Consumer.take`)."""
        groups = self._runs.get(row.id)
        if groups is None:
            groups = self._runs[row.id] = {}
            for earlier in earlier_batches(self._replay, row):
                _learn(groups, row, earlier)
        for group in batch.groups:
            _open(groups, row, group)
        for group_id, positions in batch.restarted:
            if group_id in groups:
                _restart(groups[group_id], positions)
        errors = self._attempts(groups, batch.attempts)
        told = [columns for columns in batch.task_runs if columns.group in groups]
        for columns in told:
            # Of all, before any of them is measured: they may need each other.
            _exchange(groups[columns.group].ended, columns.indices, array("q", columns.ended))
        for columns in told:
            self._columns(row, groups, columns, errors)
        if batch.dropped_spans:
            self._recorder.add(DROPPED, ((SIGNAL, Signal.TRACES.value),), batch.dropped_spans)
        if batch.flow_run is not None and batch.flow_run.state.is_terminal:
            self._forget(self._runs.pop(row.id, {}))
            self._flow_run(row, batch.flow_run)

    def _flow_run(self, row: FlowRunRow, change: FlowRunChange) -> None:
        attributes: Attributes = ((FLOW_NAME, _text(row.flow)), (FLOW_STATE, change.state.name))
        if change.state in FAILED_ITSELF:
            attributes += ((ERROR_TYPE, error_type(change.error) or change.state.name),)
        duration = _durations((_last_started(row),), (change.ended,))
        self._recorder.record(FLOW_DURATION, attributes, duration)

    def _attempts(
        self, groups: Mapping[int, _Group], attempts: Iterable[AttemptRow]
    ) -> dict[tuple[int, int], str]:
        """Measure attempts that have rows; return the types of their errors by member."""
        durations: dict[Attributes, list[int]] = {}
        retries: Counter[Attributes] = Counter()
        errors = {}
        for row in attempts:
            group = groups.get(row.group)
            if group is None:
                continue
            attributes = (*group.attributes, (TASK_STATE, row.state.name))
            if row.state in FAILED_ITSELF:
                kind = errors[row.group, row.index] = error_type(row.error) or row.state.name
                attributes += ((ERROR_TYPE, kind),)
            if row.started:
                durations.setdefault(attributes, []).append(max(0, row.ended - row.started))
            if group.states[row.index] >= FIRST_TERMINAL:
                # It was made for nothing but a value that was lost.
                continue
            if row.attempt > 1:
                retries[group.attributes] += 1
            group.begun.setdefault(row.index, row.started)
        for attributes, each in durations.items():
            self._recorder.record(ATTEMPT_DURATION, attributes, each)
        for attributes, count in retries.items():
            self._recorder.add(RETRIES, attributes, count)
        return errors

    def _columns(
        self,
        row: FlowRunRow,
        groups: Mapping[int, _Group],
        columns: TaskRunColumns,
        errors: Mapping[tuple[int, int], str],
    ) -> None:
        group = groups[columns.group]
        new = bytearray(columns.states)
        before = _exchange(group.states, columns.indices, new)
        active = new.count(StateType.RUNNING) - before.count(StateType.RUNNING)
        if active:
            self._recorder.add(ACTIVE, group.attributes, active)
        for ended in _newly_ended(columns, before, new, _since(row), errors):
            self._ended(groups, group, ended)

    def _ended(self, groups: Mapping[int, _Group], group: _Group, ended: _Ended) -> None:
        attributes = (*group.attributes, (TASK_STATE, ended.state.name))
        with_error = attributes
        if ended.error_type:
            with_error += ((ERROR_TYPE, ended.error_type),)
        self._recorder.add(TASKS, with_error, len(ended.indices))
        if ended.state is StateType.CACHED:
            # It has times, but nothing ran.
            return
        if ended.state is StateType.COMPLETED:
            self._recorder.record(ATTEMPT_DURATION, attributes, _single_attempts(group, ended))
        indices, started, ends = ended.indices, ended.started, ended.ended
        if group.begun:
            pop = group.begun.pop
            started = [pop(i, at) for i, at in zip(indices, started, strict=True)]
        if 0 in started:
            ran = [position for position, at in enumerate(started) if at]
            indices, started, ends = (elements(each, ran) for each in (indices, started, ends))
        self._recorder.record(TASK_DURATION, attributes, _durations(started, ends))
        ready = _ready(groups, group, indices)
        if ready:
            self._recorder.record(QUEUE_DURATION, group.attributes, _durations(ready, started))

    def _forget(self, groups: Mapping[int, _Group]) -> None:
        """Forget what a flow run has left, thousands of subflows among them."""
        for group in groups.values():
            active = group.states.count(StateType.RUNNING)
            if active:
                self._recorder.add(ACTIVE, group.attributes, -active)


def _text(value: str) -> str:
    """Return text that is UTF-8, as every protocol wants it: no half of a surrogate pair."""
    return value.encode(errors="replace").decode()


def _open(groups: dict[int, _Group], run: FlowRunRow, row: GroupRow) -> None:
    if row.id in groups:
        # A resume tells some groups again that it goes on with.
        return
    attributes = ((FLOW_NAME, _text(run.flow)), (TASK_NAME, _text(row.task)))
    times = array("q", bytes(8 * row.size))
    # Nobody waits for a worker while there is no driver.
    began = run.executions[-1].started if run.executions else 0
    created = max(row.created, began) if row.created else 0
    groups[row.id] = _Group(attributes, created, edges_of(row), bytearray(row.size), times)


def _learn(groups: dict[int, _Group], run: FlowRunRow, batch: Batch) -> None:
    """Take note of what earlier executions have left, and have measured."""
    for group in batch.groups:
        _open(groups, run, group)
    since = _last_started(run)
    for columns in batch.task_runs:
        group_there = groups[columns.group]
        # This execution goes on meanwhile, and tells of itself.
        earlier = [position for position, end in enumerate(columns.ended) if end < since]
        for index, state, end in zip(
            *(elements(each, earlier) for each in (columns.indices, columns.states, columns.ended)),
            strict=True,
        ):
            group_there.states[index], group_there.ended[index] = state, end


def _restart(group: _Group, positions: Sequence[int]) -> None:
    for index in positions:
        group.states[index] = StateType.SCHEDULED
        group.begun.pop(index, None)


def _last_started(row: FlowRunRow) -> int:
    """Return when the last execution of a flow run began (ns)."""
    return row.executions[-1].started if row.executions else row.started


def _since(row: FlowRunRow) -> int:
    """Return when what is new of a flow run can have ended at the earliest (ns)."""
    return _last_started(row) if row.rerun_of or len(row.executions) > 1 else 0


def _newly_ended(
    columns: TaskRunColumns,
    before: bytearray,
    new: bytearray,
    since: int,
    errors: Mapping[tuple[int, int], str],
) -> Iterable[_Ended]:
    """Yield the members that have ended now, by state and type of error."""
    if not new:
        return
    whole = max(before) < FIRST_TERMINAL and min(new) == max(new) and not since
    if whole and new[0] in {StateType.COMPLETED, StateType.CACHED}:
        yield _Ended(
            StateType(new[0]),
            "",
            columns.indices,
            columns.attempts,
            columns.started,
            columns.ended,
        )
        return
    parts: dict[tuple[int, str], list[int]] = {}
    for position, (old, state) in enumerate(zip(before, new, strict=True)):
        if old < FIRST_TERMINAL <= state and (not since or columns.ended[position] >= since):
            kind = ""
            if state in FAILED_ITSELF:
                member = columns.group, columns.indices[position]
                kind = errors.get(member) or StateType(state).name
            parts.setdefault((state, kind), []).append(position)
    for (state, kind), positions in parts.items():
        yield _Ended(
            StateType(state),
            kind,
            *(
                elements(each, positions)
                for each in (columns.indices, columns.attempts, columns.started, columns.ended)
            ),
        )


def _single_attempts(group: _Group, ended: _Ended) -> Sequence[int]:
    """Return the durations of attempts without rows: those of members with no other attempt."""
    if not group.begun and min(ended.started) and min(ended.attempts) == max(ended.attempts) == 1:
        return _durations(ended.started, ended.ended)
    columns = zip(ended.indices, ended.attempts, ended.started, ended.ended, strict=True)
    return [
        max(0, end - start)
        for index, attempts, start, end in columns
        if attempts == 1 and start and index not in group.begun
    ]


def _ready(groups: Mapping[int, _Group], group: _Group, indices: Sequence[int]) -> Sequence[int]:
    """Return when members were called and all that they need had ended (ns); empty if unknown."""
    if not group.created or not indices:
        return ()
    columns = []
    for edge in group.edges:
        if edge.parent not in groups or edge.stop < 0:
            # It was taken over from an earlier execution; or each member needs something else.
            return ()
        if not edge.is_common:
            columns.append(elements(groups[edge.parent].ended, _shifted(indices, edge.index)))
    if not group.ready:
        # One that ran tells that they have ended.
        group.ready = max(group.created, *map(partial(_ended_in, groups), group.edges), 0)
    of_all = repeat(group.ready, len(indices))
    return list(map(max, of_all, *columns)) if columns else list(of_all)


def _ended_in(groups: Mapping[int, _Group], edge: Edge) -> int:
    """Return when all of another group had ended (ns) that each member needs, 0 if that is none."""
    if not edge.is_common:
        return 0
    ended = groups[edge.parent].ended
    return max(elements(ended, edge.positions(0, len(ended))), default=0)


def _shifted(indices: Sequence[int], by: int) -> Sequence[int]:
    if isinstance(indices, range):
        return range(indices.start + by, indices.stop + by)
    return [index + by for index in indices]


def _durations(started: Sequence[int], ended: Sequence[int]) -> Sequence[int]:
    """Return durations (ns), none of them negative: clocks of two machines may differ."""
    durations = list(map(sub, ended, started))
    return durations if not durations or min(durations) >= 0 else [max(0, d) for d in durations]


def _exchange(column: Column, indices: Sequence[int], new: Column) -> Column:
    """Put new elements into a column; return those that were there."""
    if isinstance(indices, range):
        part = slice(indices.start, indices.stop)
        before, column[part] = column[part], new
        return before
    before = new[:]
    for position, index in enumerate(indices):
        # One at a time: a member may come twice, and then leaves the state it came to first.
        before[position], column[index] = column[index], new[position]
    return before
