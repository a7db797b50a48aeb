"""What follows when an attempt ends: a terminal state, or another attempt."""

from dataclasses import dataclass
from heapq import heappop, heappush

from raysched.graph.group import Group
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, FailureClass
from raysched.policies.retry import Ask, Retry, decide
from raysched.tracker.messages import AskRetry, CallHooks, RecordAttempt
from raysched.tracker.run import Node, Turn
from raysched.tracker.transitions import move

HOOKS = {
    StateType.COMPLETED: "on_completion",
    StateType.CACHED: "on_completion",
    StateType.FAILED: "on_failure",
    StateType.TIMED_OUT: "on_failure",
    StateType.CRASHED: "on_crashed",
    StateType.CANCELLED: "on_cancellation",
}
"""Which of the user's hooks a terminal state calls."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that did not succeed.

    Attributes:
        node: Whose member.
        index: Which member.
        state: How the attempt ended.
        error: What is known about it.
    """

    node: Node
    index: int
    state: StateType
    error: ErrorInfo


def failed(turn: Turn, failure: Failure, *, answer: bool | None = None) -> bool:
    """Decide what follows a failed attempt; return whether its task run has ended.

    Args:
        turn: The turn.
        failure: The attempt.
        answer: What `retry_condition_fn` said about it, or None if it was not asked.
    """
    node, index = failure.node, failure.index
    group = node.group
    if group.states[index] == StateType.CANCELLING or turn.run.cancelled_by:
        finish(turn, failure, f"cancelled by {turn.run.cancelled_by or 'the flow'}")
        return True
    infrastructure = failure.error.failure_class is FailureClass.INFRASTRUCTURE
    crashes = node.crashes.get(index, 0) + (infrastructure and answer is None)
    if crashes:
        node.crashes[index] = crashes
    decision = decide(
        group.spec.retry,
        failure.error.failure_class,
        failures=group.attempts[index] - crashes,
        crashes=crashes,
        answer=answer,
        seed=f"{turn.run.id}/{group.key(index)}",
        now=turn.now,
    )
    match decision:
        case Ask():
            node.questions[index] = failure.state, failure.error
            turn.commands.append(
                AskRetry(group, index, group.attempts[index], failure.state, failure.error)
            )
        case Retry(at):
            _retry(turn, failure, at)
        case _:
            finish(turn, failure, decision.reason)
            return True
    return False


def completed(turn: Turn, node: Node, index: int, state: StateType) -> None:
    """Enter a terminal state that has a value."""
    _enter(turn, node.group, index, state)
    if node.group.attempts[index] > 1:
        _record(turn, node.group, index, state, None)


def finish(turn: Turn, failure: Failure, reason: str) -> None:
    """Enter a terminal state without a value; `reason` says why retrying stopped."""
    group, index = failure.node.group, failure.index
    group.errors[index] = failure.error
    _enter(turn, group, index, failure.state)
    if group.attempts[index]:
        _record(turn, group, index, failure.state, failure.error, reason)


def cancel_waiting(turn: Turn, node: Node, index: int) -> None:
    """Enter CANCELLED without an attempt, or end with the attempt that is being asked about."""
    by = f"cancelled by {turn.run.cancelled_by or 'the flow'}"
    if index in node.questions:
        state, error = node.questions.pop(index)
        finish(turn, Failure(node, index, state, error), by)
        return
    group = node.group
    group.ended[index] = turn.now
    group.errors[index] = ErrorInfo("", by, failure_class=FailureClass.CANCELLED)
    _enter(turn, group, index, StateType.CANCELLED)


def due(turn: Turn) -> None:
    """Queue the task runs whose time to be retried has come."""
    timers = turn.run.timers
    while timers and timers[0][0] <= turn.now:
        _, group_id, index = heappop(timers)
        _queue(turn, turn.run.nodes[group_id], index)


def _retry(turn: Turn, failure: Failure, at: int) -> None:
    node, index = failure.node, failure.index
    group = node.group
    _record(turn, group, index, failure.state, failure.error)
    move(group, index, StateType.AWAITING_RETRY)
    turn.record(group, index)
    if at <= turn.now:
        _queue(turn, node, index)
        return
    heappush(turn.run.timers, (at, group.id, index))


def _queue(turn: Turn, node: Node, index: int) -> None:
    move(node.group, index, StateType.PENDING)
    turn.run.lane(node).add(node, (index,))


def _enter(turn: Turn, group: Group, index: int, state: StateType) -> None:
    move(group, index, state)
    kind = HOOKS.get(state)
    if kind and getattr(group.spec.hooks, kind):
        turn.commands.append(CallHooks(group, index, kind))


def _record(  # noqa: PLR0913, PLR0917 - the columns of one row
    turn: Turn,
    group: Group,
    index: int,
    state: StateType,
    error: ErrorInfo | None,
    reason: str = "",
) -> None:
    attempt, started, ended = group.attempts[index], group.started[index], group.ended[index]
    turn.commands.append(RecordAttempt(group, index, attempt, state, started, ended, error, reason))
