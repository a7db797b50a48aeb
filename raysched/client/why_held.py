"""What a run was at when a person, or its limit of time, stopped it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raysched.client.words import describe_error
from raysched.model.rows import GroupRow
from raysched.model.states import StateType
from raysched.model.values import FailureClass, Frame

if TYPE_CHECKING:
    from raysched.store.endings import Standing
    from raysched.store.reader import Reader
    from raysched.store.views import RunView, TaskRunView

STOPPED = frozenset({StateType.CANCELLED, StateType.TIMED_OUT})
"""States of runs that were stopped, and did not fail."""

MOST_LOOKED_AT = 100
"""Cancelled task runs of a group among which the one that was under way for longest is found."""


@dataclass(frozen=True, slots=True)
class Held:
    """Task runs of one task that were under way, or waited, when their flow run was stopped.

    Attributes:
        task: Name of the task.
        begun: How many were under way.
        waited: How many had not begun.
        sent: How many may have begun: they were dispatched, and no start is known.
        between: How many had failed, and waited for their next attempt.
        said: What the first of these had failed with, or "".
        key: Key of the one that had been under way for longest, or "".
        seconds: For how long.
        place: Where its code was, or None where that is not known.
    """

    task: str
    begun: int
    waited: int
    sent: int = 0
    between: int = 0
    said: str = ""
    key: str = ""
    seconds: float = 0.0
    place: Frame | None = None


def held_by(reader: "Reader", run: "RunView", groups: Sequence[GroupRow]) -> tuple[Held, ...]:
    """Return what was open when a run was stopped, by group, in order of calls.

    Those that were under way are counted among the first `MOST_LOOKED_AT` of a group: a run has
    no more of them at once than it has room.
    """
    cancelled = {
        each.group: each for each in reader.standings(run) if each.state is StateType.CANCELLED
    }
    return tuple(
        _held(reader, run, group, cancelled[group.id]) for group in groups if group.id in cancelled
    )


def flow_place(run: "RunView") -> Frame | None:
    """Return where the flow function was when it was stopped, or None where that is not known."""
    frames = run.error.evidence.get("frames", ()) if run.error is not None else ()
    return next((frame for frame in reversed(frames) if frame["own"]), None)


def _held(reader: "Reader", run: "RunView", group: GroupRow, cancelled: "Standing") -> Held:
    found = reader.task_runs(
        run, task=group.task, states=[StateType.CANCELLED], limit=MOST_LOOKED_AT
    )
    # A worker that is told to leave one out before it begins gives it the same start and end.
    begun = [each for each in found if each.group == group.id and 0 < each.started < each.ended]
    between = [each for each in begun if _has_failed(each)]
    under_way = [each for each in begun if not _has_failed(each)]
    error = between[0].error if between else None
    held = Held(
        group.task,
        len(under_way),
        cancelled.count - len(begun) - cancelled.sent,
        cancelled.sent,
        len(between),
        describe_error(error) if error is not None else "",
    )
    if not under_way:
        return held
    longest = max(under_way, key=_took)
    frames = longest.error.evidence.get("frames", ()) if longest.error is not None else ()
    place = next((frame for frame in reversed(frames) if frame["own"]), None)
    return replace(held, key=longest.key, seconds=_took(longest) / 10**9, place=place)


def _has_failed(view: "TaskRunView") -> bool:
    """Whether its last attempt failed, and was not interrupted."""
    error = view.error
    return error is not None and error.failure_class is not FailureClass.CANCELLED


def _took(view: "TaskRunView") -> int:
    return view.ended - view.started
