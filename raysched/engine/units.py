"""From a unit of the tracker to a call of a backend, and from its report to an event."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from raysched.engine.inputs import needed_members
from raysched.engine.ports import Backend, UnitCall
from raysched.errors import TaskRunUnfinished
from raysched.graph.calls import Member
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.states import FIRST_TERMINAL, StateType
from raysched.model.states import SUCCESSES as SUCCESS_STATES
from raysched.model.triggers import MinSuccess, Trigger
from raysched.model.values import CrashKind, ErrorInfo, FailureClass, LargeValue, StoredValue
from raysched.results.envelope import encode
from raysched.results.rebuild import failure_of
from raysched.tracker.messages import Dispatch, UnitEnded
from raysched.worker.protocol import (
    FAILURE,
    INLINE,
    LARGE,
    LIST,
    LOCAL,
    RECORDED,
    STORED,
    SUCCESSES,
    Report,
    SlotValue,
    Stage,
    Unit,
    encode_unit,
)

V = TypeVar("V")


@dataclass(slots=True)
class _Arguments:
    """Where the values are that a unit needs: large ones by their handles, each once."""

    handles: list[Any] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)
    local: dict[Member, int] = field(default_factory=dict)
    """Positions in the unit of members whose values will be there, and nowhere else yet."""
    stored: bool = False
    """Whether values of earlier executions, or of the result storage, are among them."""

    def note(self, group: Group, indices: Sequence[int]) -> None:
        """Note that these members are the next ones in the unit."""
        first = len(self.local)
        self.local.update(((group, index), first + n) for n, index in enumerate(indices))

    def add(self, value: LargeValue) -> SlotValue:
        number = self.positions.get(id(value.handle))
        if number is None:
            number = self.positions[id(value.handle)] = len(self.handles)
            self.handles.append(value.handle)
        return LARGE, (number, value.position)


def unit_call(number: int, command: Dispatch, header: bytes) -> UnitCall:
    """Return the call of a unit, with the values of its slots.

    Args:
        number: The unit's number in this process.
        command: The tracker's command.
        header: The encoded header of its flow run.
    """
    group = command.group
    arguments = _Arguments()
    stages = [_stage(group, command.indices, command.attempts, arguments)]
    order: list[tuple[int, int, int]] | None = None
    if command.riders:
        order = [(0, place, -1) for place in range(len(command.indices))]
        arguments.note(group, command.indices)
    for number_of_stage, rider in enumerate(command.riders, 1):
        assert order is not None  # noqa: S101 - there are riders
        arguments.note(rider.group, rider.indices)
        stages.append(_stage(rider.group, rider.indices, rider.attempts, arguments))
        order.extend((number_of_stage, place, parent) for place, parent in enumerate(rider.parents))
    lease = command.lease_seconds
    unit = Unit(number, header, tuple(stages), order, lease, stored=arguments.stored)
    specs = (command.variant or group.spec, *(rider.group.spec for rider in command.riders))
    return UnitCall(number, specs, encode_unit(unit), tuple(arguments.handles))


def _stage(
    group: Group, indices: Sequence[int], attempts: Sequence[int], arguments: _Arguments
) -> Stage:
    payloads, columns = group.arguments_of(indices)
    first = group.first
    numbers: Sequence[int]
    if group.continues:
        numbers = [group.number(index) for index in indices]
    elif isinstance(indices, range):
        numbers = range(first + indices.start, first + indices.stop)
    else:
        numbers = [first + index for index in indices]
    return Stage(
        group.spec.name,
        group.mapped,
        group.shared,
        group.tags,
        numbers,
        attempts,
        payloads,
        columns,
        _all_slots(group, indices, arguments),
    )


def _all_slots(
    group: Group, indices: Sequence[int], arguments: _Arguments
) -> Sequence[tuple[SlotValue, ...]]:
    rule = group.spec.trigger_rule
    shared = tuple(
        _slot_value(edge, 0, arguments, rule) if edge.kind is not EdgeKind.ONE_TO_ONE else None
        for edge in group.edges
        if edge.kind is not EdgeKind.AFTER
    )
    if not shared and not group.member_edges:
        return ()
    return [_slots(group, index, shared, arguments) for index in indices]


def unit_ended(unit: int, report: Report, handle: Any) -> UnitEnded:
    """Return the event of a report; `handle` holds the unit's large values."""
    values: Sequence[Any] = report.values
    large = handle is not None
    if large:
        values = [
            LargeValue(handle, *value) if isinstance(value, tuple) else value for value in values
        ]
    return UnitEnded(
        unit,
        report.positions,
        report.states,
        report.started,
        report.ended,
        values,
        report.errors,
        report.names,
        large,
    )


def _slots(
    group: Group, index: int, shared: Sequence[SlotValue | None], arguments: _Arguments
) -> tuple[SlotValue, ...]:
    values, rule = list(shared), group.spec.trigger_rule
    for number, edge in enumerate(group.slots_of(index)):
        if number >= len(shared):
            values.append(_slot_value(edge, index, arguments, rule))
        elif values[number] is None:
            values[number] = _slot_value(edge, index, arguments, rule)
    return tuple(value for value in values if value is not None)


def _slot_value(edge: Edge, index: int, arguments: _Arguments, rule: Trigger) -> SlotValue:
    match edge.kind:
        case EdgeKind.ONE_TO_ONE:
            return _member_value(edge.parent, index + edge.index, arguments)
        case EdgeKind.GATHER:
            members: Sequence[int] = range(edge.index, edge.stop)
            partial = edge.parent.min_success is not None or isinstance(rule, MinSuccess)
            if partial:
                # What was skipped is neither a success nor a failure.
                states = edge.parent.states
                members = [index for index in members if states[index] != StateType.SKIPPED]
            values = [_member_value(edge.parent, member, arguments) for member in members]
            if not partial:
                return LIST, values
            failures = [envelope for kind, envelope in values if kind == FAILURE]
            return SUCCESSES, ([value for value in values if value[0] != FAILURE], failures)
        case _:
            return _member_value(edge.parent, edge.index, arguments)


def _unfinished(key: str) -> TaskRunUnfinished:
    message = f"{key} had not ended when the task run began that it is an argument of"
    return TaskRunUnfinished(message, key=key)


def _member_value(parent: Group, index: int, arguments: _Arguments) -> SlotValue:
    position = arguments.local.get((parent, index))
    if position is not None:
        return LOCAL, position
    if parent.states[index] < FIRST_TERMINAL:
        return FAILURE, encode(_unfinished(parent.key(index))).join()
    if parent.states[index] not in SUCCESS_STATES:
        # An edge with allow_failure, or a rule that tolerates it: it hands over the exception.
        return FAILURE, encode(failure_of(parent, index)).join()
    value = parent.value(index)
    if isinstance(value, LargeValue):
        return arguments.add(value)
    if isinstance(value, StoredValue) or _is_recorded(parent, index):
        arguments.stored = True
        return (
            (STORED, value.location)
            if isinstance(value, StoredValue)
            else (RECORDED, (parent.key(index), value))
        )
    return INLINE, value


def incomplete() -> ErrorInfo:
    """Return the evidence of task runs that the report of their unit leaves out."""
    return ErrorInfo(
        "raysched.errors.InternalError",
        "the worker's report was incomplete",
        failure_class=FailureClass.INFRASTRUCTURE,
        kind=CrashKind.BACKEND,
    )


def refused(error: Exception) -> ErrorInfo:
    """Return the evidence of a unit that the backend did not take."""
    return ErrorInfo(
        f"{type(error).__module__}.{type(error).__qualname__}",
        str(error),
        failure_class=FailureClass.INFRASTRUCTURE,
        kind=CrashKind.BACKEND,
    )


def lost_inputs(command: Dispatch, error: ErrorInfo, backend: Backend) -> list[Member]:
    """Return the members whose lost values are why a unit did not begin."""
    if error.kind != CrashKind.OBJECT_LOST:
        return []
    needed = needed_values(command, LargeValue)
    lost = backend.are_lost(list(needed.values()))
    return [member for member, is_lost in zip(needed, lost, strict=True) if is_lost]


def missing_inputs(command: Dispatch, missing: Mapping[str, str]) -> list[Member]:
    """Return the members whose values a worker could not read (see `Report.missing`)."""
    return [
        (group, index)
        for (group, index), value in needed_values(command, object).items()
        if (value.location if isinstance(value, StoredValue) else group.key(index)) in missing
    ]


def _is_recorded(group: Group, index: int) -> bool:
    """Whether a value is of another execution, and can be made again here."""
    if not group.is_recalled(index):
        return False
    return bool(group.columns) or group.payloads[index] is not None


def needed_values(command: Dispatch, kind: type[V]) -> dict[Member, V]:
    """Return the values of one kind that the members of a unit need, by whose they are."""
    parts = [(command.group, command.indices), *((r.group, r.indices) for r in command.riders)]
    return {
        (edge.parent, member): value
        for group, indices in parts
        for index in indices
        for edge in group.slots_of(index)
        for member in needed_members(edge, index)
        for value in (edge.parent.values[member],)
        if isinstance(value, kind)
    }
