"""The passes. Each takes a plan and returns a plan, and says in a note what it decided and why."""

from collections.abc import Mapping
from dataclasses import replace
from graphlib import CycleError as GraphlibCycleError
from graphlib import TopologicalSorter
from typing import Any

from raysched.compiler.plan import Plan, PlannedGroup, SchedulingClass
from raysched.errors import CycleError
from raysched.graph.group import Edge, EdgeKind, Group

PLACING = frozenset(
    {
        "num_cpus",
        "num_gpus",
        "memory",
        "resources",
        "accelerator_type",
        "label_selector",
        "fallback_strategy",
        "scheduling_strategy",
        "runtime_env",
    }
)
"""Ray options that decide where a task run fits. The others do not change its class."""

MAX_CONCURRENT_UNIT = 1000
"""Most waiting task runs that one worker holds: enough to hide the waits, few enough to lose."""


def parents_first(plan: Plan) -> Plan:
    """Order the groups so that each comes after those it needs.

    Raises:
        CycleError: Groups wait for each other. A group may need earlier members of itself.
    """
    planned = {item.group.id: item for item in plan}
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for item in plan:
        parents = _parents(item.group)
        sorter.add(item.group.id, *(parent for parent in parents if parent in planned))
    try:
        return tuple(planned[group] for group in sorter.static_order())
    except GraphlibCycleError as error:
        names = " -> ".join(planned[group].group.spec.name for group in error.args[1])
        message = f"task runs would wait for each other for ever: {names}"
        raise CycleError(message) from error


def recognise_columns(plan: Plan) -> Plan:
    """Turn edges of members that all look alike into one edge of the group.

    `[f.submit(x) for x in xs]` mapped over is the same graph as a map over a map.
    """
    return tuple(_with_column(item) for item in plan)


def classify(plan: Plan) -> Plan:
    """Give each group the scheduling class of its Ray options."""
    return tuple(
        replace(item, scheduling_class=scheduling_class(item.group.spec.ray)) for item in plan
    )


def scheduling_class(ray_options: Mapping[str, Any]) -> SchedulingClass:
    """Return what decides where a task with these Ray options fits, as something hashable."""
    return tuple(
        sorted((name, repr(value)) for name, value in ray_options.items() if name in PLACING)
    )


def size_units(plan: Plan) -> Plan:
    """Decide how many members one unit carries: one, unless they wait rather than compute."""
    return tuple(_sized(item) for item in plan)


def _parents(group: Group) -> set[int]:
    edges = [*group.edges]
    for own in group.member_edges.values():
        edges.extend(own)
    # A member may need an earlier member of its own group: that is a chain, not a cycle.
    return {edge.parent.id for edge in edges if edge.parent is not group}


def _with_column(item: PlannedGroup) -> PlannedGroup:
    group = item.group
    if group.edges or group.size < 2 or len(group.member_edges) != group.size:  # noqa: PLR2004 - one member has no pattern
        return item
    first, *others = group.member_edges[0]
    if others or first.kind is not EdgeKind.BROADCAST or first.parent is group:
        return item
    for index in range(group.size):
        own = group.member_edges[index]
        expected = replace(first, index=first.index + index, stop=first.index + index + 1)
        if len(own) != 1 or own[0] != expected:
            return item
    group.edges = (Edge(first.parent, EdgeKind.ONE_TO_ONE, first.index, 1, first.allow_failure),)
    group.member_edges = {}
    note = f"each needs one of {first.parent.spec.name}, in order: one edge for all"
    return replace(item, notes=(*item.notes, note))


def _sized(item: PlannedGroup) -> PlannedGroup:
    spec = item.group.spec
    if spec.is_async:
        note = "async: task runs of a unit overlap on one event loop"
        return replace(item, unit_size=MAX_CONCURRENT_UNIT, notes=(*item.notes, note))
    if spec.max_concurrency > 1:
        note = f"max_concurrency={spec.max_concurrency}: task runs of a unit overlap in threads"
        return replace(item, unit_size=MAX_CONCURRENT_UNIT, notes=(*item.notes, note))
    return item
