"""What follows when a time has come: a retry, or the end of what took too long."""

from heapq import heappop

from raysched.model.states import FIRST_TERMINAL, StateType
from raysched.model.values import ErrorInfo, FailureClass, TimeoutKind
from raysched.tracker.attempts import Failure, give_up, queue_again
from raysched.tracker.cancelling import stop
from raysched.tracker.run import Node, Stopping, Turn
from raysched.tracker.timers import NANOSECONDS, Due


def due(turn: Turn) -> None:
    """Do what is due."""
    timers = turn.run.timers
    while timers and timers[0][0] <= turn.now:
        _, what, group_id, start, end = heappop(timers)
        node = turn.run.nodes[group_id]
        match what:
            case Due.RETRY:
                # What was stopped while it waited has ended.
                if node.group.states[start] == StateType.AWAITING_RETRY:
                    queue_again(turn, node, start)
            case Due.QUEUE_TIMEOUT:
                _end_queued(turn, node, range(start, end))
            case _:
                _end_late(turn, node, range(start, end))


def _end_queued(turn: Turn, node: Node, members: range) -> None:
    limit, ready_at = node.group.spec.queue_timeout_seconds, node.ready_at
    assert limit is not None  # noqa: S101 - or there would be no timer
    assert ready_at is not None  # noqa: S101 - as above
    before = turn.now - int(limit * NANOSECONDS)
    late: dict[str, list[int]] = {}
    for index in members:
        if node.group.states[index] == StateType.PENDING and ready_at[index] <= before:
            late.setdefault(turn.run.lane(node, index).lacking, []).append(index)
    for lacking, indices in late.items():
        why = f": it needs {lacking}" if lacking else ""
        reason = f"queue_timeout_seconds={limit:g} passed{why}"
        _time_out(turn, node, indices, TimeoutKind.QUEUED, reason)


def _end_late(turn: Turn, node: Node, members: range) -> None:
    limit = node.group.spec.total_timeout_seconds
    late = [
        index
        for index in members
        if node.group.states[index] < FIRST_TERMINAL and index not in node.stopping
    ]
    _time_out(turn, node, late, TimeoutKind.TOTAL, f"total_timeout_seconds={limit:g} passed")


def _time_out(turn: Turn, node: Node, late: list[int], kind: TimeoutKind, reason: str) -> None:
    group = node.group
    if not late:
        return

    def end(index: int) -> None:
        tried = node.questions.pop(index, None) or node.last_failures.get(index)
        last = tried[1] if tried else None
        before = f"; the last attempt failed with {last.type}: {last.message}" if last else ""
        error = ErrorInfo(
            "raysched.errors.TaskRunTimedOut",
            f"{group.key(index)}: {reason}{before}",
            failure_class=FailureClass.TIMEOUT,
            kind=kind,
            evidence=last.evidence if last else {},
        )
        group.ended[index] = turn.now
        give_up(turn, Failure(node, index, StateType.TIMED_OUT, error), reason)

    stop(turn, node, late, Stopping(StateType.TIMED_OUT, reason, kind), end)
