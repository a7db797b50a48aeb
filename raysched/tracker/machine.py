"""`advance`: the one way in which a run changes."""

from collections.abc import Callable
from typing import Any

from raysched.errors import InternalError
from raysched.model.states import FAILURES
from raysched.tracker.attempts import Failure, failed, roll_back
from raysched.tracker.caching import cache_answered
from raysched.tracker.cancelling import (
    cancel_members,
    cancel_run,
    end_escalated,
    end_waiting,
    stop_tripped,
)
from raysched.tracker.deadlines import due
from raysched.tracker.dependencies import join, settle
from raysched.tracker.messages import (
    CacheAnswered,
    CancelRequested,
    CapacityKnown,
    Command,
    CompensationPlanned,
    Event,
    FailuresHandled,
    FlowRestarted,
    InputsLost,
    MembersCancelled,
    RetryAnswered,
    RolledBack,
    SegmentPlanned,
    TimePassed,
    UnitEnded,
    UnitHandedBack,
    UnitLost,
    UnitStarted,
    ValueLost,
)
from raysched.tracker.recomputing import give_up_unmakable, value_lost
from raysched.tracker.run import Node, Run, Turn
from raysched.tracker.schedule import ask_to_be_woken, dispatch, woken
from raysched.tracker.units import (
    unit_ended,
    unit_handed_back,
    unit_lost,
    unit_started,
    unit_without_inputs,
)


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
    stop_tripped(turn)
    give_up_unmakable(turn)
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
        end_waiting(turn)


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
    for lane in tuple(turn.run.lanes.values()):
        if lane.scheduling_class == event.scheduling_class:
            lane.slots, lane.lacking = event.slots, event.lacking
            if not event.slots:
                end_escalated(turn, lane)


def _failures_handled(turn: Turn, event: FailuresHandled) -> None:
    for index in event.indices:
        if event.group.states[index] in FAILURES and index not in event.group.handled:
            event.group.handled.add(index)
            turn.record(event.group, index)


def _flow_restarted(turn: Turn, _: FlowRestarted) -> None:
    turn.run.cancelled_by, turn.run.aborted = "", False


def _rolled_back(turn: Turn, event: RolledBack) -> None:
    for index in event.indices:
        roll_back(turn, (event.group, index))


def _compensation_planned(turn: Turn, event: CompensationPlanned) -> None:
    turn.run.undoes[event.member] = event.undone


_HANDLERS: dict[type[Event], Callable[[Turn, Any], None]] = {
    SegmentPlanned: _segment_planned,
    CapacityKnown: _capacity_known,
    UnitStarted: unit_started,
    UnitEnded: unit_ended,
    UnitLost: unit_lost,
    InputsLost: unit_without_inputs,
    ValueLost: value_lost,
    UnitHandedBack: unit_handed_back,
    RetryAnswered: _retry_answered,
    CacheAnswered: cache_answered,
    FailuresHandled: _failures_handled,
    CancelRequested: cancel_run,
    MembersCancelled: cancel_members,
    RolledBack: _rolled_back,
    CompensationPlanned: _compensation_planned,
    FlowRestarted: _flow_restarted,
    TimePassed: _time_passed,
}
