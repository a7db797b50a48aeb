"""The smallest part of a graph from roots to victims, over random graphs."""

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from hypothesis import given
from hypothesis import strategies as st

from raysched.client.why_facts import Part
from raysched.client.why_graph import Touched, drawing_of, locate, note_of
from raysched.model.rows import GroupRow

Graph = Mapping[int, AbstractSet[int]]
"""For each group those that it depends on."""


def rows(graph: Graph) -> list[GroupRow]:
    return [
        GroupRow(
            group,
            f"task{group}",
            0,
            2,
            edges=json.dumps([[p, "one_to_one", 0, 1] for p in parents]),
        )
        for group, parents in graph.items()
    ]


def above(graph: Graph, group: int, within: AbstractSet[int]) -> set[int]:
    """Returns a group and those that it depends on, through groups of `within`."""
    found, stack = {group}, [group]
    while stack:
        for parent in graph[stack.pop()]:
            if parent in within and parent not in found:
                found.add(parent)
                stack.append(parent)
    return found


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(2, 9))
    return {
        group: draw(st.frozensets(st.integers(0, group - 1), min_size=1, max_size=2))
        if group
        else frozenset()
        for group in range(size)
    }


@st.composite
def stories(draw: st.DrawFn) -> tuple[Graph, dict[int, Touched]]:
    """A graph, some groups with failures, and victims that hang on some of them."""
    graph = draw(graphs())
    roots = draw(st.sets(st.sampled_from(sorted(graph)), min_size=1, max_size=3))
    touched = {group: Touched(failed=1) for group in roots}
    for group in graph:
        reachable = (above(graph, group, set(graph)) - {group}) & roots
        if reachable and group not in roots and draw(st.booleans()):
            blamed = draw(st.sets(st.sampled_from(sorted(reachable)), min_size=1))
            touched[group] = Touched(not_run=1, roots=frozenset(blamed))
    return graph, touched


def joined(graph: Graph, touched: Mapping[int, Touched], part: AbstractSet[int]) -> bool:
    return all(
        root in above(graph, group, part) for group, each in touched.items() for root in each.roots
    )


@given(stories())
def test_has_all_roots_and_victims_and_joins_them(story: tuple[Graph, dict[int, Touched]]) -> None:
    graph, touched = story
    part = {node.id for node in locate(rows(graph), touched).nodes}
    assert set(touched) <= part
    assert joined(graph, touched, part)


@given(stories())
def test_no_group_can_be_spared(story: tuple[Graph, dict[int, Touched]]) -> None:
    graph, touched = story
    part = {node.id for node in locate(rows(graph), touched).nodes}
    for spare in part - set(touched):
        assert not joined(graph, touched, part - {spare})


@given(stories())
def test_has_nothing_but_ways_from_roots_to_victims(
    story: tuple[Graph, dict[int, Touched]],
) -> None:
    graph, touched = story
    part = locate(rows(graph), touched)
    victims = {group for group, each in touched.items() if each.not_run}
    roots = {group for group, each in touched.items() if each.failed}
    upstream = {each for victim in victims for each in above(graph, victim, set(graph))}
    for node in part.nodes:
        assert node.id in touched or (
            node.id in upstream and above(graph, node.id, set(graph)) & roots
        )
    for link in part.links:
        assert link.parent in graph[link.child]
        assert link.parent in upstream
        assert above(graph, link.parent, set(graph)) & roots


@given(stories())
def test_every_victim_is_linked_to_its_roots(story: tuple[Graph, dict[int, Touched]]) -> None:
    graph, touched = story
    part = locate(rows(graph), touched)
    linked: dict[int, set[int]] = {group: set() for group in graph}
    for link in part.links:
        linked[link.child].add(link.parent)
    assert joined(linked, touched, set(graph))


def test_a_group_that_ran_is_in_it_only_where_nothing_else_joins() -> None:
    graph: Graph = {0: set(), 1: {0}, 2: {1}, 3: {0, 2}}
    touched = {0: Touched(failed=1), 2: Touched(not_run=1, roots=frozenset({0}))}
    assert [node.id for node in locate(rows(graph), touched).nodes] == [0, 1, 2]
    touched[3] = Touched(not_run=2, roots=frozenset({0}))
    part = locate(rows(graph), {0: touched[0], 3: touched[3]})
    assert [node.id for node in part.nodes] == [0, 3]
    chain: Graph = {0: set(), 1: {0}, 2: {1}, 3: {2}}
    part = locate(rows(chain), {0: touched[0], 3: touched[3]})
    assert [(link.parent, link.child) for link in part.links] == [(0, 1), (1, 2), (2, 3)]


def test_members_of_one_group_may_be_roots_and_victims() -> None:
    touched = {0: Touched(failed=3, not_run=7, roots=frozenset({0}))}
    part = locate([GroupRow(0, "parse", 0, 10)], touched)
    assert [note_of(node) for node in part.nodes] == ["3 failed, 7 not run"]
    assert part.links == ()


def test_a_long_chain_is_quick() -> None:
    size = 5000
    graph = {group: {group - 1} if group else set() for group in range(size)}
    touched = {0: Touched(failed=1)}
    touched |= {group: Touched(not_run=1, roots=frozenset({0})) for group in range(1, size)}
    part = locate(rows(graph), touched)
    assert (len(part.nodes), len(part.links)) == (size, size - 1)


def test_drawing_keeps_what_failed_where_there_is_no_room_for_all() -> None:
    graph = {0: set[int](), 1: {0}, 2: {1}, 3: set()}
    touched = {
        3: Touched(failed=1),
        0: Touched(failed=1),
        1: Touched(not_run=1, roots=frozenset({0})),
        2: Touched(not_run=1, roots=frozenset({0})),
    }
    part = locate(rows(graph), touched)
    drawn = drawing_of("flow", part, most=3)
    assert [box.name for box in drawn.boxes] == ["task0", "task1", "task3"]
    assert [arrow.parent for box in drawn.boxes for arrow in box.arrows] == [0]


def test_nothing_of_nothing() -> None:
    assert locate(rows({0: set(), 1: {0}}), {}) == Part()
