"""What the compiler makes of a segment."""

from dataclasses import dataclass
from typing import TypeAlias

from raysched.graph.group import Group

SchedulingClass: TypeAlias = tuple[tuple[str, str], ...]
"""Ray options that decide where a task run fits, as sorted (name, repr) pairs."""


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """How the members of one group are cut into units and where these may run.

    Attributes:
        group: The group.
        scheduling_class: Units of one class compete for the same slots.
        unit_size: Most members that one unit carries.
        fixed_size: Whether units carry just `unit_size` members, where there are as many, instead
            of adapting to how long they take.
        overlapping: Whether members of a unit overlap in its worker, instead of one after another.
        max_parallel: Most runs of this task at once in the flow run, or None for no limit.
        fuse_behind: The group whose members take these along: each may run in the unit of the
            member that it needs, right after it. None where all are dispatched by themselves.
        notes: Why it was planned so, a sentence each, for `raysched show --plan`.
    """

    group: Group
    scheduling_class: SchedulingClass = ()
    unit_size: int = 1
    fixed_size: bool = False
    overlapping: bool = False
    max_parallel: int | None = None
    fuse_behind: Group | None = None
    notes: tuple[str, ...] = ()


Plan: TypeAlias = tuple[PlannedGroup, ...]
"""The groups of one segment, parents before children."""
