"""What follows when an attempt ends: a terminal state, or another attempt."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from raysched.graph.calls import Member
from raysched.graph.group import Group
from raysched.model.rows import FELL_BACK
from raysched.model.states import FAILED_ITSELF, FIRST_TERMINAL, SUCCESSES, StateType
from raysched.model.values import CrashKind, ErrorInfo, FailureClass
from raysched.policies.retry import NANOSECONDS, Ask, Retry, decide, told
from raysched.tracker.breaker import trip
from raysched.tracker.messages import Arguments, AskRetry, CallHooks, RecordAttempt
from raysched.tracker.run import Node, Stopping, Turn
from raysched.tracker.timers import became_ready, retry_at
from raysched.tracker.transitions import move
from raysched.tracker.variants import choose_variant, fallback_variant

HOOKS = {
    StateType.COMPLETED: "on_completion",
    StateType.CACHED: "on_completion",
    StateType.FAILED: "on_failure",
    StateType.TIMED_OUT: "on_failure",
    StateType.CRASHED: "on_crashed",
    StateType.CANCELLED: "on_cancellation",
}
"""Which of the user's hooks a terminal state calls."""


NOT_TWICE = "it may have had its effect, and is idempotent=False"
"""Why a task run that crashed is not tried again, for people."""


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
    stopping = node.stopping.pop(index, None)
    if stopping is not None:
        return _end_stopped(turn, failure, stopping)
    if group.states[index] == StateType.CANCELLING or turn.run.cancels(group):
        reason = f"cancelled by {turn.run.cancelled_by or 'the flow'}"
        if failure.state is StateType.CANCELLED:
            failure = _stopped(failure, Stopping(StateType.CANCELLED, reason))
        finish(turn, failure, reason)
        return True
    if answer is None:
        _count(turn, failure)
    if node.stopped:
        return give_up(turn, failure, node.stopped)
    infrastructure = failure.error.failure_class is FailureClass.INFRASTRUCTURE
    if infrastructure and not group.spec.idempotent:
        return give_up(turn, failure, NOT_TWICE)
    crashes = node.crashes.get(index, 0)
    decision = decide(
        (node.variants.get(index) or group.spec).retry,
        failure.error,
        failures=group.attempts[index] - group.spent(index) - crashes,
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
            return give_up(turn, failure, decision.reason)
    return False


def give_up(turn: Turn, failure: Failure, reason: str) -> bool:
    """Try a failed attempt no more; return whether its task run has ended: there may be a fallback.

    Args:
        turn: The turn.
        failure: The attempt.
        reason: Why retrying stopped, for people.
    """
    node, index = failure.node, failure.index
    group = node.group
    fallback = group.spec.fallback
    if fallback is None or index in node.fell_back:
        finish(turn, failure, reason)
        return True
    node.fell_back.add(index)
    node.expect_nothing(index)
    # It has a budget of its own.
    node.crashes.pop(index, None)
    if _has_begun(group, index):
        _record(turn, group, index, failure.state, failure.error, reason + FELL_BACK)
    if fallback.value is not None:
        group.values[index] = fallback.value
        _enter(turn, group, index, StateType.COMPLETED)
        _note_fallback(turn, node, index)
        return True
    if group.states[index] == StateType.PENDING:
        turn.run.lane(node, index).discard(node, index)
    else:
        if group.states[index] != StateType.AWAITING_RETRY:
            move(group, index, StateType.AWAITING_RETRY)
        move(group, index, StateType.PENDING)
    turn.record(group, index)
    node.variants[index] = fallback_variant(turn.run, group.spec)
    became_ready(turn, node, (index,), again=True)
    turn.run.lane(node, index).add(node, (index,))
    return False


def completed(turn: Turn, node: Node, index: int, state: StateType) -> None:
    """Enter a terminal state that has a value."""
    node.same = 0
    _enter(turn, node.group, index, state)
    if node.group.attempts[index] > 1 and _has_begun(node.group, index):
        _record(turn, node.group, index, state, None)
    if index in node.fell_back:
        _note_fallback(turn, node, index)
    undone = turn.run.undoes.get((node.group, index))
    if undone is not None:
        # In one commit: what was undone is never taken for done.
        roll_back(turn, undone)


def roll_back(turn: Turn, member: Member) -> None:
    """Mark a completed member as undone."""
    group, index = member
    if group.states[index] in SUCCESSES and index not in group.rolled_back:
        group.rolled_back.add(index)
        turn.record(group, index)


def finish(turn: Turn, failure: Failure, reason: str) -> None:
    """Enter a terminal state without a value; `reason` says why retrying stopped."""
    node, group, index = failure.node, failure.node.group, failure.index
    group.errors[index] = failure.error
    _enter(turn, group, index, failure.state)
    if _has_begun(group, index):
        _record(turn, group, index, failure.state, failure.error, reason, _arguments(group, index))
    else:
        group.reasons[index] = reason
    if failure.state in FAILED_ITSELF:
        node.own_failures += 1
        trip(turn, node)


def cancel_waiting(turn: Turn, node: Node, index: int, reason: str = "") -> None:
    """Enter CANCELLED without an attempt, or end with the attempt that is being asked about."""
    reason = reason or f"cancelled by {turn.run.cancelled_by or 'the flow'}"
    if index in node.questions:
        state, error = node.questions.pop(index)
        finish(turn, Failure(node, index, state, error), reason)
        return
    group = node.group
    group.ended[index] = turn.now
    group.errors[index] = ErrorInfo("", reason, failure_class=FailureClass.CANCELLED)
    group.reasons[index] = reason
    _enter(turn, group, index, StateType.CANCELLED)


def end_unbegun(turn: Turn, node: Node, index: int) -> bool:
    """End a member that was to stop, and has not begun; return whether it has ended."""
    stopping = node.stopping.pop(index, None)
    if stopping is None or stopping.state is StateType.CANCELLED:
        cancel_waiting(turn, node, index, stopping.reason if stopping else "")
        return True
    node.group.ended[index] = turn.now
    return _end_stopped(turn, Failure(node, index, stopping.state, ErrorInfo("", "")), stopping)


def take_back(turn: Turn, node: Node, index: int) -> None:
    """Let a member wait again that was running through no fault of its own."""
    group = node.group
    if group.states[index] == StateType.RUNNING:
        move(group, index, StateType.PENDING)
        group.started[index] = 0
        turn.record(group, index)


def note_not_begun(turn: Turn, node: Node, index: int) -> None:
    """Take back that a member may have begun that must not run twice (see `schedule`)."""
    if not node.group.spec.idempotent and node.group.states[index] < FIRST_TERMINAL:
        node.group.started[index] = 0
        turn.record(node.group, index)


def queue_again(turn: Turn, node: Node, index: int) -> None:
    """Queue a member for its next attempt, with what that one is to ask for."""
    if index in node.group.reasons:
        # Empty, not gone: what is kept of it has to be replaced.
        node.group.reasons[index] = ""
    move(node.group, index, StateType.PENDING)
    choose_variant(turn.run, node, index)
    became_ready(turn, node, (index,), again=True)
    turn.run.lane(node, index).add(node, (index,))


def _count(turn: Turn, failure: Failure) -> None:
    """Charge a failed attempt to its budget, and to its group."""
    node, index, error = failure.node, failure.index, failure.error
    if error.failure_class is FailureClass.INFRASTRUCTURE:
        node.crashes[index] = node.crashes.get(index, 0) + 1
        if error.kind == CrashKind.OUT_OF_MEMORY:
            node.memory_kills[index] = node.memory_kills.get(index, 0) + 1
    if error.fingerprint:
        same = error.fingerprint == node.last_fingerprint
        node.same = node.same + 1 if same else 1
        node.last_fingerprint = error.fingerprint
        trip(turn, node)


def _end_stopped(turn: Turn, failure: Failure, stopping: Stopping) -> bool:
    """End a member whose attempt was ended from here; return whether it has ended.

    A limit of time is a failure like others, and may have a fallback; a cancellation has none.
    """
    stopped = _stopped(failure, stopping)
    if stopping.state is StateType.CANCELLED or turn.run.cancels(failure.node.group):
        finish(turn, stopped, stopping.reason)
        return True
    return give_up(turn, stopped, stopping.reason)


def _stopped(failure: Failure, stopping: Stopping) -> Failure:
    """Return the failure of an attempt that was ended from here, with what its worker told."""
    timed_out = stopping.state is StateType.TIMED_OUT
    error = replace(
        failure.error,
        type=f"raysched.errors.{'TaskRunTimedOut' if timed_out else 'TaskRunCancelled'}",
        message=f"{failure.node.group.key(failure.index)}: {stopping.reason}",
        failure_class=FailureClass.TIMEOUT if timed_out else FailureClass.CANCELLED,
        kind=stopping.kind,
        exception=None,
    )
    return replace(failure, state=stopping.state, error=error)


def _has_begun(group: Group, index: int) -> bool:
    """Whether there was an attempt in this execution: those of earlier ones have their rows."""
    return group.attempts[index] > group.spent(index)


def _note_fallback(turn: Turn, node: Node, index: int) -> None:
    group = node.group
    fallback = group.spec.fallback
    made_by = fallback.spec.name if fallback is not None and fallback.spec is not None else ""
    group.reasons[index] = f"its fallback{f', {made_by},' if made_by else ''} took its place"
    group.handled.add(index)
    turn.record(group, index)


def _retry(turn: Turn, failure: Failure, at: int) -> None:
    node, index = failure.node, failure.index
    group = node.group
    _record(turn, group, index, failure.state, failure.error, told(failure.error))
    move(group, index, StateType.AWAITING_RETRY)
    turn.record(group, index)
    node.last_failures[index] = failure.state, failure.error
    if at <= turn.now:
        queue_again(turn, node, index)
        return
    due = datetime.fromtimestamp(at // NANOSECONDS, UTC)
    group.reasons[index] = f"next attempt at {due.isoformat()}"
    retry_at(turn.run, node, index, at)


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
    arguments: Arguments | None = None,
) -> None:
    attempt, started, ended = group.attempts[index], group.started[index], group.ended[index]
    variant = turn.run.nodes[group.id].variants.get(index)
    turn.commands.append(
        RecordAttempt(
            group, index, attempt, state, started, ended, error, reason, arguments, variant
        )
    )


def _arguments(group: Group, index: int) -> Arguments:
    payloads, columns = group.arguments_of((index,))
    row = tuple(column[0] for column in columns)
    return Arguments(group.shared, payloads[0] if payloads else b"", row)
