"""From the groups of a segment to a plan: an ordered list of small pure passes."""

from collections.abc import Callable, Iterable
from functools import reduce

from raysched.compiler.passes import classify, parents_first, recognise_columns, size_units
from raysched.compiler.plan import Plan, PlannedGroup
from raysched.graph.group import Group

PASSES: tuple[Callable[[Plan], Plan], ...] = (
    parents_first,
    recognise_columns,
    classify,
    size_units,
)
"""What a segment goes through, in this order."""


def compile_segment(groups: Iterable[Group]) -> Plan:
    """Return the plan of one segment.

    Raises:
        CycleError: Groups wait for each other.
    """
    plan: Plan = tuple(PlannedGroup(group) for group in groups)
    return reduce(lambda planned, apply: apply(planned), PASSES, plan)
