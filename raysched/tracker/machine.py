"""`advance`: the one way in which a run changes."""

from array import array
from collections.abc import Callable
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
from raysched.tracker.run import Node, Run, Turn, Unit
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
        _cancel_waiting(turn)


def _unit_started(turn: Turn, event: UnitStarted) -> None:
    unit = turn.run.units.get(event.unit)
    if unit is None:
        turn.run.late += 1
        return
    for position in event.positions:
        if position in unit.open:
            _start(turn, unit, position, event.at)


def _start(turn: Turn, unit: Unit, position: int, at: int) -> None:
    node, group, index = unit.node, unit.node.group, unit.indices[position]
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
    if _is_uneventful(unit, event):
        _end_uneventfully(turn, unit, event)
    else:
        _end_one_by_one(turn, unit, event)
    _release(turn, event.unit)


def _is_uneventful(unit: Unit, event: UnitEnded) -> bool:
    """Whether adjacent members have completed at their first attempt, and nobody has to be told."""
    positions, hooks = event.positions, unit.node.group.spec.hooks
    return (
        isinstance(positions, range)
        and isinstance(unit.indices, range)
        and unit.first
        and not event.errors
        and not event.large
        and event.states.count(StateType.COMPLETED) == len(positions)
        and not (hooks.on_completion or hooks.on_running)
        and unit.open.issuperset(positions)
    )


def _end_uneventfully(turn: Turn, unit: Unit, event: UnitEnded) -> None:
    """Do as `_end_one_by_one`, for all members at once."""
    group, positions = unit.node.group, event.positions
    indices = unit.indices[positions[0] : positions[-1] + 1]
    part = slice(indices[0], indices[-1] + 1)
    group.states[part] = group.states[part].translate(_BEGUN)
    move_all(group, indices, StateType.COMPLETED)
    group.started[part] = array("q", event.started)
    group.ended[part] = array("q", event.ended)
    group.values[part] = event.values
    for position, name in event.names.items():
        group.names[unit.indices[position]] = name
    unit.began = unit.began or event.started[0]
    unit.ended = event.ended[-1]
    unit.count += len(positions)
    unit.open.difference_update(positions)
    settle(turn, unit.node, indices)


def _end_one_by_one(turn: Turn, unit: Unit, event: UnitEnded) -> None:
    run, node, group = turn.run, unit.node, unit.node.group
    settled: list[int] = []
    for column, position in enumerate(event.positions):
        if position not in unit.open:
            run.late += 1
            continue
        index = unit.indices[position]
        unit.open.discard(position)
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
    if settled:
        settle(turn, node, settled)


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
    node, group = unit.node, unit.node.group
    cancelled = event.error.failure_class is FailureClass.CANCELLED
    suspects = len(unit.open) > 1 and not cancelled
    settled: list[int] = []
    for position in sorted(unit.open):
        index = unit.indices[position]
        stopping = cancelled or group.states[index] == StateType.CANCELLING
        if suspects and not stopping and not run.cancelled_by:
            _run_alone(turn, unit, position)
            continue
        state = StateType.CANCELLED if suspects or stopping else StateType.CRASHED
        if state is StateType.CRASHED and group.states[index] == StateType.PENDING:
            # Nobody has told that it began, so its hooks are not called.
            move(group, index, StateType.RUNNING)
            group.started[index] = unit.began or turn.now
        group.ended[index] = turn.now
        if failed(turn, Failure(node, index, state, event.error)):
            settled.append(index)
    unit.open.clear()
    if settled:
        settle(turn, node, settled)
    _release(turn, event.unit)


def _unit_handed_back(turn: Turn, event: UnitHandedBack) -> None:
    run = turn.run
    unit = run.units.get(event.unit)
    if unit is None:
        run.late += len(event.positions)
        return
    node, group = unit.node, unit.node.group
    again: list[int] = []
    ended: list[int] = []
    for position in event.positions:
        index = unit.indices[position]
        if position not in unit.open:
            run.late += 1
            continue
        unit.open.discard(position)
        group.attempts[index] -= 1
        if run.cancelled_by or group.states[index] == StateType.CANCELLING:
            cancel_waiting(turn, node, index)
            ended.append(index)
        else:
            again.append(index)
    if again:
        run.lane(node).add_first(node, again)
    if ended:
        settle(turn, node, ended)
    _release(turn, event.unit)


def _run_alone(turn: Turn, unit: Unit, position: int) -> None:
    """Queue a member again whose worker died under several: only the guilty one is charged.

    What is queued by itself is dispatched by itself.
    """
    node, index = unit.node, unit.indices[position]
    group = node.group
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
    _cancel_waiting(turn)
    if not event.running:
        return
    for number, unit in run.units.items():
        for position in unit.open:
            group, index = unit.node.group, unit.indices[position]
            if group.states[index] in {StateType.PENDING, StateType.RUNNING}:
                move(group, index, StateType.CANCELLING)
                turn.record(group, index)
        turn.commands.append(AbortUnit(number, event.force))


def _flow_restarted(turn: Turn, _: FlowRestarted) -> None:
    turn.run.cancelled_by = ""


def _cancel_waiting(turn: Turn) -> None:
    run = turn.run
    dispatched = {
        (unit.node, unit.indices[position]) for unit in run.units.values() for position in unit.open
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
