"""The passes. Each takes a plan and returns a plan, and says in a note what it decided and why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from graphlib import CycleError as GraphlibCycleError
from graphlib import TopologicalSorter
from itertools import chain
from typing import Any

from raysched.compiler.plan import Plan, PlannedGroup, SchedulingClass
from raysched.errors import CycleError
from raysched.graph.calls import Member
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.options import TaskSpec
from raysched.model.triggers import TriggerRule

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

MAX_UNIT = 1000
"""Most quick task runs that one unit carries: beyond that a larger one saves nothing."""

MAX_CONCURRENT_UNIT = 1000
"""Most waiting task runs that one worker holds: enough to hide the waits, few enough to lose."""


def parents_first(plan: Plan) -> Plan:
    """Order the groups so that each comes after those it needs.

    Groups that need members of each other in turns (`b[0]` needs `a[0]`, `a[1]` needs `b[0]`) stay
    in the order of recording, after the others.

    Raises:
        CycleError: Task runs wait for each other.
    """
    if len(plan) == 1 and not plan[0].group.member_edges:
        # A blocking call: there is nothing to sort.
        return plan
    planned = {item.group.id: item for item in plan}
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for item in plan:
        sorter.add(item.group.id, *(_parents(item.group) & planned.keys()))
    # A loop of groups need not be one of task runs: the sorter goes on as far as it can.
    with suppress(GraphlibCycleError):
        sorter.prepare()
    order: list[int] = []
    while ready := sorter.get_ready():
        order += ready
        sorter.done(*ready)
    ordered = set(order)
    rest = [item for item in plan if item.group.id not in ordered]
    _refuse_cycles([item.group for item in rest])
    return (*(planned[group] for group in order), *rest)


def recognise_columns(plan: Plan) -> Plan:
    """Turn edges of members that all look alike into edges of the group.

    `[f.submit(x) for x in xs]` mapped over is the same graph as a map over a map, and
    `[f.submit(model, x) for x in xs]` the same as a map with `model` unmapped.
    """
    return tuple(_with_columns(item) for item in plan)


def classify(plan: Plan) -> Plan:
    """Give each group the scheduling class of its Ray options."""
    return tuple(
        replace(item, scheduling_class=scheduling_class(item.group.spec.ray)) for item in plan
    )


def scheduling_class(ray_options: Mapping[str, Any]) -> SchedulingClass:
    """Return what decides where a task with these Ray options fits, as something hashable."""
    return tuple(
        sorted(
            (name, repr(value)) for name, value in _asked(ray_options).items() if name in PLACING
        )
    )


def _asked(ray_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without what Ray assumes anyway."""
    return {name: value for name, value in ray_options.items() if (name, value) != ("num_cpus", 1)}


def size_units(plan: Plan) -> Plan:
    """Decide how many members a unit may carry, whether they overlap, and how many run at once."""
    return tuple(_sized(item) for item in plan)


def fuse(plan: Plan, earlier: Callable[[Group], PlannedGroup | None]) -> Plan:
    """Let members run right after the one that they need, in its unit: chains, item by item.

    Only where that one's value goes to no other group, so that nothing runs later than it could.

    Args:
        plan: The plan.
        earlier: Returns what was planned before for a group that nothing needs yet, else None.
    """
    planned = {item.group: item for item in plan}
    for item in plan:
        parent = _needed_one_by_one(item.group)
        before = earlier(parent) if parent is not None and parent not in planned else None
        if before is not None:
            planned[before.group] = before
    children: dict[Group, set[Group]] = {}
    for item in plan:
        for edge in chain(item.group.edges, *item.group.member_edges.values()):
            children.setdefault(edge.parent, set()).add(item.group)
    return tuple(_fused(item, planned, children) for item in plan)


def _fused(
    item: PlannedGroup,
    planned: Mapping[Group, PlannedGroup],
    children: Mapping[Group, set[Group]],
) -> PlannedGroup:
    group = item.group
    parent = _needed_one_by_one(group)
    if parent is None or parent not in planned:
        return item
    obstacle = _obstacle(item, planned[parent], children[parent])
    name = "the one before" if parent is group else parent.spec.name
    if obstacle:
        return replace(item, notes=(*item.notes, f"not fused behind {name}: {obstacle}"))
    note = f"fused: each runs right after {name} that it needs, in the same unit"
    return replace(item, fuse_behind=parent, notes=(*item.notes, note))


def _needed_one_by_one(group: Group) -> Group | None:
    """Return the one group of which each member needs one member, if there is one."""
    columns = [edge.parent for edge in group.edges if edge.kind is EdgeKind.ONE_TO_ONE]
    if columns:
        return columns[0] if len(columns) == 1 else None
    if not group.member_edges:
        return None
    own = group.member_edges.get(group.size - 1, ())
    last = [edge for edge in own if edge.stop - edge.index == 1]
    if group.size == 1 and len(last) == 1:
        return last[0].parent
    is_chain = any(edge.parent is group and edge.index == group.size - 2 for edge in last)
    return group if is_chain else None


def _obstacle(item: PlannedGroup, parent: PlannedGroup, children: set[Group]) -> str:
    """Return why members cannot run in the units of another group, "" if they can.

    Args:
        item: The members' group.
        parent: The other one.
        children: All groups that need the other one.
    """
    reasons = (
        (item.overlapping or parent.overlapping, "task runs of one of them overlap"),
        (
            not (item.group.spec.idempotent and parent.group.spec.idempotent),
            "one of them is idempotent=False",
        ),
        (item.fixed_size or parent.fixed_size, "batch or batch_size is set"),
        (item.max_parallel or parent.max_parallel, "max_parallel is set"),
        (item.group.spec.cache is not None, "its result may be in the cache"),
        (
            item.group.spec.trigger_rule is not TriggerRule.ALL_SUCCESS,
            "its trigger_rule looks at how that ended",
        ),
        (
            item.group.spec.teardown != parent.group.spec.teardown,
            "one of them is a teardown, which a cancelled run spares",
        ),
        (
            item.scheduling_class != parent.scheduling_class,
            "they ask for different resources",
        ),
        (
            _asked(item.group.spec.ray) != _asked(parent.group.spec.ray),
            "they have different Ray options",
        ),
        (children - {parent.group, item.group}, "its values also go to other tasks"),
        (
            parent.group is not item.group and parent.group in children,
            "its own task runs need each other",
        ),
    )
    return next((reason for applies, reason in reasons if applies), "")


def _parents(group: Group) -> set[int]:
    parents = {edge.parent.id for edge in group.edges}
    for index, edges in group.member_edges.items():
        # A member may need an earlier member of its own group: that is a chain, not a cycle.
        parents.update(e.parent.id for e in edges if e.parent is not group or e.stop > index)
    return parents


def _refuse_cycles(groups: Sequence[Group]) -> None:
    among = set(groups)
    sorter: TopologicalSorter[Member] = TopologicalSorter()
    for group in groups:
        for index in range(group.size):
            for edge in group.edges_of(index):
                if edge.parent in among:
                    sorter.add((group, index), *_members(edge, index))
    try:
        sorter.prepare()
    except GraphlibCycleError as error:
        # graphlib names the parent first.
        keys = " -> ".join(group.key(index) for group, index in reversed(error.args[1]))
        raise CycleError(f"task runs would wait for each other for ever: {keys}") from error


def _members(edge: Edge, index: int) -> Iterator[Member]:
    if edge.kind is EdgeKind.ONE_TO_ONE:
        yield edge.parent, index + edge.index
    else:
        yield from ((edge.parent, member) for member in range(edge.index, edge.stop))


def _with_columns(item: PlannedGroup) -> PlannedGroup:
    group = item.group
    if group.edges or group.size < 2 or len(group.member_edges) != group.size:  # noqa: PLR2004 - one member has no pattern
        return item
    rows = [group.member_edges[index] for index in range(group.size)]
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        return item
    edges: list[Edge] = []
    for position in range(width):
        edge = _common_edge(group, [row[position] for row in rows])
        if edge is None:
            return item
        edges.append(edge)
    group.edges = tuple(edges)
    group.member_edges = {}
    names = ", ".join(dict.fromkeys(edge.parent.spec.name for edge in edges))
    note = f"all need {names} in the same way: one edge for all"
    return replace(item, notes=(*item.notes, note))


def _common_edge(group: Group, column: Sequence[Edge]) -> Edge | None:
    """Return the one edge that says the same as these edges of the members, if there is one."""
    first = column[0]
    if first.parent is group:
        return None
    if all(edge == first for edge in column):
        return first
    in_order = first.kind is EdgeKind.BROADCAST and all(
        edge.index == index
        and edge.parent is first.parent
        and edge.kind is first.kind
        and edge.allow_failure == first.allow_failure
        for index, edge in enumerate(column, first.index)
    )
    if not in_order:
        return None
    return replace(first, kind=EdgeKind.ONE_TO_ONE, stop=1)


def _sized(item: PlannedGroup) -> PlannedGroup:
    spec = item.group.spec
    overlap = _overlap(spec)
    if not spec.idempotent:
        size, note = 1, "idempotent=False: every task run is a unit of its own, and never fused"
    elif not spec.batch:
        size, note = 1, "batch=False: every task run is a unit of its own, and never fused"
    elif spec.batch_size is not None:
        size, note = spec.batch_size, f"batch_size={spec.batch_size}: that many in every unit"
    elif overlap:
        size, note = MAX_CONCURRENT_UNIT, "what is ready is spread evenly over the slots"
    else:
        size, note = MAX_UNIT, f"quick task runs share units, up to {MAX_UNIT} of them or 0.1 s"
    # A flow of a thousand calls has a thousand groups, and nothing to tell of each.
    notes = [note, overlap] if item.group.size > 1 or not spec.batch else []
    if spec.max_parallel is not None:
        notes.append(f"max_parallel={spec.max_parallel}: at most so many task runs at once")
        # Those of a unit that overlap are all at once.
        size = min(size, spec.max_parallel) if overlap else size
    return replace(
        item,
        unit_size=size,
        fixed_size=not (spec.batch and spec.idempotent) or spec.batch_size is not None,
        overlapping=bool(overlap),
        max_parallel=spec.max_parallel,
        notes=(*item.notes, *filter(None, notes)),
    )


def _overlap(spec: TaskSpec) -> str:
    """Return how task runs of a unit overlap in its worker, "" if they do not."""
    if spec.is_async:
        return "async: task runs of a unit overlap on one event loop"
    if spec.max_concurrency > 1:
        return f"max_concurrency={spec.max_concurrency}: task runs of a unit overlap in threads"
    return ""
