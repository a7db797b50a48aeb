"""Computing values again that were lost with the node that held them.

It changes no state: what completed stays completed, and its new attempt is marked as what it is.
"""

from dataclasses import dataclass

from raysched.graph.group import Group
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import (
    CrashKind,
    ErrorInfo,
    FailureClass,
    StoredValue,
    UnkeptValue,
    Value,
)
from raysched.tracker.attempts import (
    Failure,
    end_unbegun,
    finish,
    note_not_begun,
    take_back,
)
from raysched.tracker.dependencies import settle
from raysched.tracker.messages import InputsLost, RecordAttempt, ValueLost
from raysched.tracker.run import Node, Turn
from raysched.tracker.transitions import move
from raysched.tracker.triggering import lacks_setup

AGAIN = "its value was lost with its node and computed again"
"""What the row of an attempt says that was made for nothing but its value."""

UNKEPT = "its value had not been kept and was computed again"
"""The same, of a value that an earlier execution has not kept."""

DAMAGED = "its stored value was missing or damaged and was computed again"
"""The same, of a value that the result storage does not have any more."""


_SETUP_FAILED = ErrorInfo("raysched.errors.UpstreamFailed", "its setup failed")


@dataclass(frozen=True, slots=True)
class Recomputed:
    """How an attempt ended that was made for nothing but its value.

    Attributes:
        state: Its terminal state.
        started: When it began (ns).
        ended: When it ended (ns).
        value: Its value, if it has one.
        error: What is known about its failure.
    """

    state: StateType
    started: int
    ended: int
    value: Value | None = None
    error: ErrorInfo | None = None


def value_lost(turn: Turn, event: ValueLost) -> None:
    """Account for a value that the flow asked for, and that is lost."""
    _compute_again(turn, turn.run.nodes[event.group.id], event.index)


def inputs_lost(turn: Turn, event: InputsLost) -> None:
    """Account for a unit that did not begin, since values that it needs are lost.

    Its members wait until these have been computed again, and are charged with nothing.
    """
    run = turn.run
    unit = run.units[event.unit]
    waiting: set[tuple[Node, int]] = set()
    for position in sorted(unit.open):
        node, index = unit.member(position)
        take_back(turn, node, index)
        state = node.group.states[index]
        node.group.attempts[index] -= 1
        note_not_begun(turn, node, index)
        node.riding.discard(index)
        cancelled = run.cancels(node.group) and state == StateType.PENDING
        if state == StateType.CANCELLING or cancelled:
            if end_unbegun(turn, node, index):
                settle(turn, node, (index,))
        elif state == StateType.PENDING or index in node.recomputing:
            waiting.add((node, index))
    unit.open.clear()
    for group, index in event.values:
        parent = run.nodes[group.id]
        # Some may have crashed, because the value before this one cannot be had any more.
        left = {(node, member) for node, member in waiting if _still_waits(node, member)}
        for node, member in left:
            node.lacking.setdefault(member, set()).add((parent, index))
        parent.recomputing.setdefault(index, set()).update(left)
        _compute_again(turn, parent, index)


def recomputed(turn: Turn, node: Node, index: int, outcome: Recomputed) -> None:
    """Account for an attempt that was made for nothing but its value."""
    group, error = node.group, outcome.error
    attempt, started, ended = group.attempts[index], outcome.started, outcome.ended
    turn.commands.append(
        RecordAttempt(
            group, index, attempt, outcome.state, started, ended, error, _why(group.values[index])
        )
    )
    turn.record(group, index)
    if outcome.state in SUCCESSES:
        group.values[index] = outcome.value
        node.computing.discard(index)
        for child, member in node.recomputing.pop(index):
            lacking = child.lacking[member]
            lacking.discard((node, index))
            if lacking:
                continue
            del child.lacking[member]
            if _still_waits(child, member):
                turn.run.lane(child, member).add(child, (member,))
    elif error is not None and error.failure_class is FailureClass.INFRASTRUCTURE:
        node.computing.discard(index)
        _compute_again(turn, node, index)
    else:
        _give_up(turn, node, index, error)


def give_up_unmakable(turn: Turn) -> None:
    """Let those crash that wait for values which need a setup that failed."""
    while turn.unmakable:
        node, index = turn.unmakable.pop()
        if index in node.computing:
            _give_up(turn, node, index, _SETUP_FAILED)


def _still_waits(node: Node, index: int) -> bool:
    """Whether a member that is not queued has not ended otherwise meanwhile."""
    return node.group.states[index] == StateType.PENDING or index in node.recomputing


def _compute_again(turn: Turn, node: Node, index: int) -> None:
    """Queue a completed member, unless it is on its way, or has been lost too often."""
    node.recomputing.setdefault(index, set())
    if index in node.computing:
        return
    spec = node.group.spec
    # Who has to make a value for the first time has not lost any yet.
    allowed = max(spec.retry.crash_retries, isinstance(node.group.values[index], UnkeptValue))
    if node.losses.get(index, 0) >= allowed or not spec.idempotent:
        _give_up(turn, node, index, None if spec.idempotent else _not_twice(node.group, index))
        return
    if lacks_setup(node.group, index):
        _give_up(turn, node, index, _SETUP_FAILED)
        return
    node.losses[index] = node.losses.get(index, 0) + 1
    node.computing.add(index)
    if not node.waiting[index]:
        turn.run.lane(node, index).add(node, (index,))
    # Otherwise what sets up for it runs again first; see `triggering.begin`.


def _why(value: Value | None) -> str:
    if isinstance(value, UnkeptValue):
        return UNKEPT
    return DAMAGED if isinstance(value, StoredValue) else AGAIN


def _where(value: Value | None) -> str:
    if isinstance(value, UnkeptValue):
        return "not kept"
    return "lost in the result storage" if isinstance(value, StoredValue) else "lost with its node"


def _not_twice(group: Group, index: int) -> ErrorInfo:
    message = f"{group.key(index)} must not run again: its task is idempotent=False"
    return ErrorInfo("raysched.errors.NotResumable", message)


def _give_up(turn: Turn, node: Node, index: int, error: ErrorInfo | None) -> None:
    """Let those crash that wait for a value which cannot be had any more."""
    why = f": {error.type.rpartition('.')[2]}: {error.message}" if error else ""
    group = node.group
    key = group.key(index)
    lost = ErrorInfo(
        "raysched.errors.ResultLost",
        f"the value of {key} was {_where(group.values[index])}, and cannot be computed again{why}",
        failure_class=FailureClass.INFRASTRUCTURE,
        kind=CrashKind.OBJECT_LOST,
    )
    node.computing.discard(index)
    waiting = node.recomputing.pop(index)
    for child, member in waiting:
        child.lacking[member].discard((node, index))
        child.expect_nothing(member)
        if member in child.recomputing:
            _give_up(turn, child, member, lost)
        elif child.group.states[member] == StateType.PENDING:
            move(child.group, member, StateType.RUNNING)
            child.group.started[member] = child.group.ended[member] = turn.now
            failure = Failure(child, member, StateType.CRASHED, lost)
            finish(turn, failure, "what it needs cannot be computed again")
            settle(turn, child, (member,))
