"""Failures of a run that look alike to people, counted by the database."""

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from raysched.client.words import OWN_FAILURES
from raysched.model.states import StateType

if TYPE_CHECKING:
    from raysched.client.run import Run
    from raysched.client.task_run import TaskRun
    from raysched.store.reader import Reader
    from raysched.store.views import RunView

MOST_LOOKED_AT = 1000
"""Task runs of a task among which those are looked for that are like the first one."""


@dataclass(frozen=True, slots=True)
class FailureKind:
    """Task runs of one task that failed themselves, with one innermost cause.

    Attributes:
        task: Name of the task.
        state: How they ended.
        reason: Why, where no attempt tells it, or "".
        type: Class of the exception with its module, or "".
        cause: Fingerprint; `CrashKind` or `TimeoutKind` value where there is none; or "".
        index: Position of the first one among the run's task runs of that task.
        count: How many.
    """

    task: str
    state: StateType
    reason: str
    type: str
    cause: str
    index: int
    count: int

    def includes(self, task_run: "TaskRun") -> bool:
        """Whether a failed task run is one of these."""
        error = task_run.error
        type_, cause = ("", "") if error is None else (error.type, error.fingerprint or error.kind)
        return (task_run.task, task_run.state.type, task_run.reason, type_, cause) == (
            self.task,
            self.state,
            self.reason,
            self.type,
            self.cause,
        )

    def some(self, run: "Run", most: int) -> "list[TaskRun]":
        """Return the first ones, at most so many: the first one, and others that are near."""
        first = run[self.task][self.index]
        near = run.task_runs(task=self.task, states=[self.state], limit=MOST_LOOKED_AT)
        alike = (each for each in near if each.index != first.index and self.includes(each))
        return [first, *islice(alike, min(most, self.count) - 1)]


def failure_kinds(reader: "Reader", run: "RunView") -> list[FailureKind]:
    """Return the kinds of failures of a run, in order of their first ones."""
    groups = {group.id: group for group in reader.groups(run)}
    kinds: dict[FailureKind, FailureKind] = {}
    for ending in reader.endings(run, OWN_FAILURES):
        if ending.state not in OWN_FAILURES:
            # Completed by its fallback.
            continue
        group = groups[ending.group]
        cause = ending.fingerprint or ending.kind
        alike = FailureKind(group.task, ending.state, ending.reason, ending.type, cause, 0, 0)
        known = kinds.get(alike)
        index = group.first + ending.first if known is None else known.index
        count = ending.count + (0 if known is None else known.count)
        kinds[alike] = replace(alike, index=index, count=count)
    return list(kinds.values())
