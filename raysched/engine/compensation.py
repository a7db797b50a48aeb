"""Undoing what completed in a flow run that has failed for good: `compensate=`, last first."""

from typing import TYPE_CHECKING, Any

from raysched import faults
from raysched.define.annotations import Allowed
from raysched.define.futures import TaskFuture
from raysched.graph.calls import Call, Member
from raysched.model.states import SUCCESSES, StateType
from raysched.tracker import Run
from raysched.tracker.messages import CompensationPlanned, FlowRestarted

if TYPE_CHECKING:
    from raysched.engine.flow_run import OpenFlowRun


class Compensation:
    """Runs the compensations of a flow run as task runs of it, one after the other.

    Each gets the value of what it undoes, by reference, and waits for the one before, whatever
    became of that: so all are tried. When one completes, the same commit marks what it undid as
    rolled back.

    Args:
        run: The flow run; all of its task runs have ended.
    """

    def __init__(self, run: "OpenFlowRun") -> None:
        self._run = run
        self._pairs: list[tuple[Member, Member]] = []
        self._begun = False

    @staticmethod
    def is_needed(run: Run) -> bool:
        """Whether something completed that is to be undone."""
        return bool(_to_undo(run))

    def begin(self) -> None:
        """Record the compensations; within a turn."""
        faults.reach("compensation: before")
        run = self._run
        # Whoever cancelled the rest has not cancelled this.
        run.host.advance(run, FlowRestarted())
        last: tuple[Allowed, ...] = ()
        for undone in _to_undo(run.tracker):
            spec = undone[0].spec.compensate
            assert spec is not None  # noqa: S101 - that is what is looked for
            value: TaskFuture[Any] = TaskFuture(run, *undone)
            call = Call(spec, (value,), {}, {"value": value}, last, spec.tags)
            member = run.builder.add_call(call)
            run.host.advance(run, CompensationPlanned(member, undone))
            self._pairs.append((member, undone))
            last = (Allowed(TaskFuture(run, *member)),)
        run.host.compile(run)
        self._begun = True

    def is_over(self) -> bool:
        """Whether all of them have ended, visibly."""
        return self._begun and self._run.settled()

    def summary(self) -> str:
        """Return what was undone and what was not, for people."""
        left = [
            f"{undone.key(member)} ({group.key(index)} {StateType(group.states[index]).name})"
            for (group, index), (undone, member) in self._pairs
            if group.states[index] not in SUCCESSES
        ]
        number = len(self._pairs)
        text = f"{number - len(left)} of {number} rolled back"
        return f"{text}, not {', '.join(left)}" if left else text


def _to_undo(run: Run) -> list[Member]:
    """Return what completed and can be undone, in the reverse order of its end."""
    members = [
        (node.group, index)
        for node in run.nodes.values()
        if node.group.spec.compensate is not None
        for index, state in enumerate(node.group.states)
        if state in SUCCESSES and index not in node.group.rolled_back
    ]
    return sorted(members, key=lambda member: (-member[0].ended[member[1]], -member[1]))
