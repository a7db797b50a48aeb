"""Which members ride in the unit of those that they need, where the plan fuses their groups."""

from collections.abc import Iterator, Sequence

from raysched.model.states import StateType
from raysched.tracker.run import Node, Part

MAX_RIDDEN = 1000
"""Most members of one unit with all that ride in it."""


def stages(node: Node) -> int:
    """Return how many groups a unit may have that begins with members of a node."""
    number = 1
    while node.follower is not None and node.follower[0] is not node:
        node, number = node.follower[0], number + 1
    return number


def ride_along(node: Node, indices: Sequence[int], chain: int) -> Iterator[Part]:
    """Mark and yield what rides behind these members: stage by stage, or link by link of a chain.

    Only what waits for nothing else rides, and only what is dispatched for the first time since
    that which it needs was: so a unit never waits for another.

    Args:
        node: Whose members a unit begins with.
        indices: Which.
        chain: Most members of a chain in one unit.
    """
    first, count = 0, len(indices)
    while node.follower is not None:
        follower, offset = node.follower
        if follower is node:
            link = _links(node, indices[-1], chain - 1) if count == 1 else range(0)
            if link:
                node.riding.update(link)
                yield Part(node, link, 1, range(len(link)))
            return
        places = [
            place
            for place, index in enumerate(indices)
            if index not in node.suspects and _can_ride(follower, index - offset)
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


def _links(node: Node, last: int, most: int) -> range:
    """Return the members of a chain after `last` that can ride."""
    stop = last + 1
    if last not in node.suspects:
        while stop - last <= most and _can_ride(node, stop) and _needs(node, stop, stop - 1):
            stop += 1
    return range(last + 1, stop)


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
