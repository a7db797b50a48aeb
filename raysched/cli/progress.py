"""Counting what a run does: an observer that keeps a byte a task run and adds up columns."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from raysched.model.ids import task_run_key
from raysched.model.records import RecordedGroup, Records
from raysched.model.rows import ENGINE_LOGGER, Batch, FlowRunRow, GroupRow, LogRow, TaskRunColumns
from raysched.model.states import FIRST_TERMINAL, ROOT_FAILURES, SUCCESSES, StateType

RATE_WINDOW = 10.0
"""Rates are those of about the last so many seconds."""

_CODES = max(StateType) + 1
_ROOT_FAILURES = tuple(ROOT_FAILURES - {StateType.CANCELLED})


@dataclass(slots=True)
class TaskProgress:
    """Counts of the task runs of one task.

    Attributes:
        name: The task; `subflow/task` in subflows, all runs of one subflow together.
        counts: Number of task runs by state code.
    """

    name: str
    counts: list[int] = field(default_factory=lambda: [0] * _CODES)

    @property
    def total(self) -> int:
        """Task runs known by now."""
        return sum(self.counts)

    @property
    def done(self) -> int:
        """Task runs in a terminal state."""
        return sum(self.counts[FIRST_TERMINAL:])

    @property
    def running(self) -> int:
        """Task runs that run now."""
        return self.counts[StateType.RUNNING]

    @property
    def retrying(self) -> int:
        """Task runs between two attempts."""
        return self.counts[StateType.AWAITING_RETRY]

    @property
    def failed(self) -> int:
        """Task runs that failed themselves."""
        return sum(self.counts[state] for state in _ROOT_FAILURES)

    @property
    def followed(self) -> int:
        """Task runs that never ran, because of others."""
        return self.counts[StateType.UPSTREAM_FAILED]

    @property
    def cancelled(self) -> int:
        """Task runs that were cancelled, whether they had begun or not."""
        return self.counts[StateType.CANCELLED]


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log record with the name of its source.

    Attributes:
        key: The task run, or the name of the flow.
        row: The record.
    """

    key: str
    row: LogRow


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at one moment.

    Attributes:
        run: The flow run that was started first, or None before it is there.
        tasks: Counts by task, in the order in which the flow came to them.
        logs: Log records since the last snapshot.
        dropped_logs: Number of further ones since the last snapshot, which are only in the store.
    """

    run: FlowRunRow | None
    tasks: Sequence[TaskProgress]
    logs: Sequence[LogLine]
    dropped_logs: int = 0


@dataclass(slots=True)
class _Group:
    progress: TaskProgress
    row: GroupRow
    states: bytearray


class Progress:
    """Observes batches; hands out snapshots, each in time proportional to the number of tasks.

    Args:
        most_logs: Log records that are kept for one snapshot.
        earlier: What the run goes on from, if it does: what is completed there is done.
    """

    def __init__(self, most_logs: int = 200, earlier: Records | None = None) -> None:
        self._most_logs = most_logs
        self._earlier = earlier
        self._lock = threading.Lock()
        self._run: FlowRunRow | None = None
        self._ended = False
        self._tasks: dict[str, TaskProgress] = {}
        self._groups: dict[str, dict[int, _Group]] = {}
        self._logs: list[LogLine] = []
        self._dropped_logs = 0

    def __call__(self, run: FlowRunRow, batch: Batch) -> None:
        """Take note of a committed batch."""
        with self._lock:
            first = self._run or self._begin(run)
            groups = self._groups.setdefault(run.id, {})
            for row in batch.groups:
                # A resume tells some groups again that it goes on with.
                if row.id not in groups:
                    groups[row.id] = self._open(run, row)
            for columns in batch.task_runs:
                # What a subflow's run has left is not known here.
                if columns.group in groups:
                    _count(groups[columns.group], columns)
            for log in batch.logs:
                if log.logger != ENGINE_LOGGER:
                    self._keep(run, groups, log)
            if batch.flow_run is not None and batch.flow_run.state.is_terminal:
                # Thousands of subflows must not leave their columns behind.
                del self._groups[run.id]
                self._ended = self._ended or run.id == first.id

    @property
    def has_begun(self) -> bool:
        """Whether the run has begun; takes no lock, so that a signal handler may ask."""
        return self._run is not None

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended; takes no lock either."""
        return self._ended

    def snapshot(self) -> Snapshot:
        """Return what is known now, with the log records since the last call."""
        with self._lock:
            logs, self._logs = self._logs, []
            dropped, self._dropped_logs = self._dropped_logs, 0
            tasks = [TaskProgress(task.name, task.counts.copy()) for task in self._tasks.values()]
            return Snapshot(self._run, tasks, logs, dropped)

    def _begin(self, run: FlowRunRow) -> FlowRunRow:
        self._run = run
        groups = self._groups[run.id] = {}
        for earlier in () if self._earlier is None else self._earlier.groups:
            row = GroupRow(earlier.id, earlier.task, earlier.first, earlier.size)
            groups[earlier.id] = group = self._open(run, row)
            _count(group, _completed(earlier))
        return run

    def _open(self, run: FlowRunRow, row: GroupRow) -> _Group:
        nested = self._run is not None and run.id != self._run.id
        name = f"{run.flow}/{row.task}" if nested else row.task
        progress = self._tasks.setdefault(name, TaskProgress(name))
        progress.counts[StateType.SCHEDULED] += row.size
        return _Group(progress, row, bytearray(row.size))

    def _keep(self, run: FlowRunRow, groups: Mapping[int, _Group], log: LogRow) -> None:
        if len(self._logs) >= self._most_logs:
            self._dropped_logs += 1
            return
        key = run.flow
        if log.group in groups:
            row = groups[log.group].row
            key = task_run_key(row.task, row.first + log.index)
        self._logs.append(LogLine(key, log))


class Rates:
    """Rates and remaining times of tasks, from samples of their counts.

    Args:
        clock: Seconds, from any origin.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._samples: dict[str, deque[tuple[float, int]]] = {}

    def sample(self, tasks: Sequence[TaskProgress]) -> None:
        """Remember how much is done now."""
        now = self._clock()
        for task in tasks:
            samples = self._samples.setdefault(task.name, deque())
            samples.append((now, task.done))
            while len(samples) > 1 and samples[1][0] <= now - RATE_WINDOW:
                samples.popleft()

    def rate(self, task: TaskProgress) -> float:
        """Return task runs done a second, 0 while nothing is known."""
        samples = self._samples.get(task.name)
        if not samples:
            return 0.0
        (began, before), (now, done) = samples[0], samples[-1]
        return (done - before) / (now - began) if now > began else 0.0

    def left(self, task: TaskProgress) -> float | None:
        """Return the seconds until all task runs known by now are done, or None if unknown."""
        rate = self.rate(task)
        return (task.total - task.done) / rate if rate else None


def _completed(group: RecordedGroup) -> TaskRunColumns:
    """Return the rows of what is completed and answers calls."""
    indices = [
        index
        for index, state in enumerate(group.states)
        if state in SUCCESSES and index not in group.rolled_back
    ]
    states = [group.states[index] for index in indices]
    none: list[int] = []
    return TaskRunColumns(group.id, indices, states, none, none, none, [], none)


def _count(group: _Group, columns: TaskRunColumns) -> None:
    """Move task runs from the states they had to those they have, by columns where possible."""
    indices, new = columns.indices, bytes(columns.states)
    counts, states = group.progress.counts, group.states
    if not new:
        return
    if isinstance(indices, range) and indices.step == 1:
        before = states[indices.start : indices.stop]
        states[indices.start : indices.stop] = new
    else:
        before = bytearray(len(new))
        for position, index in enumerate(indices):
            # One at a time: a member may come twice, and then leaves the state it came to first.
            before[position] = states[index]
            states[index] = new[position]
    for code in set(before):
        counts[code] -= before.count(code)
    for code in set(new):
        counts[code] += new.count(code)
