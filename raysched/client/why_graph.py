"""The smallest part of a run's graph that leads from what failed to what did not run because."""

import json
from collections import defaultdict, deque
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from raysched.client.why_facts import Link, Node, Part
from raysched.graph.drawing import Arrow, Box, Drawing, edge_words
from raysched.graph.group import EdgeKind
from raysched.model.rows import GroupRow

_Ways: TypeAlias = Mapping[int, Collection[int]]
"""From each group to those that come next."""


@dataclass(frozen=True, slots=True)
class Touched:
    """What became of a group: how many members failed themselves, and how many did not run.

    Attributes:
        failed: Members that failed themselves.
        not_run: Members that did not run because of others.
        roots: Groups of the failures that these name.
    """

    failed: int = 0
    not_run: int = 0
    roots: frozenset[int] = frozenset()


def locate(groups: Sequence[GroupRow], touched: Mapping[int, Touched]) -> Part:
    """Return the smallest part of a graph that has all roots and victims, and joins them.

    It has each group with a root or a victim. Another group, whose members ran, is in it only if
    without it some victims' group could not be reached any more from the group of a root of
    theirs. The links are those between groups of the part that are on such a way.

    Args:
        groups: All groups of the run.
        touched: By id of the group; groups with neither failures nor victims are left out.
    """
    parents = {group.id: parents_of(group) for group in groups}
    wanted = {number for number, each in touched.items() if each.failed or each.not_run}
    pairs = [
        (root, number)
        for number, each in touched.items()
        for root in sorted(each.roots & wanted)
        if root != number
    ]
    part = _joined(parents, wanted, pairs)
    nodes = [_node(group, touched.get(group.id)) for group in groups if group.id in part]
    by_id = {group.id: group for group in groups}
    links = [
        Link(parent, child, _words(by_id[child], by_id[parent]))
        for parent, child in sorted(_on_ways(parents, part, pairs))
    ]
    return Part(tuple(nodes), tuple(links))


def parents_of(group: GroupRow) -> frozenset[int]:
    """Return the ids of the groups that a group depends on."""
    return frozenset(parent for parent, *_ in json.loads(group.edges)) - {group.id}


def drawing_of(title: str, part: Part, *, most: int) -> Drawing:
    """Return a part as it is drawn, at most so many of its groups: first those with failures."""
    ranked = sorted(part.nodes, key=lambda node: (not node.failed, node.id))
    kept = {node.id for node in ranked[:most]}
    places = {node.id: n for n, node in enumerate(each for each in part.nodes if each.id in kept)}
    arrows: defaultdict[int, list[Arrow]] = defaultdict(list)
    for link in part.links:
        if link.parent in kept and link.child in kept:
            arrows[link.child].append(Arrow(places[link.parent], link.words))
    boxes = [
        Box(places[node.id], node.task, tuple(arrows[node.id]), node.size, note=note_of(node))
        for node in part.nodes
        if node.id in kept
    ]
    return Drawing(title, tuple(boxes))


def note_of(node: Node) -> str:
    """Return what became of a group, for people: `2 failed, 5 not run`."""
    told = ((node.failed, "failed"), (node.not_run, "not run"))
    return ", ".join(f"{number:,} {word}" for number, word in told if number)


def _joined(parents: _Ways, wanted: Collection[int], pairs: Sequence[tuple[int, int]]) -> set[int]:
    """Return the wanted groups and as few others as join each pair, none of which can be spared."""
    part = set(wanted)
    children = _turned(parents, parents)
    apart = [pair for pair in _apart(children, pairs, part) if _joins(children, pair, parents)]
    for root, end in apart:
        if not _joins(children, (root, end), part):
            part |= _shortest(parents, root, end, part)
    for spare in sorted(part - set(wanted)):
        rest = part - {spare}
        if all(_joins(children, pair, rest) for pair in apart):
            part = rest
    return part


def _apart(
    children: _Ways, pairs: Iterable[tuple[int, int]], part: Collection[int]
) -> list[tuple[int, int]]:
    """Return those pairs that no way within the part joins."""
    ends = _ends(pairs)
    return [
        (root, end)
        for root, wanted in ends.items()
        for end in sorted(wanted - _reached(children, [root], part))
    ]


def _joins(children: _Ways, pair: tuple[int, int], within: Container[int]) -> bool:
    root, end = pair
    return end in _reached(children, [root], within)


def _reached(ways: _Ways, starts: Iterable[int], within: Container[int]) -> set[int]:
    """Return where one comes from these groups, through groups of `within` only."""
    found = set(starts)
    stack = list(found)
    while stack:
        for group in ways.get(stack.pop(), ()):
            if group not in found and group in within:
                found.add(group)
                stack.append(group)
    return found


def _shortest(parents: _Ways, root: int, end: int, part: Container[int]) -> set[int]:
    """Return a way from `root` to `end` with as few groups as can be that are not in `part`."""
    below: dict[int, int] = {end: end}
    queue = deque([end])
    while queue:
        group = queue.popleft()
        for parent in sorted(parents.get(group, ())):
            if parent in below:
                continue
            below[parent] = group
            # Groups that are in the part already cost nothing (0-1 breadth-first search).
            (queue.appendleft if parent in part else queue.append)(parent)
    way, group = {root}, root
    while group != end:
        group = below[group]
        way.add(group)
    return way


def _on_ways(
    parents: _Ways, part: Collection[int], pairs: Iterable[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Return the links within the part that are on a way from a root to one of its victims."""
    children = _turned(parents, part)
    links: set[tuple[int, int]] = set()
    for root, ends in _ends(pairs).items():
        below = _reached(children, [root], part)
        between = _reached(parents, ends & below, below)
        links |= {
            (parent, child) for child in between for parent in parents[child] if parent in between
        }
    return links


def _ends(pairs: Iterable[tuple[int, int]]) -> Mapping[int, set[int]]:
    ends: defaultdict[int, set[int]] = defaultdict(set)
    for root, end in pairs:
        ends[root].add(end)
    return ends


def _turned(parents: _Ways, groups: Iterable[int]) -> _Ways:
    """Return for each group those of `groups` that need it."""
    children: defaultdict[int, set[int]] = defaultdict(set)
    for child in groups:
        for parent in parents[child]:
            children[parent].add(child)
    return children


def _node(group: GroupRow, touched: Touched | None) -> Node:
    node = Node(group.id, group.task, group.first, group.size)
    if touched is None:
        return node
    return replace(node, failed=touched.failed, not_run=touched.not_run)


def _words(child: GroupRow, parent: GroupRow) -> tuple[str, ...]:
    """Return how a group needs another one, in the words of drawings."""
    words = {
        edge_words(EdgeKind(kind), index, stop, parent): None
        for number, kind, index, stop in json.loads(child.edges)
        if number == parent.id
    }
    return tuple(word for word in words if word)
