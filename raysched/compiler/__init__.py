"""From the groups of a segment to a plan: an ordered list of small pure passes."""

from collections.abc import Callable, Iterable
from functools import reduce

from raysched.compiler.passes import classify, fuse, parents_first, recognise_columns, size_units
from raysched.compiler.plan import Plan, PlannedGroup
from raysched.graph.group import Group

PASSES: tuple[Callable[[Plan], Plan], ...] = (
    parents_first,
    recognise_columns,
    classify,
    size_units,
)
"""What a segment goes through, in this order; then it is fused, unless that is not wanted."""


def compile_segment(
    groups: Iterable[Group],
    *,
    fusion: bool = True,
    earlier: Callable[[Group], PlannedGroup | None] = lambda _: None,
) -> Plan:
    """Return the plan of one segment.

    Args:
        groups: What was recorded.
        fusion: Whether task runs may run in the units of those that they need.
        earlier: Returns what was planned before for a group that nothing needs yet, else None.

    Raises:
        CycleError: Groups wait for each other.
    """
    plan: Plan = tuple(PlannedGroup(group) for group in groups)
    plan = reduce(lambda planned, apply: apply(planned), PASSES, plan)
    return fuse(plan, earlier) if fusion else plan
