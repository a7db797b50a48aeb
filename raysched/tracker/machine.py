"""`advance`: the one way in which a run changes."""

from collections.abc import Callable
from typing import Any

from raysched.errors import InternalError
from raysched.model.states import FAILURES, FIRST_TERMINAL, StateType
from raysched.tracker.attempts import Failure, cancel_waiting, due, failed
from raysched.tracker.dependencies import join, settle
from raysched.tracker.messages import (
    AbortUnit,
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
from raysched.tracker.run import Node, Run, Turn
from raysched.tracker.schedule import ask_to_be_woken, dispatch, woken
from raysched.tracker.transitions import move
from raysched.tracker.units import unit_ended, unit_handed_back, unit_lost, unit_started


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
    run.cancelled_by, run.aborted = event.by, event.running
    _cancel_waiting(turn)
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
    turn.run.cancelled_by, turn.run.aborted = "", False


def _cancel_waiting(turn: Turn) -> None:
    """Cancel what was not dispatched. What rides may have begun: its unit's report will tell."""
    run = turn.run
    dispatched = {unit.member(position) for unit in run.units.values() for position in unit.open}
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


_HANDLERS: dict[type[Event], Callable[[Turn, Any], None]] = {
    SegmentPlanned: _segment_planned,
    CapacityKnown: _capacity_known,
    UnitStarted: unit_started,
    UnitEnded: unit_ended,
    UnitLost: unit_lost,
    UnitHandedBack: unit_handed_back,
    RetryAnswered: _retry_answered,
    FailuresHandled: _failures_handled,
    CancelRequested: _cancel_requested,
    FlowRestarted: _flow_restarted,
    TimePassed: _time_passed,
}
