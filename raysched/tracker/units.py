"""What becomes of units and of their members: begun, ended, lost, handed back."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace

from raysched.model.states import FIRST_TERMINAL, SUCCESSES, StateType
from raysched.model.values import ErrorInfo, FailureClass, LargeValue
from raysched.tracker.attempts import (
    Failure,
    completed,
    end_unbegun,
    failed,
    finish,
    note_not_begun,
    take_back,
)
from raysched.tracker.dependencies import settle
from raysched.tracker.messages import (
    CallHooks,
    InputsLost,
    UnitEnded,
    UnitHandedBack,
    UnitLost,
    UnitStarted,
)
from raysched.tracker.recomputing import Recomputed, inputs_lost, recomputed
from raysched.tracker.run import Node, Part, Turn, Unit
from raysched.tracker.schedule import hold_places, learn
from raysched.tracker.timers import became_ready
from raysched.tracker.transitions import move, move_all

_CLASSES = {
    StateType.TIMED_OUT: FailureClass.TIMEOUT,
    StateType.CRASHED: FailureClass.INFRASTRUCTURE,
    StateType.CANCELLED: FailureClass.CANCELLED,
}
"""Classes of failures about which nothing else is known."""

_LOST = {FailureClass.TIMEOUT: StateType.TIMED_OUT}
"""States of attempts whose unit was lost, by class of the loss, where it is no crash."""

_BEGUN = bytes(StateType.RUNNING if state == StateType.PENDING else state for state in range(256))
"""Translates the states of members before they end: who ends has begun."""


def unit_started(turn: Turn, event: UnitStarted) -> None:
    """Account for members of a unit that run."""
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


def unit_ended(turn: Turn, event: UnitEnded) -> None:
    """Account for attempts that ended."""
    run = turn.run
    unit = run.units.get(event.unit)
    if unit is None:
        run.late += len(event.positions)
        return
    for part, columns in _by_part(unit, event):
        if _is_uneventful(unit, part, columns, undoes=bool(run.undoes)):
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


def _is_uneventful(unit: Unit, part: Part, event: UnitEnded, *, undoes: bool) -> bool:
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
        and not undoes
        and unit.open.issuperset(positions)
        and max(node.group.states[_column(part, positions)]) < FIRST_TERMINAL
    )


def _column(part: Part, positions: Sequence[int]) -> slice:
    """Return where in the group's columns the members at adjacent positions are."""
    start = part.indices[positions[0] - part.first]
    return slice(start, start + len(positions))


def _end_uneventfully(turn: Turn, unit: Unit, part: Part, event: UnitEnded) -> None:
    """Do as `_end_one_by_one`, for all members at once."""
    node, group, positions = part.node, part.node.group, event.positions
    column = _column(part, positions)
    indices = range(column.start, column.stop)
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
    node.same = 0
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
        unit.open.discard(position)
        node.riding.discard(index)
        if index in node.computing:
            _end_again(turn, node, index, event, column)
        elif node.group.states[index] >= FIRST_TERMINAL:
            # It rode, and ended with what it needed or was cancelled before it began.
            run.late += 1
        elif _end_one(turn, unit, event, column):
            settled.append(index)
        if settled and len(unit.parts) > 1:
            # What rides behind it may come next.
            settle(turn, node, settled)
            settled = []
    if settled:
        settle(turn, unit.node, settled)


def _end_one(turn: Turn, unit: Unit, event: UnitEnded, column: int) -> bool:
    """Account for an attempt that ended; return whether its task run has."""
    position = event.positions[column]
    node, index = unit.member(position)
    group = node.group
    _start(turn, unit, position, event.started[column])
    group.started[index] = event.started[column]
    group.ended[index] = unit.ended = event.ended[column]
    unit.count += 1
    if position in event.names:
        group.names[index] = event.names[position]
    state = StateType(event.states[column])
    if state not in SUCCESSES:
        return _ended_badly(turn, node, index, state, event.errors.get(position))
    value = group.values[index] = event.values[column]
    if isinstance(value, LargeValue):
        turn.run.pace(node).large = True
    completed(turn, node, index, state)
    return True


def _end_again(turn: Turn, node: Node, index: int, event: UnitEnded, column: int) -> None:
    """Account for an attempt that was made for nothing but its value."""
    outcome = Recomputed(
        StateType(event.states[column]),
        event.started[column],
        event.ended[column],
        event.values[column],
        event.errors.get(event.positions[column]),
    )
    recomputed(turn, node, index, outcome)


def unit_without_inputs(turn: Turn, event: InputsLost) -> None:
    """Account for a unit that did not begin, since values that it needs are lost."""
    if event.unit not in turn.run.units:
        turn.run.late += 1
        return
    inputs_lost(turn, event)
    _release(turn, event.unit)


def _ended_badly(
    turn: Turn, node: Node, index: int, state: StateType, error: ErrorInfo | None
) -> bool:
    error = error or ErrorInfo("", "", failure_class=_CLASSES.get(state, FailureClass.USER))
    failure = Failure(node, index, state, error)
    if state is StateType.SKIPPED:
        node.group.reasons[index] = error.message
        finish(turn, failure, "")
        return True
    return failed(turn, failure)


def unit_lost(turn: Turn, event: UnitLost) -> None:
    """Account for a unit whose worker, or the way to it, broke."""
    run = turn.run
    unit = run.units.get(event.unit)
    if unit is None:
        run.late += 1
        return
    cancelled = event.error.failure_class is FailureClass.CANCELLED
    suspects = len(unit.open) > 1 and not cancelled
    for position in sorted(unit.open):
        node, index = unit.member(position)
        if index in node.computing:
            outcome = Recomputed(StateType.CRASHED, unit.began, turn.now, error=event.error)
            recomputed(turn, node, index, outcome)
        elif _still_needs(node, index):
            _get_off(node, index)
        else:
            node.riding.discard(index)
            _lose(turn, unit, (node, index), event.error, suspect=suspects)
    unit.open.clear()
    _release(turn, event.unit)


def _lose(
    turn: Turn, unit: Unit, member: tuple[Node, int], error: ErrorInfo, *, suspect: bool
) -> None:
    """Account for a member whose worker broke; a `suspect` need not be what broke it."""
    (node, index), run = member, turn.run
    group = node.group
    stopping = (
        error.failure_class is FailureClass.CANCELLED
        or group.states[index] == StateType.CANCELLING
        or (suspect and run.cancels(group))
    )
    if suspect and not stopping:
        _run_alone(turn, node, index)
        return
    state = StateType.CANCELLED if stopping else _LOST.get(error.failure_class, StateType.CRASHED)
    if not stopping and group.states[index] == StateType.PENDING:
        # Nobody has told that it began, so its hooks are not called.
        move(group, index, StateType.RUNNING)
        group.started[index] = unit.began or turn.now
    group.ended[index] = turn.now
    if failed(turn, Failure(node, index, state, error)):
        settle(turn, node, (index,))


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


def unit_handed_back(turn: Turn, event: UnitHandedBack) -> None:
    """Account for members that a worker has not begun and will not begin."""
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
        if index in node.computing:
            node.group.attempts[index] -= 1
            run.lane(node, index).add_first(node, (index,))
            continue
        if _still_needs(node, index):
            _get_off(node, index)
            _end_if_stopped(turn, node, index)
            continue
        node.riding.discard(index)
        node.group.attempts[index] -= 1
        note_not_begun(turn, node, index)
        if _end_if_stopped(turn, node, index):
            continue
        if index in node.variants:
            run.lane(node, index).add_first(node, (index,))
        else:
            again.setdefault(node, []).append(index)
    for node, indices in again.items():
        adjacent = indices[-1] - indices[0] == len(indices) - 1
        run.lane(node).add_first(node, range(indices[0], indices[-1] + 1) if adjacent else indices)
    _release(turn, event.unit)


def _end_if_stopped(turn: Turn, node: Node, index: int) -> bool:
    """End a member that has not begun, if it was to stop; return whether it was."""
    group, state = node.group, node.group.states[index]
    if state >= FIRST_TERMINAL or not (
        turn.run.cancels(group) or state == StateType.CANCELLING or index in node.stopping
    ):
        return False
    if end_unbegun(turn, node, index):
        settle(turn, node, (index,))
    return True


def _run_alone(turn: Turn, node: Node, index: int) -> None:
    """Queue a member again whose worker died under several: only the guilty one is charged.

    What is queued by itself is dispatched by itself.
    """
    group = node.group
    node.suspects.add(index)
    group.attempts[index] -= 1
    take_back(turn, node, index)
    became_ready(turn, node, (index,), again=True)
    turn.run.lane(node, index).add(node, (index,))


def _release(turn: Turn, number: int) -> None:
    """Account for members that have left a unit, and for its end if they were the last."""
    unit = turn.run.units[number]
    hold_places(turn.run, unit)
    if unit.open:
        return
    del turn.run.units[number]
    unit.lane.units -= 1
    if unit.began and unit.ended:
        learn(turn.run, unit)
