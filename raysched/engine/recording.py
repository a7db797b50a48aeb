"""From the tracker's records to rows, and from committed rows to what futures may see."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import pairwise
from types import NoneType
from typing import Any

from raysched.compiler.plan import PlannedGroup
from raysched.define.sources import source_digest
from raysched.engine.inputs import input_rows, with_asked, with_sources
from raysched.graph.group import Edge, Group, elements
from raysched.model.options import RetryOptions, TaskSpec
from raysched.model.rows import AttemptRow, Batch, GroupRow, TaskRunColumns
from raysched.model.states import FIRST_TERMINAL, StateType
from raysched.model.triggers import TriggerRule
from raysched.model.values import LargeValue, StoredValue, Value
from raysched.tracker.messages import Command, Record, RecordAttempt

_TOLD = (
    "timeout_seconds",
    "queue_timeout_seconds",
    "total_timeout_seconds",
    "heartbeat_timeout_seconds",
    "max_parallel",
    "setup",
    "teardown",
    "max_failures",
    "max_same_failures",
    "owner",
    "runbook",
)
"""Options that people want to see as they are, where they are set."""


def fill(batch: Batch, commands: Iterable[Command]) -> list[tuple[Group, Sequence[int]]]:
    """Add to `batch` what these commands record; return the changed members, each once."""
    changed: dict[Group, list[Sequence[int]]] = {}
    for command in commands:
        if isinstance(command, Record):
            changed.setdefault(command.group, []).append(command.indices)
        elif isinstance(command, RecordAttempt):
            batch.attempts.append(_attempt_row(command))
            if command.arguments is not None:
                batch.inputs += input_rows(command.group, command.index, command.arguments)
    members = [
        (group, distinct) for group, parts in changed.items() for distinct in _distinct(parts)
    ]
    batch.task_runs.extend(columns(group, indices) for group, indices in members)
    return members


def _distinct(parts: list[Sequence[int]]) -> Iterable[Sequence[int]]:
    """Return the same members in parts that have none in common: ranges, as far as possible."""
    ranges = sorted((part for part in parts if isinstance(part, range)), key=lambda r: r.start)
    rest = {index for part in parts if not isinstance(part, range) for index in part}
    for before, after in pairwise(ranges):
        if after.start < before.stop:
            return (sorted(rest.union(*ranges)),)
    rest.difference_update(*ranges)
    return (*ranges, sorted(rest)) if rest else ranges


def columns(group: Group, indices: Sequence[int]) -> TaskRunColumns:
    """Return the rows of these members as they are now."""
    values, sizes = _kept_values(group, indices)
    kept_in, places = _places_of(group, indices)
    return TaskRunColumns(
        kept_in,
        places,
        elements(group.states, indices),
        elements(group.attempts, indices),
        elements(group.started, indices),
        elements(group.ended, indices),
        values,
        sizes,
        {n: group.names[i] for n, i in enumerate(indices) if i in group.names}
        if group.names
        else {},
        {
            n: tuple(root.key(member) for root, member in group.roots[i])
            for n, i in enumerate(indices)
            if i in group.roots
        }
        if group.roots
        else {},
        _places(indices, group.handled),
        {n: group.reasons[i] for n, i in enumerate(indices) if i in group.reasons}
        if group.reasons
        else {},
        _places(indices, group.rolled_back),
        _locations(group, indices),
        elements(group.places, indices) if group.places else (),
    )


def _places_of(group: Group, indices: Sequence[int]) -> tuple[int, Sequence[int]]:
    """Return where these members are kept: the id of a group, and positions in it."""
    if group.recorded is None or not group.continues:
        return group.id, indices
    return group.recorded.id, elements(group.positions, indices)


def _locations(group: Group, indices: Sequence[int]) -> dict[int, str]:
    """Return where the result storage has values of these members, by position among them."""
    values = elements(group.values, indices)
    if not group.spec.persist_result or set(map(type, values)) <= {bytes, NoneType}:
        return {}
    return {
        place: value.location
        for place, value in enumerate(values)
        if isinstance(value, LargeValue | StoredValue) and value.location
    }


def _places(indices: Sequence[int], members: set[int]) -> frozenset[int]:
    """Return where those of these members are that belong to a set."""
    if not members:
        return frozenset()
    return frozenset(place for place, index in enumerate(indices) if index in members)


def _kept_values(
    group: Group, indices: Sequence[int]
) -> tuple[Sequence[bytes | None], Sequence[int]]:
    """Return the values that the store keeps, and the sizes of all values."""
    values, keep = elements(group.values, indices), group.spec.persist_result
    if keep and set(map(type, values)) == {bytes}:
        small: list[Any] = list(values)
        return small, list(map(len, small))
    kept = [value if keep and isinstance(value, bytes) else None for value in values]
    return kept, [_size(value) for value in values]


def publish(group: Group, indices: Sequence[int]) -> None:
    """Make committed states visible to futures, and tell those who watch the group."""
    visible = group.visible
    ended: Sequence[int]
    if isinstance(indices, range):
        part = slice(indices.start, indices.stop)
        before, visible[part] = visible[part], group.states[part]
        if max(before) < FIRST_TERMINAL <= min(visible[part]):
            ended = indices
        else:
            ended = [
                i
                for i, old in zip(indices, before, strict=True)
                if old < FIRST_TERMINAL <= visible[i]
            ]
    else:
        ended = []
        for index in indices:
            old, visible[index] = visible[index], group.states[index]
            if old < FIRST_TERMINAL <= visible[index]:
                ended.append(index)
    if ended:
        group.open_visible -= len(ended)
        for watcher in tuple(group.watchers):
            watcher(group, ended)


def is_told(group: Group) -> bool:
    """Whether a group gets a row: not if it goes on in the rows of an earlier execution.

    Unless nothing of it was completed: then all that is told of it is as it is now.
    """
    return group.has_row and not (group.continues and any(group.answered))


def source_of(spec: TaskSpec) -> str:
    """Return what the code of a task is now, as `GroupRow.source`."""
    return source_digest(spec.fn)


def group_row(
    planned: PlannedGroup, source_of: Callable[[TaskSpec], str] = source_of, *, created: int = 0
) -> GroupRow:
    """Return the row of a group of this time (ns); `source_of` may remember what it told before."""
    group = planned.group
    of_all = group.edges if group.size > 1 else tuple(group.edges_of(0))
    edges: dict[tuple[int, str, int, int], None] = {_told_edge(edge): None for edge in of_all}
    for own in group.member_edges.values() if group.size > 1 else ():
        # Which member needs which is in the payloads; the row tells which group needs which.
        edges.update(
            dict.fromkeys((_kept_id(edge.parent), edge.kind.value, -1, -1) for edge in own)
        )
    return GroupRow(
        group.id,
        group.spec.name,
        group.first,
        group.size,
        group.mapped,
        json.dumps(list(edges)),
        group.tags,
        _options(group.spec, group.min_success),
        plan=json.dumps(_plan(planned), separators=(",", ":")),
        identities=bytes(group.identities),
        source=source_of(group.spec),
        created=created,
    )


def _told_edge(edge: Edge) -> tuple[int, str, int, int]:
    """Return what the row of a group tells of one of its edges."""
    if edge.parent.has_row:
        return edge.parent.id, edge.kind.value, edge.index, edge.stop
    return _kept_id(edge.parent), edge.kind.value, -1, -1


def _kept_id(group: Group) -> int:
    """Return the id under which the members of a group are kept."""
    return group.id if group.has_row else group.place(0)[0]


def _plan(planned: PlannedGroup) -> Mapping[str, Any]:
    """Return what there is to tell of a plan; what is not told takes no room in every group."""
    behind = planned.fuse_behind
    told: dict[str, Any] = {
        "unit_size": planned.unit_size,
        "fixed": planned.fixed_size,
        "overlapping": planned.overlapping,
        "class": dict(planned.scheduling_class),
        "notes": planned.notes,
    }
    if behind is not None:
        told["fused_behind"] = _kept_id(behind)
    return {name: value for name, value in told.items() if value or name == "fused_behind"}


# Bounded: a flow may make new options for each call.
@lru_cache(maxsize=1024)
def _options(spec: TaskSpec, min_success: int | None) -> str:
    """Return the options that people want to see, as JSON text."""
    retry = spec.retry
    options: dict[str, Any] = {name: repr(value) for name, value in spec.ray.items()}
    if retry.retry_on is not None:
        chosen = retry.retry_on if isinstance(retry.retry_on, tuple) else (retry.retry_on,)
        options["retry_on"] = [getattr(each, "__qualname__", repr(each)) for each in chosen]
    if retry.condition is not None:
        options["retry_condition_fn"] = getattr(
            retry.condition, "__qualname__", repr(retry.condition)
        )
    if retry.on_oom is not None:
        options["on_oom"] = asdict(retry.on_oom)
    if spec.fallback is not None:
        options["fallback"] = True
    if not spec.idempotent:
        options["idempotent"] = False
    if spec.trigger_rule is not TriggerRule.ALL_SUCCESS:
        options["trigger_rule"] = str(spec.trigger_rule)
    told = {name: getattr(spec, name) for name in _TOLD}
    told |= {"retries": retry.retries or None, "min_success": min_success}
    if retry.crash_retries != RetryOptions().crash_retries:
        told["crash_retries"] = retry.crash_retries
    told["max_concurrency"] = spec.max_concurrency if spec.max_concurrency > 1 else None
    # None of something is a limit, too.
    said = {name: value for name, value in told.items() if value or type(value) is int}
    return json.dumps(options | said)


def _size(value: Value | None) -> int:
    if value is None:
        return 0
    return len(value) if isinstance(value, bytes) else value.size


def _attempt_row(command: RecordAttempt) -> AttemptRow:
    group, index = command.group, command.index
    known = group.places and group.started[index] == command.started
    return AttemptRow(
        *group.place(index),
        command.attempt,
        StateType(command.state),
        command.started,
        command.ended,
        with_asked(command, with_sources(group, index, command.error)),
        command.stop_reason,
        group.places[index] if known else 0,
    )
