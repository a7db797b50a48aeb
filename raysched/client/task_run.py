"""Task runs that were kept, and the values that they left."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

from raysched.client.words import describe_error, seconds_between, utc
from raysched.define.states import State
from raysched.errors import (
    ResultError,
    ResultNotKept,
    TaskRunError,
    TaskRunFailed,
    TaskRunUnfinished,
    UpstreamFailed,
)
from raysched.model.records import Kept
from raysched.model.rows import FELL_BACK
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import ErrorInfo
from raysched.results import storage
from raysched.results.envelope import decode
from raysched.results.rebuild import exception_of
from raysched.settings import settings
from raysched.store.views import LogView

if TYPE_CHECKING:
    from raysched.client.debug import Rerun
    from raysched.client.run import Run
    from raysched.client.why_facts import Why
    from raysched.define.tasks import Task
    from raysched.model.rows import AttemptRow
    from raysched.store.reader import Reader
    from raysched.store.views import RunView, TaskRunView


class TaskRun:
    """A task run, as it was when it was asked for."""

    def __init__(self, reader: "Reader", run: "RunView", view: "TaskRunView") -> None:
        self._reader = reader
        self._run = run
        self._view = view

    @property
    def task(self) -> str:
        """Name of the task."""
        return self._view.task

    @property
    def key(self) -> str:
        """For example `parse[17]`."""
        return self._view.key

    @property
    def index(self) -> int:
        """Position among the task runs of that task in the flow run."""
        return self._view.index

    @property
    def name(self) -> str:
        """Rendered `task_run_name`, or the key."""
        return self._view.name or self._view.key

    @property
    def state(self) -> State[Any]:
        """The state."""
        view = self._view
        message = view.error.message if view.error is not None else ""
        if view.roots:
            message = f"because of {', '.join(view.roots)}"
        message = view.reason or message
        load = self.result if view.state in SUCCESSES else None
        ended = (view.ended or view.started) / 10**9
        data = None if view.state in SUCCESSES else message
        return State(view.state, message=message, data=data, timestamp=ended, load=load)

    @property
    def attempts(self) -> int:
        """Attempts begun."""
        return self._view.attempts

    @property
    def started(self) -> datetime | None:
        """When the last attempt started."""
        return utc(self._view.started)

    @property
    def ended(self) -> datetime | None:
        """When the last attempt ended."""
        return utc(self._view.ended)

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took (seconds), None while it is open or if not known."""
        return seconds_between(self._view.started, self._view.ended, self._view.state)

    @property
    def error(self) -> ErrorInfo | None:
        """What the last attempt raised: type, message, traceback, who is to blame."""
        return self._view.error

    @property
    def roots(self) -> tuple[str, ...]:
        """Of one that only followed: the keys of those that failed themselves."""
        return self._view.roots

    @property
    def handled(self) -> bool:
        """Whether the flow was told of its failure and went on."""
        return self._view.handled

    @property
    def reason(self) -> str:
        """Why it ended so, where no attempt tells it: who cancelled it, why it was skipped."""
        return self._view.reason

    @property
    def rolled_back(self) -> bool:
        """Whether it completed and what it did was undone."""
        return self._view.rolled_back

    @property
    def kept(self) -> Kept:
        """What there is of its value. Of one that completed with nothing, nothing was kept."""
        return self._view.kept

    @property
    def location(self) -> str:
        """Where the result storage has its value, or ""."""
        return self._view.location

    @property
    def fingerprint(self) -> str:
        """What failures with the same innermost cause have in common, or ""."""
        return self._view.error.fingerprint if self._view.error is not None else ""

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags."""
        return self._view.tags

    @property
    def history(self) -> "list[AttemptRow]":
        """Attempts that failed, and those that followed a failure, in order."""
        view = self._view
        return self._reader.attempts(self._run, view.group, view.member)

    @property
    def before_fallback(self) -> "AttemptRow | None":
        """The failed attempt after which its fallback was called, or None."""
        return next((row for row in self.history if row.stop_reason.endswith(FELL_BACK)), None)

    @property
    def logs(self) -> list[LogView]:
        """Its log records."""
        return self._reader.logs(self._run, task=self.task, index=self.index)

    def why(self) -> "Why":
        """Return why it ended as it did, with the evidence and what may help."""
        from raysched.client.why_task_run import explain_task_run

        return explain_task_run(self._reader, self._run, self._view)

    def again(self, task: "Task[..., Any]") -> "Rerun":
        """Return what runs this task run again, alone and in this process; it runs nothing yet.

        Args:
            task: The task, whose function is called with the arguments that were kept.

        Raises:
            ResultError: It did not fail by itself, or it has not ended.
            ResultNotKept: Its arguments, or values of other task runs in them, were not kept.
        """
        from raysched.client.debug import prepare

        return prepare(self._reader, self._run, self._view, task)

    def result(self) -> Any:
        """Return a fresh copy of the value.

        Raises:
            TaskRunError: It ended without a value; has the worker's traceback, and as its cause
                the exception itself where that can be rebuilt here.
            ResultNotKept: The value was not kept after the run.
            ResultLost: It is missing or damaged in the result storage.
            ResultError: It has not ended.
            SerializationError: The value cannot be unpickled in this process.
        """
        if not self._view.state.is_terminal:
            raise ResultError(f"{self.key} is {self._view.state.name}: it has no result yet")
        if self._view.state not in SUCCESSES:
            raise self._failure()
        if self.kept is Kept.STORED:
            return storage.load(self.location)
        envelope = self._reader.value(self._run, self.task, self.index)
        if envelope is None:
            raise ResultNotKept(not_kept(self._view))
        return decode(envelope)

    def _failure(self) -> BaseException:
        error = self._view.error or ErrorInfo("", "")
        exception = handed_over(self._view)
        if isinstance(exception, TaskRunError):
            return exception
        failure = TaskRunFailed(
            f"{self.key} failed: {describe_error(error)}",
            key=self.key,
            remote_traceback=error.traceback,
        )
        failure.__cause__ = exception
        return failure

    def row(self) -> dict[str, Any]:
        """Return it as `Run.table` has it."""
        return {
            "task": self.task,
            "key": self.key,
            "index": self.index,
            "name": self.name,
            "state": self.state.type.name,
            "attempts": self.attempts,
            "started": self.started,
            "ended": self.ended,
            "seconds": self.seconds,
            "error": None if self.error is None else describe_error(self.error),
            "roots": self.roots,
        }

    def __repr__(self) -> str:
        error = f": {describe_error(self.error)}" if self.error is not None else ""
        return f"<TaskRun {self.key} {self._view.state.name}{error}>"


def handed_over(view: "TaskRunView") -> BaseException:
    """Return what others are handed instead of the value that a task run has not."""
    if not view.state.is_terminal:
        return TaskRunUnfinished(f"{view.key} had not ended", key=view.key)
    if view.state is StateType.UPSTREAM_FAILED:
        roots = ", ".join(view.roots) or "others before it"
        message = f"{view.key} never ran, because of {roots}"
        return UpstreamFailed(message, key=view.key, roots=view.roots)
    return exception_of(view.key, view.state, view.error or ErrorInfo("", ""))


def not_kept(view: "TaskRunView") -> str:
    """Return why the value of a completed task run is not there."""
    limit = settings().kept_result_max_bytes
    if view.size > limit:
        reason = (
            f"it has {view.size:,} bytes, and values over {limit:,} are not kept; raise "
            "RAYSCHED_KEPT_RESULT_MAX_BYTES, or let the task write it to a file and return the path"
        )
    elif view.size > settings().inline_result_max_bytes:
        reason = (
            "the task has persist_result=False, or the result storage had no room for it or could "
            "not be written, which the run's log says"
        )
    else:
        reason = "the task has persist_result=False"
    return f"{view.key} completed, but its value was not kept: {reason}"


class TaskRuns(Sequence[TaskRun]):
    """The task runs of one task in a flow run, in order of calls; read when they are asked for."""

    def __init__(self, run: "Run", task: str, size: int) -> None:
        self._run = run
        self._task = task
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[TaskRun]:
        return self._run.task_runs(task=self._task)

    @overload
    def __getitem__(self, index: int) -> TaskRun: ...

    @overload
    def __getitem__(self, index: slice) -> list[TaskRun]: ...

    def __getitem__(self, index: int | slice) -> TaskRun | list[TaskRun]:
        positions = range(self._size)[index]
        if isinstance(positions, int):
            return next(self._run.task_runs(task=self._task, limit=1, offset=positions))
        if not positions:
            return []
        first, last = min(positions), max(positions)
        window = list(self._run.task_runs(task=self._task, limit=last - first + 1, offset=first))
        return [window[position - first] for position in positions]

    def result(self) -> list[Any]:
        """Return all values, or raise as the first task run without one does."""
        return [each.result() for each in self]

    def __repr__(self) -> str:
        return f"<{self._size:,} task runs of {self._task} in run {self._run.id[:8]}>"
