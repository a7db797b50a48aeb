"""What follows from a graph and how its task runs ended, said once more and one by one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from raysched.graph.calls import Member
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.states import FAILURES, ROOT_FAILURES, SUCCESSES, StateType
from raysched.model.triggers import Trigger, TriggerRule

if TYPE_CHECKING:
    from tracker.ledger import Ledger

S = StateType


def parents(edge: Edge, index: int) -> Iterator[Member]:
    """Yield the task runs that an edge of a member leads to."""
    if edge.kind is EdgeKind.ONE_TO_ONE:
        yield edge.parent, index + edge.index
    else:
        for member in range(edge.index, edge.stop):
            yield edge.parent, member


def members(edge: Edge) -> Iterator[Member]:
    """Yield all task runs of the group that an edge leads to."""
    return ((edge.parent, member) for member in range(edge.parent.size))


def held(edge: Edge) -> bool:
    """Whether an edge leads to the whole of a map, or a part of it, of which enough succeeded."""
    needed = edge.parent.min_success
    if needed is None or not may_hold(edge):
        return False
    return sum(state in SUCCESSES for state in edge.parent.states) >= needed


def may_hold(edge: Edge) -> bool:
    """Whether an edge leads to a list of the members of a map that may fail in part."""
    several = edge.kind is EdgeKind.AFTER and edge.stop - edge.index > 1
    return edge.parent.min_success is not None and (several or edge.kind is EdgeKind.GATHER)


def roots_of(ledger: "Ledger", group: Group, index: int) -> set[Member]:
    """Return the failures that keep a member from running: a recursion over the graph."""
    if index in ledger.never_begun(group):
        return set(group.roots[index])
    found: set[Member] = set()
    for edge in group.edges_of(index):
        lenient = edge.allow_failure or held(edge)
        if lenient and group.spec.trigger_rule is TriggerRule.ALL_SUCCESS:
            continue
        for parent, member in parents(edge, index):
            state = S(parent.states[member])
            if state is S.UPSTREAM_FAILED:
                found |= roots_of(ledger, parent, member)
            elif state in ROOT_FAILURES:
                found.add((parent, member))
    return found


def allows(rule: Trigger, states: list[StateType]) -> bool:
    """Whether a rule lets a task run begin, said once more."""
    successes = [state in SUCCESSES for state in states]
    failures = [state in FAILURES for state in states]
    allowed: dict[Trigger, bool] = {
        TriggerRule.ALL_SUCCESS: all(successes),
        TriggerRule.ALL_FAILED: all(failures),
        TriggerRule.ALL_DONE_SETUP_SUCCESS: True,
        TriggerRule.ALL_DONE: True,
        TriggerRule.ONE_SUCCESS: any(successes),
        TriggerRule.ONE_FAILED: any(failures),
        TriggerRule.NONE_FAILED: not any(failures),
        TriggerRule.ALWAYS: True,
    }
    return allowed[rule]
