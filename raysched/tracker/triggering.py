"""Whether members may begin: the trigger rules, over the edges that lead to them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.states import FAILURES, FIRST_TERMINAL, SUCCESSES, StateType
from raysched.model.triggers import TriggerRule
from raysched.model.values import ErrorInfo, FailureClass
from raysched.policies.trigger import EAGER, Decision, Parents, decide
from raysched.tracker.attempts import cancel_waiting, end_unbegun
from raysched.tracker.messages import AskCache
from raysched.tracker.run import Node, Roots, Run, Turn
from raysched.tracker.timers import became_ready
from raysched.tracker.transitions import move, move_all

if TYPE_CHECKING:
    from raysched.graph.calls import Member


def begin(turn: Turn, node: Node, members: Sequence[int]) -> list[int]:
    """Make members ready whose parents have all ended; return those that can never run.

    The roots of a failure are complete only when all parents have ended, and what a flow handles
    is decided by roots: so a member is doomed when its last parent ended, not its first.
    """
    run, group = turn.run, node.group
    doomed: list[int] = []
    ready: list[int] | Sequence[int] = members
    if _has_to_be_decided(run, group):
        ready = []
        for index in members:
            if group.states[index] == StateType.SCHEDULED:
                _begin_one(turn, node, index, ready, doomed)
            elif group.spec.trigger_rule in EAGER and not group.is_answered(index):
                # It began before some of them ended; what it tolerates is known only now.
                _consume(turn, node, index)
    elif node.failures or run.cancelled_by or node.stopped or group.answered:
        # What was cancelled, stopped or answered while it waited has ended before its parents.
        ready = [i for i in members if group.states[i] < FIRST_TERMINAL]
    if node.stopping:
        # They got off the unit in which they were to be stopped.
        stopped = [i for i in ready if i in node.stopping and i not in node.riding]
        for index in stopped:
            end_unbegun(turn, node, index)
        doomed += stopped
        ready = [index for index in ready if index not in stopped]
    _make_ready(turn, node, ready)
    if node.computing:
        _queue_for_values(turn, node, members)
    return doomed


def _queue_for_values(turn: Turn, node: Node, members: Sequence[int]) -> None:
    """Queue answered members whose values are to be made again, now that their setups have ended.

    What they need beside these is answered, too.
    """
    for index in members:
        if index not in node.computing or not node.group.is_answered(index):
            continue
        if lacks_setup(node.group, index):
            turn.unmakable.append((node, index))
        else:
            turn.run.lane(node, index).add(node, (index,))


def lacks_setup(group: Group, index: int) -> bool:
    """Whether a setup has ended without success that an answered member needs.

    With its value, or what it has set up, the member's own value cannot be made again.
    """
    return group.is_answered(index) and any(
        edge.parent.spec.setup
        and any(FIRST_TERMINAL <= state not in SUCCESSES for state in _states_behind(edge, index))
        for edge in group.edges_of(index)
    )


def _states_behind(edge: Edge, index: int) -> bytearray:
    if edge.kind is EdgeKind.ONE_TO_ONE:
        return edge.parent.states[index + edge.index : index + edge.index + 1]
    return edge.parent.states[edge.index : edge.stop]


def begin_early(turn: Turn, node: Node, members: Sequence[int]) -> None:
    """Make those of these members ready whose rule is met although parents are open."""
    ready = [
        index
        for index in members
        if node.group.states[index] == StateType.SCHEDULED
        and decide(node.group.spec.trigger_rule, _parents(turn.run, node, index)) is Decision.RUN
    ]
    _make_ready(turn, node, ready)


def _make_ready(turn: Turn, node: Node, ready: Sequence[int]) -> None:
    run, group = turn.run, node.group
    move_all(group, ready, StateType.PENDING)
    if ready:
        became_ready(turn, node, ready)
    if node.riding:
        # These are on their way already, and so is whatever ended their unit.
        if run.aborted:
            move_all(group, [i for i in ready if i in node.riding], StateType.CANCELLING)
        ready = [index for index in ready if index not in node.riding]
    if ready and group.spec.cache is not None:
        node.asking.update(ready)
        turn.commands.append(AskCache(group, ready))
    elif ready:
        run.lane(node).add(node, ready)


def _begin_one(turn: Turn, node: Node, index: int, ready: list[int], doomed: list[int]) -> None:
    if _may_run(turn, node, index):
        ready.append(index)
        return
    doomed.append(index)
    if index in node.riding:
        node.riding.discard(index)
        node.group.attempts[index] -= 1


def _has_to_be_decided(run: Run, group: Group) -> bool:
    if group.spec.trigger_rule is not TriggerRule.ALL_SUCCESS:
        return True
    if any(run.nodes[edge.parent.id].failures for edge in group.edges):
        return True
    # Edges of members may lead anywhere: looking at each costs as much as deciding.
    return bool(group.member_edges)


def _may_run(turn: Turn, node: Node, index: int) -> bool:
    """Decide whether a member whose parents have all ended runs; if not, how it ends."""
    run, group = turn.run, node.group
    decision = decide(group.spec.trigger_rule, _parents(run, node, index))
    if decision is Decision.RUN:
        _consume(turn, node, index)
        return True
    if run.cancelled_by and index in node.riding:
        # Had it not been on its way, it would have been cancelled with all that waited.
        cancel_waiting(turn, node, index)
    elif decision is Decision.UPSTREAM_FAILED:
        roots, _ = _behind(run, node, index)
        group.roots[index] = roots
        group.errors[index] = _upstream_error(group, index)
        move(group, index, StateType.UPSTREAM_FAILED)
    else:
        _, reason = _behind(run, node, index)
        reason = reason or f"trigger_rule={group.spec.trigger_rule!s} was not met"
        group.reasons[index] = reason
        group.errors[index] = ErrorInfo("", reason, failure_class=FailureClass.UPSTREAM)
        move(group, index, StateType.SKIPPED)
    return False


def _consume(turn: Turn, node: Node, index: int) -> None:
    """Note that a member tolerates what failed before it: that is handled by it.

    A teardown cleans up whatever happened, which is no way of dealing with it.
    """
    run, group = turn.run, node.group
    if group.spec.teardown:
        return
    for edge in _edges_with_failures(run, node, index):
        for parent, member in _roots_of(run, edge, index)[0]:
            if member not in parent.handled:
                parent.handled.add(member)
                turn.record(parent, member)


def _behind(run: Run, node: Node, index: int) -> Roots:
    """Return the roots of the failures before a member that it does not allow, or a skip."""
    roots: tuple[Member, ...] = ()
    skipped = ""
    lenient = node.group.spec.trigger_rule is TriggerRule.ALL_SUCCESS
    for edge in _edges_with_failures(run, node, index):
        if lenient and tolerates(run, edge):
            continue
        found, skip = _roots_of(run, edge, index)
        # Mostly there is one edge with failures: then all its members share its tuple.
        roots = tuple(dict.fromkeys(roots + found)) if roots and found else roots or found
        skipped = skipped or skip
    return roots, skipped


def _edges_with_failures(run: Run, node: Node, index: int) -> Iterator[Edge]:
    return (edge for edge in node.group.edges_of(index) if run.nodes[edge.parent.id].failures)


def _parents(run: Run, node: Node, index: int) -> Parents:
    """Return how the parents of a member have ended.

    For `all_success` those behind an edge that failures may cross have succeeded, and so have the
    members of a map of which enough did.
    """
    lenient = node.group.spec.trigger_rule is TriggerRule.ALL_SUCCESS
    edges = _edges_with_failures(run, node, index) if lenient else node.group.edges_of(index)
    return sum((_tally(run, edge, index, lenient=lenient) for edge in edges), Parents())


def _tally(run: Run, edge: Edge, index: int, *, lenient: bool) -> Parents:
    parent = run.nodes[edge.parent.id]
    if edge.kind is EdgeKind.ONE_TO_ONE:
        start, stop = index + edge.index, index + edge.index + 1
    else:
        start, stop = edge.index, edge.stop
    if lenient and tolerates(run, edge):
        return Parents(succeeded=stop - start)
    if stop - start > 1 and edge in run.tallies:
        return run.tallies[edge]
    codes = parent.group.states[start:stop]
    succeeded = sum(map(codes.count, SUCCESSES))
    failures = sum(map(codes.count, FAILURES))
    skipped = codes.count(StateType.SKIPPED)
    victims = codes.count(StateType.UPSTREAM_FAILED)
    still_open = len(codes) - succeeded - failures - skipped
    setups = (len(codes), succeeded) if parent.group.spec.setup else (0, 0)
    tally = Parents(succeeded, failures - victims, victims, skipped, still_open, *setups)
    if len(codes) > 1 and not still_open:
        run.tallies[edge] = tally
    return tally


def tolerates(run: Run, edge: Edge) -> bool:
    """Whether failures may cross an edge: by `allow_failure`, or to the whole of a map that held.

    A single member of such a map has no value all the same.
    """
    return edge.allow_failure or (run.nodes[edge.parent.id].held and spans(edge))


def spans(edge: Edge) -> bool:
    """Whether an edge leads to a range of a group as a whole, not to single members."""
    return edge.kind is EdgeKind.GATHER or (
        edge.kind is EdgeKind.AFTER and edge.stop - edge.index > 1
    )


def _roots_of(run: Run, edge: Edge, index: int) -> Roots:
    parent = edge.parent
    if edge.kind is EdgeKind.ONE_TO_ONE:
        return _roots_at(parent, index + edge.index)
    if edge.stop - edge.index == 1:
        return _roots_at(parent, edge.index)
    if edge not in run.roots_of_edges:
        roots: dict[Member, None] = {}
        skipped = ""
        for member in range(edge.index, edge.stop):
            found, skip = _roots_at(parent, member)
            roots.update(dict.fromkeys(found))
            skipped = skipped or skip
        run.roots_of_edges[edge] = tuple(roots), skipped
    return run.roots_of_edges[edge]


def _roots_at(parent: Group, index: int) -> Roots:
    state = StateType(parent.states[index])
    if state is StateType.UPSTREAM_FAILED:
        return parent.roots[index], ""
    if state in FAILURES:
        return ((parent, index),), ""
    return (), f"{parent.key(index)} was skipped" if state is StateType.SKIPPED else ""


def _upstream_error(group: Group, index: int) -> ErrorInfo:
    roots = group.roots[index]
    root, member = roots[0]
    cause = root.errors.get(member)
    more = f" and {len(roots) - 1} more" if len(roots) > 1 else ""
    what = f" ({cause.type.rpartition('.')[2]}: {cause.message})" if cause else ""
    rule = group.spec.trigger_rule
    unmet = "" if rule is TriggerRule.ALL_SUCCESS else f"trigger_rule={rule!s} was not met and "
    message = (
        f"{group.key(index)} did not run, because {unmet}{root.key(member)}{more} failed{what}"
    )
    return ErrorInfo("raysched.errors.UpstreamFailed", message, failure_class=FailureClass.UPSTREAM)
