"""Which members ride in the unit of those that they need, where the plan fuses their groups."""

from collections.abc import Iterable, Iterator, Sequence

from raysched.graph.group import Edge, EdgeKind
from raysched.model.states import FIRST_TERMINAL, SUCCESSES, StateType
from raysched.tracker.run import Node, Part, Run
from raysched.tracker.triggering import tolerates

MAX_RIDDEN = 1000
"""Most members of one unit with all that ride in it."""


def stages(node: Node) -> int:
    """Return how many groups a unit may have that begins with members of a node."""
    number = 1
    while node.follower is not None and node.follower[0] is not node:
        node, number = node.follower[0], number + 1
    return number


def ride_along(run: Run, node: Node, indices: Sequence[int], chain: int) -> Iterator[Part]:
    """Mark and yield what rides behind these members: stage by stage, or link by link of a chain.

    Only what waits for nothing else rides, and only what is dispatched for the first time since
    that which it needs was: so a unit never waits for another. Nor does what will never run, since
    something else that it needs has failed.

    Args:
        run: The run.
        node: Whose members a unit begins with.
        indices: Which.
        chain: Most members of a chain in one unit.
    """
    first, count = 0, len(indices)
    while node.follower is not None:
        follower, offset = node.follower
        if follower is node:
            link = _links(run, node, indices[-1], chain - 1) if count == 1 else range(0)
            if link:
                node.riding.update(link)
                yield Part(node, link, 1, range(len(link)))
            return
        edges = tuple(_with_failures(run, follower.group.edges))
        places = [
            place
            for place, index in enumerate(indices)
            if index not in node.suspects
            and _can_ride(follower, index - offset)
            and not _is_doomed(run, follower, index - offset, edges)
        ]
        if not places or count + len(places) > MAX_RIDDEN:
            return
        if len(places) == len(indices) and isinstance(indices, range):
            riders: Sequence[int] = range(indices.start - offset, indices.stop - offset)
            parents: Sequence[int] = range(first, first + len(indices))
        else:
            riders = [indices[place] - offset for place in places]
            parents = [first + place for place in places]
        follower.riding.update(riders)
        yield Part(follower, riders, count, parents)
        node, indices, first = follower, riders, count
        count += len(riders)


def _links(run: Run, node: Node, last: int, most: int) -> range:
    """Return the members of a chain after `last` that can ride."""
    stop = last + 1
    if last not in node.suspects:
        edges = tuple(_with_failures(run, node.group.edges))
        while (
            stop - last <= most
            and _can_ride(node, stop)
            and _needs(node, stop, stop - 1)
            and not _is_doomed(run, node, stop, edges)
        ):
            stop += 1
    return range(last + 1, stop)


def _with_failures(run: Run, edges: Iterable[Edge]) -> Iterator[Edge]:
    """Yield those of these edges behind which something has ended without a value."""
    for edge in edges:
        parent = run.nodes[edge.parent.id]
        if not parent.failures or tolerates(run, edge):
            continue
        states = parent.group.states
        if edge.kind is EdgeKind.ONE_TO_ONE or not _SUCCEED.issuperset(
            states[edge.index : edge.stop]
        ):
            yield edge


def _is_doomed(run: Run, node: Node, index: int, edges: Sequence[Edge]) -> bool:
    """Whether something that a member needs has ended without a value.

    Args:
        run: The run.
        node: Whose member.
        index: Which.
        edges: Those of the edges of all members behind which something has.
    """
    for edge in edges:
        if edge.kind is not EdgeKind.ONE_TO_ONE:
            return True
        if edge.parent.states[index + edge.index] not in _SUCCEED:
            return True
    own = node.group.member_edges.get(index, ())
    return any(_with_failures(run, own))


_SUCCEED = frozenset(int(state) for state in StateType if state < FIRST_TERMINAL) | SUCCESSES
"""States that may still lead to a value, or have."""


def _needs(node: Node, index: int, before: int) -> bool:
    """Whether a member needs that earlier one of its own group."""
    return any(
        edge.parent is node.group and edge.index <= before < edge.stop
        for edge in node.group.member_edges.get(index, ())
    )


def _can_ride(node: Node, index: int) -> bool:
    return (
        0 <= index < node.group.size
        and node.waiting[index] == 1
        and node.group.states[index] == StateType.SCHEDULED
        and index not in node.riding
        and index not in node.suspects
    )
