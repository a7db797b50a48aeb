"""How the task runs of a flow run were planned, and what came of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from raysched.model.rows import GroupRow


class Cut(StrEnum):
    """How the task runs of a group are cut into units, each of which is one Ray call."""

    ADAPTIVE = "adaptive"
    """As many as are good at the pace of the task."""
    FIXED = "fixed"
    """Always as many, where there are as many."""
    SINGLE = "single"
    """Each has a unit of its own."""
    OVERLAPPING = "overlapping"
    """Those of a unit run at the same time in its worker."""
    FUSED = "fused"
    """Each runs in the unit of the one that it needs, right after it."""
    UNKNOWN = "unknown"
    """It was not kept."""


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """How the task runs of one group, of a map or of calls that came together, were planned.

    Attributes:
        group: Id of the group, unique in its flow run.
        task: Name of the task.
        first: Index of its first task run among those of the task.
        size: Number of its task runs.
        mapped: Whether one `.map` made it.
        parent_key: Key of the task run that called it, or "" where the flow did.
        scheduling_class: Ray options that decide where it fits, with the repr of their values;
            groups with the same ones compete for the same slots.
        unit_size: Most task runs that a unit carries, None where that is unknown.
        fixed: Whether units carry just as many, where there are as many.
        overlapping: Whether task runs of a unit overlap in its worker.
        max_parallel: Most of them at once, or None for no limit.
        fused_behind: Id of the group in whose units they may run, or None.
        notes: Why it was planned so.
        units: Units that were dispatched for them, None where they were not counted: the run goes
            on, or it is a single task run.
    """

    group: int
    task: str
    first: int
    size: int
    mapped: bool = False
    parent_key: str = ""
    scheduling_class: Mapping[str, str] = field(default_factory=dict)
    unit_size: int | None = None
    fixed: bool = False
    overlapping: bool = False
    max_parallel: int | None = None
    fused_behind: int | None = None
    notes: tuple[str, ...] = ()
    units: int | None = None

    @property
    def cut(self) -> Cut:
        """How it is cut into units."""
        if self.unit_size is None:
            return Cut.UNKNOWN
        if self.fused_behind is not None:
            return Cut.FUSED
        if self.unit_size == 1 or self.size == 1:
            return Cut.SINGLE
        if self.overlapping:
            return Cut.OVERLAPPING
        return Cut.FIXED if self.fixed else Cut.ADAPTIVE

    @property
    def mean_unit(self) -> float | None:
        """Task runs a unit, None where that is unknown or most are in units of other groups."""
        return self.size / self.units if self.units and self.fused_behind is None else None


def group_plan(row: GroupRow) -> GroupPlan:
    """Return what a row tells of the plan of its group."""
    plan: dict[str, Any] = {} if row.plan is None else json.loads(row.plan)
    return GroupPlan(
        row.id,
        row.task,
        row.first,
        row.size,
        row.mapped,
        row.parent_key,
        plan.get("class", {}),
        plan.get("unit_size"),
        plan.get("fixed", False),
        plan.get("overlapping", False),
        json.loads(row.options).get("max_parallel"),
        plan.get("fused_behind"),
        tuple(plan.get("notes", ())),
        row.units,
    )
