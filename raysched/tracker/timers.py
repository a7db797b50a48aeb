"""What shall happen at a time: timers of retries and of limits of time."""

from array import array
from collections.abc import Sequence
from enum import IntEnum
from heapq import heapify, heappush

from raysched.model.states import FIRST_TERMINAL
from raysched.tracker.run import Node, Run, Turn

NANOSECONDS = 1_000_000_000


class Due(IntEnum):
    """What a timer is for."""

    RETRY = 0
    QUEUE_TIMEOUT = 1
    TOTAL_TIMEOUT = 2


def retry_at(run: Run, node: Node, index: int, at: int) -> None:
    """Have a member queued again at a time (ns)."""
    heappush(run.timers, (at, Due.RETRY, node.group.id, index, index + 1))


def became_ready(turn: Turn, node: Node, members: Sequence[int], *, again: bool = False) -> None:
    """Begin to measure how long members wait in a queue, and in all.

    Args:
        turn: The turn.
        node: Whose members.
        members: Those that can run from now on.
        again: Whether they have been tried before.
    """
    spec = node.group.spec
    if spec.queue_timeout_seconds is not None:
        if node.ready_at is None:
            node.ready_at = array("q", bytes(8 * node.group.size))
        for index in members:
            node.ready_at[index] = turn.now
        _push(turn, node, members, Due.QUEUE_TIMEOUT, spec.queue_timeout_seconds)
    if spec.total_timeout_seconds is not None and not again:
        _push(turn, node, members, Due.TOTAL_TIMEOUT, spec.total_timeout_seconds)


def forget_ended(run: Run) -> None:
    """Remove the timers of members that have ended."""
    run.timers = [
        (at, what, group, start, stop)
        for at, what, group, start, stop in run.timers
        if min(run.nodes[group].group.states[start:stop]) < FIRST_TERMINAL
    ]
    heapify(run.timers)


def _push(turn: Turn, node: Node, members: Sequence[int], what: Due, seconds: float) -> None:
    at = turn.now + int(seconds * NANOSECONDS)
    adjacent = isinstance(members, range)
    parts = [members] if adjacent else [range(index, index + 1) for index in members]
    for part in parts:
        heappush(turn.run.timers, (at, what, node.group.id, part[0], part[-1] + 1))
