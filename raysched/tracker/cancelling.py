"""Ending what has not ended: because somebody wants it, or too much of its group has failed."""

from collections.abc import Callable, Iterable

from raysched.graph.group import Group
from raysched.model.states import FIRST_TERMINAL, StateType
from raysched.model.values import ErrorInfo, FailureClass
from raysched.tracker.attempts import Failure, cancel_waiting, give_up
from raysched.tracker.breaker import latest_failures
from raysched.tracker.dependencies import settle
from raysched.tracker.lanes import Lane
from raysched.tracker.messages import AbortUnit, CancelRequested, MembersCancelled
from raysched.tracker.run import Node, Stopping, Turn
from raysched.tracker.timers import forget_ended
from raysched.tracker.transitions import move


def cancel_run(turn: Turn, event: CancelRequested) -> None:
    """Account for a run that shall stop."""
    run = turn.run
    run.cancelled_by, run.aborted = event.by, event.running
    end_waiting(turn, teardowns=event.teardowns)
    if not event.running:
        return
    for number, unit in run.units.items():
        if unit.node.group.spec.teardown and not event.teardowns:
            continue
        for position in unit.open:
            node, index = unit.member(position)
            group = node.group
            if group.states[index] in {StateType.PENDING, StateType.RUNNING}:
                move(group, index, StateType.CANCELLING)
                turn.record(group, index)
        turn.commands.append(AbortUnit(number, force=event.force))


def end_waiting(turn: Turn, *, teardowns: bool = False) -> None:
    """Cancel what was not dispatched. What rides may have begun: its unit's report will tell.

    Args:
        turn: The turn.
        teardowns: Whether to cancel the teardowns, too.
    """
    run = turn.run
    dispatched = _dispatched(turn)
    ended = {
        node: [
            index
            for index, state in enumerate(node.group.states)
            if state < FIRST_TERMINAL and (node, index) not in dispatched
        ]
        for node in run.nodes.values()
        if node.open and (teardowns or not node.group.spec.teardown)
    }
    for node, indices in ended.items():
        for index in indices:
            cancel_waiting(turn, node, index)
    for lane in run.lanes.values():
        lane.remove_ended()
    forget_ended(run)
    # Only when all are marked: otherwise one would seem to have failed because of the other.
    for node, indices in ended.items():
        settle(turn, node, indices)


def cancel_members(turn: Turn, event: MembersCancelled) -> None:
    """Account for members that shall stop."""
    node = turn.run.nodes[event.group.id]
    reason = f"cancelled by {event.by}"
    stop(
        turn,
        node,
        [index for index in event.indices if event.group.states[index] < FIRST_TERMINAL],
        Stopping(StateType.CANCELLED, reason),
        lambda index: cancel_waiting(turn, node, index, reason),
    )


def stop(
    turn: Turn,
    node: Node,
    indices: Iterable[int],
    stopping: Stopping,
    end: Callable[[int], object],
) -> None:
    """End open members of a node: those that wait at once, the others by their workers.

    Args:
        turn: The turn.
        node: The node.
        indices: Which of its members.
        stopping: How the attempts end that are on their way.
        end: Ends one that waits; what it leaves open is not settled.
    """
    group, dispatched = node.group, _dispatched(turn)
    aborted: dict[int, list[int]] = {}
    ended: list[int] = []
    for index in indices:
        place = dispatched.get((node, index))
        if place is None:
            end(index)
            if group.states[index] >= FIRST_TERMINAL:
                ended.append(index)
            continue
        unit, position = place
        node.stopping[index] = stopping
        aborted.setdefault(unit, []).append(position)
        if group.states[index] in {StateType.PENDING, StateType.RUNNING}:
            move(group, index, StateType.CANCELLING)
            turn.record(group, index)
    turn.commands.extend(AbortUnit(unit, positions) for unit, positions in aborted.items())
    if ended:
        for lane in turn.run.lanes.values():
            lane.remove_ended()
        settle(turn, node, ended)


def stop_tripped(turn: Turn) -> None:
    """End what has not begun of groups of which too much has failed."""
    while turn.tripped:
        _stop_group(turn, turn.tripped.pop())


def _stop_group(turn: Turn, node: Node) -> None:
    group, dispatched = node.group, _dispatched(turn)
    open_ones = [
        index
        for index, state in enumerate(group.states)
        if state < FIRST_TERMINAL
        and (node, index) not in dispatched
        # Who waits for a fallback has failed already.
        and not (state == StateType.PENDING and index in node.fell_back)
    ]
    ended: list[int] = []
    never_begun: list[int] = []
    for index in open_ones:
        tried = node.questions.pop(index, None) or node.last_failures.get(index)
        if tried is None:
            never_begun.append(index)
        elif give_up(turn, Failure(node, index, *tried), node.stopped):
            ended.append(index)
    roots = tuple((group, index) for index in latest_failures(node))
    for index in never_begun:
        group.roots[index] = roots
        group.errors[index] = _not_begun(group, index, node.stopped)
        group.reasons[index] = node.stopped
        group.ended[index] = turn.now
        move(group, index, StateType.UPSTREAM_FAILED)
    for lane in turn.run.lanes.values():
        lane.remove_ended()
    settle(turn, node, ended + never_begun)


def end_escalated(turn: Turn, lane: Lane) -> None:
    """End members that were killed for memory, and now ask for more than any node has.

    Whoever asks for that from the beginning waits, since clusters grow. Here it is an answer to a
    failure, which would otherwise never be told.
    """
    ended: dict[Node, list[int]] = {}
    for node, index in list(lane.waiting()):
        tried = node.last_failures.get(index)
        if tried is None or index not in node.memory_kills or index in node.fell_back:
            continue
        reason = f"out of memory, and there is no more of it: it needs {lane.lacking}"
        if give_up(turn, Failure(node, index, *tried), reason):
            ended.setdefault(node, []).append(index)
    lane.remove_ended()
    for node, indices in ended.items():
        settle(turn, node, indices)


def _not_begun(group: Group, index: int, reason: str) -> ErrorInfo:
    message = f"{group.key(index)} did not run: {reason}"
    return ErrorInfo("raysched.errors.UpstreamFailed", message, failure_class=FailureClass.UPSTREAM)


def _dispatched(turn: Turn) -> dict[tuple[Node, int], tuple[int, int]]:
    """Return where each member is that is in a unit: the unit's number, and its position there."""
    return {
        unit.member(position): (number, position)
        for number, unit in turn.run.units.items()
        for position in unit.open
    }
