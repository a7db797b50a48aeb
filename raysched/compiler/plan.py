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
        overlapping: Whether members of a unit overlap in its worker, instead of one after another.
        notes: Why it was planned so, a sentence each, for `raysched show --plan`.
    """

    group: Group
    scheduling_class: SchedulingClass = ()
    unit_size: int = 1
    overlapping: bool = False
    notes: tuple[str, ...] = ()


Plan: TypeAlias = tuple[PlannedGroup, ...]
"""The groups of one segment, parents before children."""
