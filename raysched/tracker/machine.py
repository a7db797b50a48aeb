"""`advance`: the one way in which a run changes."""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from raysched.errors import InternalError
from raysched.model.states import FAILURES, FIRST_TERMINAL, SUCCESSES, StateType
from raysched.model.values import ErrorInfo, FailureClass, LargeValue
from raysched.tracker.attempts import Failure, cancel_waiting, completed, due, failed, finish
from raysched.tracker.dependencies import join, settle
from raysched.tracker.messages import (
    AbortUnit,
    CallHooks,
    CancelRequested,
    CapacityKnown,
    Command,
    Event,
    FailuresHandled,
    FlowRestarted,
    RetryAnswered,
    SegmentPlanned,
    TimePassed,
    UnitEnded,
    UnitHandedBack,
    UnitLost,
    UnitStarted,
)
from raysched.tracker.run import Node, Part, Run, Turn, Unit
from raysched.tracker.schedule import ask_to_be_woken, dispatch, hold_places, learn, woken
from raysched.tracker.transitions import move, move_all

_CLASSES = {
    StateType.TIMED_OUT: FailureClass.TIMEOUT,
    StateType.CRASHED: FailureClass.INFRASTRUCTURE,
    StateType.CANCELLED: FailureClass.CANCELLED,
}
"""Classes of failures about which nothing else is known."""

_BEGUN = bytes(StateType.RUNNING if state == StateType.PENDING else state for state in range(256))
"""Translates the states of members before they end: who ends has begun."""


def advance(run: Run, event: Event, now: int) -> list[Command]:
    """Account for what happened; return what shall be done.

    Args:
        run: The run, changed in place.
        event: What happened. Repeated and late events change nothing.
        now: The time (ns since the epoch).

    Raises:
        IllegalTransition: The event contradicts what is known.
    """
    turn = Turn(run, now)
    _HANDLERS[type(event)](turn, event)
    dispatch(turn)
    ask_to_be_woken(turn)
    return turn.finish()


def _segment_planned(turn: Turn, event: SegmentPlanned) -> None:
    run = turn.run
    for planned in event.plan:
        if planned.group.id in run.nodes:
            message = f"group {planned.group.id} of run {run.id} was planned twice"
            raise InternalError(message)
        run.nodes[planned.group.id] = Node(planned)
        run.add_lane(planned)
    join(turn, [run.nodes[planned.group.id] for planned in event.plan])
    if run.cancelled_by:
        _cancel_waiting(turn, riding=False)


def _unit_started(turn: Turn, event: UnitStarted) -> None:
    unit = turn.run.units.get(event.unit)
    if unit is None:
        turn.run.late += 1
        return
    for position in event.positions:
        if position in unit.open:
            _start(turn, unit, position, event.at)


def _start(turn: Turn, unit: Unit, position: int, at: int) -> None:
    node, index = unit.member(position)
    group = node.group
    unit.began = unit.began or at
    if group.states[index] != StateType.PENDING:
        return
    move(group, index, StateType.RUNNING)
    group.started[index] = at
    turn.record(group, index)
    if group.spec.hooks.on_running and index not in node.announced:
        node.announced.add(index)
        turn.commands.append(CallHooks(group, index, "on_running"))


def _unit_ended(turn: Turn, event: UnitEnded) -> None:
    run = turn.run
    unit = run.units.get(event.unit)
    if unit is None:
        run.late += len(event.positions)
        return
    for part, columns in _by_part(unit, event):
        if _is_uneventful(unit, part, columns):
            _end_uneventfully(turn, unit, part, columns)
        else:
            _end_one_by_one(turn, unit, columns)
    _release(turn, event.unit)


def _by_part(unit: Unit, event: UnitEnded) -> Iterator[tuple[Part, UnitEnded]]:
    """Cut an event into those of the unit's parts, what is needed before what needs it."""
    positions = event.positions
    if len(unit.parts) == 1 or not isinstance(positions, range):
        yield unit.parts[0], event
        return
    for part in unit.parts:
        start = max(positions.start, part.first)
        stop = min(positions.stop, part.first + len(part.indices))
        if start < stop:
            cut = slice(start - positions.start, stop - positions.start)
            yield (
                part,
                replace(
                    event,
                    positions=range(start, stop),
                    states=event.states[cut],
                    started=event.started[cut],
                    ended=event.ended[cut],
                    values=event.values[cut],
                ),
            )


def _is_uneventful(unit: Unit, part: Part, event: UnitEnded) -> bool:
    """Whether adjacent members have completed at their first attempt, and nobody has to be told."""
    positions, node = event.positions, part.node
    hooks = node.group.spec.hooks
    return (
        isinstance(positions, range)
        and isinstance(part.indices, range)
        and (part.first == 0 or part.node is not unit.node)
        and positions.stop <= part.first + len(part.indices)
        and unit.first
        and not event.errors
        and not event.large
        and event.states.count(StateType.COMPLETED) == len(positions)
        and not (hooks.on_completion or hooks.on_running)
        and unit.open.issuperset(positions)
        and max(node.group.states[part.indices[0] : part.indices[-1] + 1]) < FIRST_TERMINAL
    )


def _end_uneventfully(turn: Turn, unit: Unit, part: Part, event: UnitEnded) -> None:
    """Do as `_end_one_by_one`, for all members at once."""
    node, group, positions = part.node, part.node.group, event.positions
    indices = part.indices[positions[0] - part.first : positions[-1] - part.first + 1]
    column = slice(indices[0], indices[-1] + 1)
    group.states[column] = group.states[column].translate(_BEGUN)
    move_all(group, indices, StateType.COMPLETED)
    group.started[column] = array("q", event.started)
    group.ended[column] = array("q", event.ended)
    group.values[column] = event.values
    for position, name in event.names.items():
        if position in positions:
            group.names[part.indices[position - part.first]] = name
    unit.began = unit.began or event.started[0]
    unit.ended = event.ended[-1]
    unit.count += len(positions)
    unit.open.difference_update(positions)
    node.riding.difference_update(indices)
    settle(turn, node, indices)


def _end_one_by_one(turn: Turn, unit: Unit, event: UnitEnded) -> None:
    run = turn.run
    settled: list[int] = []
    for column, position in enumerate(event.positions):
        if position not in unit.open:
            run.late += 1
            continue
        node, index = unit.member(position)
        group = node.group
        unit.open.discard(position)
        node.riding.discard(index)
        if group.states[index] >= FIRST_TERMINAL:
            # It rode, and ended with what it needed or was cancelled before it began.
            run.late += 1
            continue
        _start(turn, unit, position, event.started[column])
        group.started[index] = event.started[column]
        group.ended[index] = unit.ended = event.ended[column]
        unit.count += 1
        if position in event.names:
            group.names[index] = event.names[position]
        state = StateType(event.states[column])
        if state in SUCCESSES:
            value = group.values[index] = event.values[column]
            if isinstance(value, LargeValue):
                run.pace(node).large = True
            completed(turn, node, index, state)
            settled.append(index)
        elif _ended_badly(turn, node, index, state, event.errors.get(position)):
            settled.append(index)
        if settled and len(unit.parts) > 1:
            # What rides behind it may come next.
            settle(turn, node, settled)
            settled = []
    if settled:
        settle(turn, unit.node, settled)


def _ended_badly(
    turn: Turn, node: Node, index: int, state: StateType, error: ErrorInfo | None
) -> bool:
    error = error or ErrorInfo("", "", failure_class=_CLASSES.get(state, FailureClass.USER))
    failure = Failure(node, index, state, error)
    if state is StateType.SKIPPED:
        finish(turn, failure, "")
        return True
    return failed(turn, failure)


def _unit_lost(turn: Turn, event: UnitLost) -> None:
    run = turn.run
    unit = run.units.get(event.unit)
    if unit is None:
        run.late += 1
        return
    cancelled = event.error.failure_class is FailureClass.CANCELLED
    suspects = len(unit.open) > 1 and not cancelled
    for position in sorted(unit.open):
        node, index = unit.member(position)
        group = node.group
        stopping = cancelled or group.states[index] == StateType.CANCELLING
        if _still_needs(node, index):
            _get_off(node, index)
            continue
        node.riding.discard(index)
        if suspects and not stopping and not run.cancelled_by:
            _run_alone(turn, node, index)
            continue
        state = StateType.CANCELLED if suspects or stopping else StateType.CRASHED
        if state is StateType.CRASHED and group.states[index] == StateType.PENDING:
            # Nobody has told that it began, so its hooks are not called.
            move(group, index, StateType.RUNNING)
            group.started[index] = unit.began or turn.now
        group.ended[index] = turn.now
        if failed(turn, Failure(node, index, state, event.error)):
            settle(turn, node, (index,))
    unit.open.clear()
    _release(turn, event.unit)


def _still_needs(node: Node, index: int) -> bool:
    """Whether a member rode behind one that has not ended, or has ended itself with that one."""
    return node.group.states[index] == StateType.SCHEDULED or (
        node.group.states[index] >= FIRST_TERMINAL
    )


def _get_off(node: Node, index: int) -> None:
    """Take back the attempt of a member that rode and did not begin."""
    if index in node.riding:
        node.riding.discard(index)
        node.group.attempts[index] -= 1


def _unit_handed_back(turn: Turn, event: UnitHandedBack) -> None:
    run = turn.run
    unit = run.units.get(event.unit)
    if unit is None:
        run.late += len(event.positions)
        return
    again: dict[Node, list[int]] = {}
    for position in event.positions:
        if position not in unit.open:
            run.late += 1
            continue
        unit.open.discard(position)
        node, index = unit.member(position)
        if _still_needs(node, index):
            _get_off(node, index)
            if run.cancelled_by and node.group.states[index] < FIRST_TERMINAL:
                cancel_waiting(turn, node, index)
                settle(turn, node, (index,))
            continue
        node.riding.discard(index)
        node.group.attempts[index] -= 1
        if run.cancelled_by or node.group.states[index] == StateType.CANCELLING:
            cancel_waiting(turn, node, index)
            settle(turn, node, (index,))
        else:
            again.setdefault(node, []).append(index)
    for node, indices in again.items():
        run.lane(node).add_first(node, indices)
    _release(turn, event.unit)


def _run_alone(turn: Turn, node: Node, index: int) -> None:
    """Queue a member again whose worker died under several: only the guilty one is charged.

    What is queued by itself is dispatched by itself.
    """
    group = node.group
    node.suspects.add(index)
    group.attempts[index] -= 1
    if group.states[index] == StateType.RUNNING:
        move(group, index, StateType.PENDING)
        group.started[index] = 0
        turn.record(group, index)
    turn.run.lane(node).add(node, (index,))


def _retry_answered(turn: Turn, event: RetryAnswered) -> None:
    node = turn.run.nodes[event.group.id]
    if event.group.attempts[event.index] != event.attempt or event.index not in node.questions:
        turn.run.late += 1
        return
    state, error = node.questions.pop(event.index)
    failure = Failure(node, event.index, state, error)
    if failed(turn, failure, answer=event.retry):
        settle(turn, node, (event.index,))


def _time_passed(turn: Turn, event: TimePassed) -> None:
    woken(turn.run, event.at)
    due(turn)


def _capacity_known(turn: Turn, event: CapacityKnown) -> None:
    for lane in turn.run.lanes.values():
        if lane.scheduling_class == event.scheduling_class:
            lane.slots = event.slots


def _failures_handled(turn: Turn, event: FailuresHandled) -> None:
    for index in event.indices:
        if event.group.states[index] in FAILURES and index not in event.group.handled:
            event.group.handled.add(index)
            turn.record(event.group, index)


def _cancel_requested(turn: Turn, event: CancelRequested) -> None:
    run = turn.run
    run.cancelled_by = event.by
    _cancel_waiting(turn, riding=event.running)
    if not event.running:
        return
    for number, unit in run.units.items():
        for position in unit.open:
            node, index = unit.member(position)
            group = node.group
            if group.states[index] in {StateType.PENDING, StateType.RUNNING}:
                move(group, index, StateType.CANCELLING)
                turn.record(group, index)
        turn.commands.append(AbortUnit(number, event.force))


def _flow_restarted(turn: Turn, _: FlowRestarted) -> None:
    turn.run.cancelled_by = ""


def _cancel_waiting(turn: Turn, *, riding: bool) -> None:
    """Cancel what was not dispatched and, with `riding`, what rides and has not begun."""
    run = turn.run
    dispatched = {unit.member(position) for unit in run.units.values() for position in unit.open}
    if riding:
        dispatched = {
            (node, index)
            for node, index in dispatched
            if index not in node.riding or node.group.states[index] != StateType.SCHEDULED
        }
    for lane in run.lanes.values():
        lane.clear()
    run.timers.clear()
    ended = {
        node: [
            index
            for index, state in enumerate(node.group.states)
            if state < FIRST_TERMINAL and (node, index) not in dispatched
        ]
        for node in run.nodes.values()
        if node.open
    }
    for node, indices in ended.items():
        for index in indices:
            _get_off(node, index)
            cancel_waiting(turn, node, index)
    # Only when all are marked: otherwise one would seem to have failed because of the other.
    for node, indices in ended.items():
        settle(turn, node, indices)


def _release(turn: Turn, number: int) -> None:
    """Account for members that have left a unit, and for its end if they were the last."""
    unit = turn.run.units[number]
    hold_places(turn.run, unit)
    if unit.open:
        return
    del turn.run.units[number]
    turn.run.lane(unit.node).units -= 1
    if unit.began and unit.ended:
        learn(turn.run, unit)


_HANDLERS: dict[type[Event], Callable[[Turn, Any], None]] = {
    SegmentPlanned: _segment_planned,
    CapacityKnown: _capacity_known,
    UnitStarted: _unit_started,
    UnitEnded: _unit_ended,
    UnitLost: _unit_lost,
    UnitHandedBack: _unit_handed_back,
    RetryAnswered: _retry_answered,
    FailuresHandled: _failures_handled,
    CancelRequested: _cancel_requested,
    FlowRestarted: _flow_restarted,
    TimePassed: _time_passed,
}
