"""A flow run that was kept."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raysched.client.failure_kinds import FailureKind, failure_kinds
from raysched.client.plan import GroupPlan, group_plan
from raysched.client.shortfalls import Shortfall, shortfalls
from raysched.client.task_run import TaskRun, TaskRuns
from raysched.client.words import OWN_FAILURES, split_key, state_types, utc, who
from raysched.define.states import State
from raysched.errors import ResultNotKept, UsageError
from raysched.model.rows import ENGINE_LOGGER, RequestRow
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo
from raysched.results.envelope import decode
from raysched.store.views import EventView, LogView, RemarkView

if TYPE_CHECKING:
    from raysched.client.earlier import RerunPlan
    from raysched.client.stock import Stock
    from raysched.client.trace import RunTrace
    from raysched.client.why_driver import LostDriver
    from raysched.client.why_facts import Why
    from raysched.client.why_waiting import Waiting
    from raysched.define.flows import Flow
    from raysched.define.ports import Continuation
    from raysched.model.records import Records
    from raysched.store.reader import Reader
    from raysched.store.views import RunView


class Run:
    """A flow run, as it was when it was asked for; `refresh` asks again.

    `run["parse"]` is the sequence of the task runs of one task.
    """

    def __init__(self, reader: "Reader", view: "RunView") -> None:
        self._reader = reader
        self._view = view
        self._asked: RequestRow | None = None

    def refresh(self) -> None:
        """Read the run again."""
        self._view = self._reader.find_run(self._view.id)
        for cached in ("_sizes", "records", "remarks"):
            self.__dict__.pop(cached, None)

    @property
    def id(self) -> str:
        """The id."""
        return self._view.id

    @property
    def flow(self) -> str:
        """Name of the flow."""
        return self._view.flow

    @property
    def name(self) -> str:
        """Name of the run."""
        return self._view.name

    @property
    def state(self) -> State[Any]:
        """The state; a run whose driver died is CRASHED."""
        ended = self._view.ended or self._view.started
        return State(self._view.state, message=self._view.message, timestamp=ended / 10**9)

    @property
    def message(self) -> str:
        """Why it is in its state, for people."""
        return self._view.message

    @property
    def lost(self) -> bool:
        """Whether the process that ran it died before it ended."""
        return self._view.lost

    @property
    def lost_driver(self) -> "LostDriver | None":
        """That process, and until when it is known to have lived; None if it did not die."""
        from raysched.client.why_driver import lost_driver

        return lost_driver(self._reader, self._view)

    @property
    def late(self) -> int:
        """Reports of attempts that were over already, and were refused."""
        return self._view.late

    @property
    def started(self) -> datetime | None:
        """When it started."""
        return utc(self._view.started)

    @property
    def ended(self) -> datetime | None:
        """When it ended."""
        return utc(self._view.ended)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Parameters as JSON values; what JSON does not know is shown by its repr."""
        parameters: dict[str, Any] = json.loads(self._view.parameters)
        return parameters

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags."""
        return self._view.tags

    @property
    def parent(self) -> str:
        """Id of the run that called it as a subflow, or ""."""
        return self._view.parent

    @property
    def target(self) -> str:
        """What was run: `/home/me/flow.py:nightly`, or ""."""
        return self._view.target

    @property
    def key(self) -> str:
        """What `raysched run --key` was given, or ""."""
        return self._view.key

    @property
    def rerun_of(self) -> str:
        """Id of the run whose results it reuses, or ""."""
        return self._view.rerun_of

    @property
    def run_count(self) -> int:
        """How often its flow function was begun: by retries of the flow, and by resumes."""
        return self._view.attempts

    @property
    def backend(self) -> str:
        """Where it ran: `Ray 2.60.0, 2 CPUs, started here`."""
        return self._view.backend

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of Python, Ray and raysched."""
        versions: dict[str, str] = json.loads(self._view.versions)
        return versions

    @property
    def error(self) -> ErrorInfo | None:
        """What the flow function raised, or the first unhandled failure in it."""
        return self._view.error

    @property
    def counts(self) -> Mapping[StateType, int]:
        """Number of task runs by state, without empty states."""
        return {StateType(code): self._view.counts[code] for code in sorted(self._view.counts)}

    @property
    def task_counts(self) -> Mapping[str, Mapping[StateType, int]]:
        """Number of task runs by task, in order of calls, and by state."""
        return self._reader.task_counts(self._view)

    @property
    def plan(self) -> list[GroupPlan]:
        """How its groups of task runs were planned, in order of calls."""
        return [group_plan(row) for row in self._reader.groups(self._view)]

    @property
    def failures(self) -> list[TaskRun]:
        """Task runs that failed themselves, without those that only followed."""
        return list(self.task_runs(states=OWN_FAILURES))

    @property
    def failure_kinds(self) -> list[FailureKind]:
        """How task runs failed themselves, counted by task and innermost cause."""
        return failure_kinds(self._reader, self._view)

    @cached_property
    def remarks(self) -> list[RemarkView]:
        """What is to be told of task runs beside their states, counted, in order of calls."""
        return self._reader.remarks(self._view)

    @property
    def shortfalls(self) -> list[Shortfall]:
        """Maps of which fewer succeeded than `min_success` asks for, in order of calls."""
        return shortfalls(self._reader, self._view)

    def result(self) -> Any:
        """Return what the flow function returned.

        Raises:
            ResultNotKept: The run has not completed, or its result was not kept.
        """
        envelope = self._reader.result(self._view)
        if envelope is None or not self._view.state.is_terminal:
            raise ResultNotKept(
                f"run {self.id[:8]} ({self._view.state}) has no result that is kept"
            )
        return decode(envelope)

    @cached_property
    def records(self) -> "Records":
        """What became of its task runs, in columns."""
        return self._reader.records(self._view)

    @property
    def stock(self) -> "Stock":
        """What there is of it for a resume or rerun."""
        from raysched.client.stock import stock_of

        return stock_of(self.records, self._reader.groups(self._view))

    def plan_rerun(
        self, flow: "Flow[..., Any]", parameters: Mapping[str, Any], asked: "Continuation"
    ) -> "RerunPlan":
        """Return what a rerun of it would do, without running a task (see `client.earlier`)."""
        from raysched.client.earlier import plan_rerun

        return plan_rerun(self._reader, flow, parameters, asked)

    @property
    def children(self) -> "list[Run]":
        """Runs of the subflows that it called, the newest first."""
        return [Run(self._reader, view) for view in self._reader.children(self._view)]

    def __getitem__(self, task: str) -> TaskRuns:
        if task not in self._sizes:
            known = ", ".join(self._sizes) or "none"
            raise KeyError(f"run {self.id[:8]} has no task {task!r}; it has: {known}")
        return TaskRuns(self, task, self._sizes[task])

    def __contains__(self, task: object) -> bool:
        return task in self._sizes

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def task_run(self, key: str) -> TaskRun:
        """Return a task run by its key, such as `parse[17]`; by the task where it has but one.

        Raises:
            UsageError: There is no such task run.
        """
        task, index = split_key(key) or (key, 0)
        size = self._sizes.get(task)
        if size is None:
            known = ", ".join(self._sizes) or "none"
            raise UsageError(f"run {self.id[:8]} has no task {task!r}; it has: {known}")
        if index >= size or (task == key and size > 1):
            which = task if size == 1 else f"{task}[0] to {task}[{size - 1}]"
            raise UsageError(
                f"run {self.id[:8]} has no task run {key!r}; of that task it has {which}"
            )
        return self[task][index]

    def cancel(
        self, by: str | None = None, *, force: bool = False, keys: Iterable[str] = ()
    ) -> bool:
        """Ask the process that runs it to cancel it; returns as soon as that is kept.

        Nothing new begins then, what runs is interrupted and may clean up, and the run ends
        CANCELLED. The process looks for requests about once a second: `refresh` tells what became
        of this one.

        Args:
            by: Who asks, for people; by default the user and this machine.
            force: Without time to clean up: the workers end.
            keys: Keys of single task runs that are to be cancelled, instead of all of the run.

        Returns:
            Whether it was asked: False if the run has ended, or its process has died.

        Raises:
            UsageError: It has no such task run.
            StoreError: The database cannot be written.
        """
        wanted = [self.task_run(key).key for key in keys]
        self.refresh()
        if self._view.state.is_terminal:
            return False
        kind = "kill" if force else "cancel"
        self._asked = self._reader.requests.ask(self._view.number, kind, by or who(), wanted)
        return True

    def has_taken_request(self) -> bool:
        """Return whether the process that runs it has taken what `cancel` has asked last.

        What it is doing then may take its time: what runs may clean up.
        """
        asked = self._asked
        if asked is None:
            return False
        # The process says so in the run's log, at the time of the request.
        return any(said.at == asked.at for said in self.logs(logger=ENGINE_LOGGER))

    def task_runs(
        self,
        *,
        task: str | None = None,
        states: Iterable[StateType | str] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> Iterator[TaskRun]:
        """Yield task runs in order of calls, a million of them in little memory.

        Args:
            task: Only those of that task.
            states: Only those in one of these states; by default in any.
            limit: At most so many.
            offset: Leave out so many at the start.
        """
        views = self._reader.task_runs(
            self._view, task=task, states=state_types(states), limit=limit, offset=offset
        )
        return (TaskRun(self._reader, self._view, view) for view in views)

    def logs(
        self,
        *,
        task: str | None = None,
        logger: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[LogView]:
        """Return log records in order: those of the flow function have the key "".

        Args:
            task: Only those of that task, or of the task run with that key, such as `parse[17]`.
            logger: Only those of that logger; `raysched` is what raysched itself says.
            after: Only those with a larger `id`: that of the last one seen, to follow a run.
            limit: At most so many.
        """
        name, index = task, None
        if task is not None and task not in self:
            name, index = split_key(task) or (task, None)
        return self._reader.logs(
            self._view, task=name, index=index, logger=logger, after=after, limit=limit
        )

    def events(self, *, after: int = 0, limit: int | None = None) -> list[EventView]:
        """Return what happened to the cluster in order; `after` and `limit` are as in `logs`."""
        return self._reader.events(self._view, after=after, limit=limit)

    def table(self) -> list[dict[str, Any]]:
        """Return a dict for each task run, as `pandas.DataFrame` takes them.

        Keys: task, key, index, name, state, attempts, started, ended, seconds, error, roots.
        """
        return [each.row() for each in self.task_runs()]

    @property
    def trace(self) -> "RunTrace":
        """Where it stands in traces, and its spans."""
        from raysched.client.trace import RunTrace

        return RunTrace(self._reader, self._view)

    def why(self, key: str = "") -> "Why":
        """Return why it ended as it did: causes with evidence, what followed, what may help.

        Args:
            key: Only why this task run did, such as `parse[17]`.

        Raises:
            UsageError: There is no such task run.
        """
        if key:
            return self.task_run(key).why()
        from raysched.client.why import explain

        return explain(self._reader, self._view)

    def waiting(self, now: int | None = None) -> "Waiting":
        """Return what it waits for at a time `now` (ns since the epoch), by default the present."""
        from raysched.client.why_waiting import waiting_for

        return waiting_for(self._reader, self._view, time.time_ns() if now is None else now)

    @cached_property
    def _sizes(self) -> Mapping[str, int]:
        sizes: dict[str, int] = {}
        for group in self._reader.groups(self._view):
            sizes[group.task] = sizes.get(group.task, 0) + group.size
        return sizes

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {state.name}" for state, count in self.counts.items())
        return (
            f"<Run {self.id[:8]} of {self.flow}: {self._view.state.name}; {counts or 'no tasks'}>"
        )
