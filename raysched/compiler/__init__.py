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
    fuse,
)
"""What a segment goes through, in this order."""


def compile_segment(groups: Iterable[Group], *, fusion: bool = True) -> Plan:
    """Return the plan of one segment.

    Args:
        groups: What was recorded.
        fusion: Whether task runs may run in the units of those that they need.

    Raises:
        CycleError: Groups wait for each other.
    """
    plan: Plan = tuple(PlannedGroup(group) for group in groups)
    passes = PASSES if fusion else [each for each in PASSES if each is not fuse]
    return reduce(lambda planned, apply: apply(planned), passes, plan)
