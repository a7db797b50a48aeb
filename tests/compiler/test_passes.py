"""What the compiler makes of a segment, pass by pass."""

from itertools import pairwise
from typing import Any

import pytest

from raysched.compiler import compile_segment
from raysched.compiler.passes import MAX_CONCURRENT_UNIT, MAX_UNIT, scheduling_class
from raysched.compiler.plan import Plan, PlannedGroup
from raysched.errors import CycleError
from raysched.graph.builder import Builder
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.options import TaskSpec
from tracker.graphs import Need, add, add_map, every, one, spec


def planned(plan: Plan, name: str) -> PlannedGroup:
    """Return what became of the group of a task."""
    return next(item for item in plan if item.group.spec.name == name)


def group_of(number: int, name: str, size: int = 1) -> Group:
    """A group made by hand, as no recording of calls can make it."""
    group = Group(number, "run", spec(name), 0, size=size, payloads=[b""] * size)
    group.allocate()
    return group


class TestOrder:
    def test_is_parents_first_whatever_the_order_of_groups(self) -> None:
        builder = Builder("run")
        part = add(builder, spec("a"))
        for name in "bcd":
            part = add(builder, spec(name), one(part))
        plan = compile_segment(reversed(builder.take()))
        assert [item.group.spec.name for item in plan] == list("abcd")

    def test_does_not_mind_parents_of_an_earlier_segment(self) -> None:
        builder = Builder("run")
        first = add(builder, spec("a"))
        builder.take()
        add(builder, spec("b"), one(first))
        (item,) = compile_segment(builder.take())
        assert item.group.spec.name == "b"

    def test_of_groups_that_need_each_other_in_turns_is_that_of_recording(self) -> None:
        builder = Builder("run")
        a, b, before, after = spec("a"), spec("b"), spec("before"), spec("after")
        first = add(builder, a, one(add(builder, before)))
        last = add(builder, a, one(add(builder, b, one(first))))
        add(builder, after, one(last))
        plan = compile_segment(builder.take())
        assert [item.group.spec.name for item in plan] == ["before", "a", "b", "after"]


class TestCycles:
    def test_of_groups_made_by_hand_name_the_task_runs(self) -> None:
        a, b, c = group_of(0, "a"), group_of(1, "b"), group_of(2, "c")
        for group, parent in ((a, c), (b, a), (c, b)):
            group.edges = (Edge(parent, EdgeKind.AFTER),)
        with pytest.raises(CycleError) as caught:
            compile_segment([a, b, c])
        message = str(caught.value)
        assert message.startswith("task runs would wait for each other for ever: ")
        chain = message.partition(": ")[2].split(" -> ")
        assert chain[0] == chain[-1]
        needs = {"a[0]": "c[0]", "b[0]": "a[0]", "c[0]": "b[0]"}
        assert all(needs[key] == parent for key, parent in pairwise(chain))

    def test_of_single_members_are_found_among_others(self) -> None:
        a, b = group_of(0, "a", 3), group_of(1, "b", 3)
        a.member_edges[1] = (Edge(b, EdgeKind.BROADCAST, 2, 3),)
        b.member_edges[2] = (Edge(a, EdgeKind.GATHER, 0, 2),)
        with pytest.raises(CycleError, match=r"a\[1\] -> b\[2\]|b\[2\] -> a\[1\]"):
            compile_segment([a, b])

    @pytest.mark.parametrize("needed", [0, 1])
    def test_within_one_group_are_found(self, needed: int) -> None:
        group = group_of(0, "a", 2)
        group.member_edges[0] = (Edge(group, EdgeKind.BROADCAST, needed, needed + 1),)
        group.member_edges[1] = (Edge(group, EdgeKind.BROADCAST, 0, 1),)
        with pytest.raises(CycleError, match=r"a\[0\]"):
            compile_segment([group])

    def test_are_none_where_members_need_earlier_ones(self) -> None:
        builder = Builder("run")
        task = spec("step")
        part = add(builder, task)
        for _ in range(5):
            part = add(builder, task, one(part))
        (item,) = compile_segment(builder.take())
        assert item.group.size == 6


class TestColumns:
    def test_of_calls_in_order_become_one_edge(self) -> None:
        builder = Builder("run")
        task = spec("next")
        (parents,) = add_map(builder, spec("first"), range(5))
        for position in range(1, 5):
            add(builder, task, one(parents, position))
        item = planned(compile_segment(builder.take()), "next")
        assert item.group.edges == (Edge(parents[0], EdgeKind.ONE_TO_ONE, 1),)
        assert not item.group.member_edges
        assert "all need first in the same way: one edge for all" in item.notes

    def test_of_one_value_for_all_become_one_edge(self) -> None:
        builder = Builder("run")
        task = spec("next")
        model = add(builder, spec("model"))
        (parents,) = add_map(builder, spec("first"), range(3))
        for position in range(3):
            add(builder, task, one(model), one(parents, position), every(parents))
        item = planned(compile_segment(builder.take()), "next")
        assert item.group.edges == (
            Edge(model[0], EdgeKind.BROADCAST, 0, 1),
            Edge(parents[0], EdgeKind.ONE_TO_ONE, 0),
            Edge(parents[0], EdgeKind.GATHER, 0, 3),
        )

    def test_keep_allow_failure(self) -> None:
        builder = Builder("run")
        task = spec("next")
        (parents,) = add_map(builder, spec("first"), range(2))
        for position in range(2):
            add(builder, task, one(parents, position, allow_failure=True))
        item = planned(compile_segment(builder.take()), "next")
        assert item.group.edges == (
            Edge(parents[0], EdgeKind.ONE_TO_ONE, 0, 1, allow_failure=True),
        )

    @pytest.mark.parametrize(
        "positions", [[0, 2, 1], [0, 0, 1], [0, 1, None]], ids=["order", "repeat", "missing"]
    )
    def test_without_a_pattern_stay_as_they_are(self, positions: list[int | None]) -> None:
        builder = Builder("run")
        task = spec("next")
        (parents,) = add_map(builder, spec("first"), range(3))
        for position in positions:
            add(builder, task, *([] if position is None else [one(parents, position)]))
        item = planned(compile_segment(builder.take()), "next")
        assert not item.group.edges
        assert item.group.member_edges

    def test_of_which_one_may_fail_stay_as_they_are(self) -> None:
        builder = Builder("run")
        task = spec("next")
        (parents,) = add_map(builder, spec("first"), range(2))
        add(builder, task, one(parents, 0))
        add(builder, task, one(parents, 1, allow_failure=True))
        assert planned(compile_segment(builder.take()), "next").group.member_edges

    def test_say_the_same_as_the_edges_before(self) -> None:
        builder = Builder("run")
        task = spec("next")
        (parents,) = add_map(builder, spec("first"), range(4))
        for position in range(4):
            needs = one(parents, position), Need(parents[0], range(1, 3), whole=True)
            add(builder, task, *needs, wait_for=[one(parents)])
        (group,) = (group for group in builder.take() if group.spec is task)
        before = [needed(group, index) for index in range(4)]
        compile_segment([group])
        assert group.edges
        assert [needed(group, index) for index in range(4)] == before


def needed(group: Group, index: int) -> list[tuple[str, range]]:
    """Return for each edge of a member what it needs, and whether as a value."""
    found: list[tuple[str, range]] = []
    for edge in group.edges_of(index):
        start, stop = edge.index, edge.stop
        if edge.kind is EdgeKind.ONE_TO_ONE:
            start, stop = index + edge.index, index + edge.index + 1
        value = edge.kind if edge.kind in {EdgeKind.GATHER, EdgeKind.AFTER} else "one"
        found.append((value, range(start, stop)))
    return found


class TestClasses:
    def test_are_those_of_the_options_that_decide_where_it_fits(self) -> None:
        options = {"num_cpus": 2, "max_calls": 3, "resources": {"disk": 1}}
        assert scheduling_class(options) == (("num_cpus", "2"), ("resources", "{'disk': 1}"))

    def test_do_not_depend_on_the_order_of_options(self) -> None:
        one_way = {"num_cpus": 1, "memory": 5}
        assert scheduling_class(one_way) == scheduling_class(dict(reversed(one_way.items())))

    def test_are_given_to_every_group(self) -> None:
        builder = Builder("run")
        add(builder, spec("cpu"))
        add(builder, spec("gpu", ray={"num_gpus": 1}))
        plan = compile_segment(builder.take())
        assert [item.scheduling_class for item in plan] == [(), (("num_gpus", "1"),)]


class TestSizes:
    @pytest.mark.parametrize(
        ("task", "cut"),
        [
            (spec(), (MAX_UNIT, False, False)),
            (spec(is_async=True), (MAX_CONCURRENT_UNIT, False, True)),
            (spec(max_concurrency=8), (MAX_CONCURRENT_UNIT, False, True)),
            (spec(batch=False), (1, True, False)),
            (spec(batch=False, is_async=True), (1, True, True)),
            (spec(batch_size=7), (7, True, False)),
            (spec(batch_size=7, max_concurrency=2), (7, True, True)),
            (spec(max_parallel=3), (MAX_UNIT, False, False)),
            (spec(max_parallel=3, is_async=True), (3, False, True)),
            (spec(max_parallel=3, batch_size=7, is_async=True), (3, True, True)),
        ],
        ids=[
            "computes",
            "async",
            "threads",
            "alone",
            "async, alone",
            "fixed",
            "threads, fixed",
            "limited",
            "async, limited",
            "async, limited, fixed",
        ],
    )
    def test_are_those_of_the_options(self, task: TaskSpec, cut: tuple[int, bool, bool]) -> None:
        builder = Builder("run")
        add_map(builder, task, range(3))
        (item,) = compile_segment(builder.take())
        assert (item.unit_size, item.fixed_size, item.overlapping) == cut
        assert item.max_parallel == task.max_parallel

    @pytest.mark.parametrize(
        ("task", "members", "notes"),
        [
            (spec(), 3, ["quick task runs share units, up to 1000 of them or 0.1 s"]),
            (spec(), 1, []),
            (spec(is_async=True), 1, []),
            (
                spec(batch=False, max_parallel=2),
                3,
                [
                    "batch=False: every task run is a unit of its own, and never fused",
                    "max_parallel=2: at most so many task runs at once",
                ],
            ),
            (
                spec(batch_size=7, is_async=True),
                3,
                [
                    "batch_size=7: that many in every unit",
                    "async: task runs of a unit overlap on one event loop",
                ],
            ),
        ],
        ids=["adaptive", "single", "async, single", "alone", "fixed"],
    )
    def test_are_explained(self, task: TaskSpec, members: int, notes: list[str]) -> None:
        builder = Builder("run")
        add_map(builder, task, range(members))
        (item,) = compile_segment(builder.take())
        assert list(item.notes) == notes


class TestFusion:
    @staticmethod
    def behind(builder: Builder, task: TaskSpec) -> str | None:
        """Return the name of the task behind whose task runs those of another one run."""
        (item,) = (item for item in compile_segment(builder.take()) if item.group.spec is task)
        return item.fuse_behind.spec.name if item.fuse_behind else None

    @pytest.mark.parametrize(
        ("before", "after", "expected"),
        [
            ({}, {}, "before"),
            ({"ray": {"num_cpus": 1}}, {}, "before"),
            ({"ray": {"num_cpus": 2}}, {}, None),
            ({"ray": {"max_calls": 1}}, {}, None),
            ({"batch": False}, {}, None),
            ({}, {"batch_size": 3}, None),
            ({"max_parallel": 2}, {}, None),
            ({"is_async": True}, {"is_async": True}, None),
            ({}, {"max_concurrency": 2}, None),
            ({"timeout_seconds": 1.0}, {"timeout_seconds": 2.0}, "before"),
        ],
    )
    def test_of_a_map_over_a_map(
        self, before: dict[str, Any], after: dict[str, Any], expected: str | None
    ) -> None:
        builder, task = Builder("run"), spec("after", **after)
        (part,) = add_map(builder, spec("before", **before), range(3))
        add_map(builder, task, part)
        assert self.behind(builder, task) == expected

    def test_of_calls(self) -> None:
        builder, task = Builder("run"), spec("after")
        add(builder, task, one(add(builder, spec("before"))))
        assert self.behind(builder, task) == "before"

    def test_of_a_loop_in_which_each_call_needs_the_one_before(self) -> None:
        builder, task = Builder("run"), spec("link")
        part = add(builder, task)
        for _ in range(3):
            part = add(builder, task, one(part))
        assert self.behind(builder, task) == "link"

    def test_is_not_for_values_that_several_need(self) -> None:
        builder, task = Builder("run"), spec("after")
        (part,) = add_map(builder, spec("before"), range(3))
        add_map(builder, task, part)
        add_map(builder, spec("other"), part)
        assert self.behind(builder, task) is None

    def test_is_not_for_a_list_of_values(self) -> None:
        builder, task = Builder("run"), spec("after")
        (part,) = add_map(builder, spec("before"), range(3))
        add(builder, task, every(part))
        assert self.behind(builder, task) is None

    def test_says_why_not(self) -> None:
        builder, task = Builder("run"), spec("after", ray={"num_cpus": 2})
        add(builder, task, one(add(builder, spec("before"))))
        *_, item = compile_segment(builder.take())
        assert "not fused behind before: they ask for different resources" in item.notes

    def test_can_be_left_out(self) -> None:
        builder = Builder("run")
        add(builder, spec("after"), one(add(builder, spec("before"))))
        plan = compile_segment(builder.take(), fusion=False)
        assert not any(item.fuse_behind for item in plan)
