"""From the tracker's records to rows, and from committed rows to what futures may see."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from raysched.compiler.plan import PlannedGroup
from raysched.graph.group import Group
from raysched.model.options import TaskSpec
from raysched.model.rows import AttemptRow, Batch, GroupRow, TaskRunColumns
from raysched.model.states import FIRST_TERMINAL, StateType
from raysched.model.values import LargeValue
from raysched.tracker.messages import Command, Record, RecordAttempt


def fill(batch: Batch, commands: Iterable[Command]) -> dict[Group, list[int]]:
    """Add to `batch` what these commands record; return the changed members by group."""
    changed: dict[Group, list[int]] = {}
    for command in commands:
        if isinstance(command, Record):
            changed.setdefault(command.group, []).extend(command.indices)
        elif isinstance(command, RecordAttempt):
            batch.attempts.append(_attempt_row(command))
    for group, indices in changed.items():
        unique = sorted(set(indices)) if len(indices) > 1 else indices
        changed[group] = unique
        batch.task_runs.append(columns(group, unique))
    return changed


def columns(group: Group, indices: list[int]) -> TaskRunColumns:
    """Return the rows of these members as they are now."""
    values = [group.values[index] for index in indices]
    keep = group.spec.persist_result
    visible = group.visible
    return TaskRunColumns(
        group.id,
        indices,
        [group.states[index] for index in indices],
        [group.attempts[index] for index in indices],
        [group.started[index] for index in indices],
        [group.ended[index] for index in indices],
        # A row that is there already keeps its identity.
        [None if visible[index] else group.identity(index) for index in indices],
        [value if keep and isinstance(value, bytes) else None for value in values],
        [_size(value) for value in values],
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
        frozenset(n for n, i in enumerate(indices) if i in group.handled)
        if group.handled
        else frozenset(),
    )


def publish(group: Group, indices: list[int]) -> None:
    """Make committed states visible to futures, and tell those who watch the group."""
    visible = group.visible
    ended: list[int] = []
    for index in indices:
        before, visible[index] = visible[index], group.states[index]
        if before < FIRST_TERMINAL <= visible[index]:
            ended.append(index)
    if ended:
        group.open_visible -= len(ended)
        for watcher in tuple(group.watchers):
            watcher(group, ended)


def group_row(planned: PlannedGroup) -> GroupRow:
    """Return the row of a new group."""
    group = planned.group
    edges: dict[tuple[int, str, int, int], None] = {
        (edge.parent.id, edge.kind.value, edge.index, edge.stop): None for edge in group.edges
    }
    for own in group.member_edges.values():
        # Which member needs which is in the payloads; the row tells which group needs which.
        edges.update(dict.fromkeys((edge.parent.id, edge.kind.value, -1, -1) for edge in own))
    return GroupRow(
        group.id,
        group.spec.name,
        group.first,
        group.size,
        group.mapped,
        json.dumps(list(edges)),
        group.tags,
        json.dumps(_options(group.spec)),
        plan=json.dumps(_plan(planned), separators=(",", ":")),
    )


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
        told["fused_behind"] = behind.id
    return {name: value for name, value in told.items() if value or name == "fused_behind"}


def _options(spec: TaskSpec) -> Mapping[str, Any]:
    options: dict[str, Any] = {name: repr(value) for name, value in spec.ray.items()}
    if spec.retry.retries:
        options["retries"] = spec.retry.retries
    if spec.timeout_seconds is not None:
        options["timeout_seconds"] = spec.timeout_seconds
    if spec.max_concurrency > 1:
        options["max_concurrency"] = spec.max_concurrency
    if spec.max_parallel is not None:
        options["max_parallel"] = spec.max_parallel
    return options


def _size(value: bytes | LargeValue | None) -> int:
    if value is None:
        return 0
    return value.size if isinstance(value, LargeValue) else len(value)


def _attempt_row(command: RecordAttempt) -> AttemptRow:
    return AttemptRow(
        command.group.id,
        command.index,
        command.attempt,
        StateType(command.state),
        command.started,
        command.ended,
        command.error,
        command.stop_reason,
    )
