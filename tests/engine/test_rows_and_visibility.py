"""From the tracker's records to rows, and from committed rows to what is visible."""

import json
from collections.abc import Iterable
from typing import Any

from raysched.compiler.plan import PlannedGroup
from raysched.engine.recording import columns, fill, group_row, publish
from raysched.graph.builder import Builder
from raysched.graph.group import Group
from raysched.model.rows import Batch
from raysched.model.states import StateType
from raysched.model.values import LargeValue
from raysched.tracker.messages import Record, RecordAttempt
from tracker.graphs import add, add_map, every, one, spec


def group_of(size: int, **options: Any) -> Group:
    builder = Builder("run")
    add_map(builder, spec(**options), range(size))
    (group,) = builder.take()
    return group


class TestFill:
    def test_writes_each_member_once_in_order(self) -> None:
        group = group_of(4)
        group.states[:] = bytes([2, 16, 16, 2])
        batch = Batch(1)
        records = [Record(group, [3, 1]), Record(group, [1, 2])]
        assert fill(batch, records) == [(group, [1, 2, 3])]
        (rows,) = batch.task_runs
        assert (rows.indices, rows.states) == ([1, 2, 3], [16, 16, 2])

    def test_writes_attempts_with_their_reasons(self) -> None:
        group = group_of(1)
        batch = Batch(1)
        fill(batch, [RecordAttempt(group, 0, 2, StateType.FAILED, 5, 6, None, "no retries")])
        (row,) = batch.attempts
        assert (row.group, row.index, row.attempt, row.stop_reason) == (0, 0, 2, "no retries")


class TestColumns:
    def test_keep_small_values_and_the_size_of_large_ones(self) -> None:
        group = group_of(3)
        group.values[:] = [b"small", LargeValue(object(), 0, 10**9), None]
        rows = columns(group, [0, 1, 2])
        assert rows.values == [b"small", None, None]
        assert rows.sizes == [5, 10**9, 0]

    def test_leave_out_values_that_shall_not_persist(self) -> None:
        group = group_of(1, persist_result=False)
        group.values[0] = b"secret"
        assert columns(group, [0]).values == [None]

    def test_say_by_position_what_only_some_have(self) -> None:
        group = group_of(4)
        group.names[2] = "parse a.csv"
        group.roots[3] = ((group, 1), (group, 0))
        group.handled.add(1)
        rows = columns(group, [1, 2, 3])
        assert rows.names == {1: "parse a.csv"}
        assert rows.roots == {2: ("task[1]", "task[0]")}
        assert rows.handled == {0}


class TestPublish:
    def test_tells_the_watchers_once_of_each_that_ended(self) -> None:
        group = group_of(3)
        told: list[int] = []

        def watch(_: Group, ended: Iterable[int]) -> None:
            told.extend(ended)

        group.watchers.append(watch)
        group.states[:] = bytes([16, 2, 19])
        publish(group, [0, 1, 2])
        publish(group, [0, 2])
        assert told == [0, 2]
        assert group.open_visible == 1
        assert [group.is_visible(index) for index in range(3)] == [True, False, True]


class TestGroupRow:
    def test_tells_edges_of_all_members_in_full_and_others_by_parent(self) -> None:
        builder = Builder("run")
        (parents,) = add_map(builder, spec("parents"), range(3))
        single = add(builder, spec("single"))
        (mapped,) = add_map(builder, spec("mapped"), parents, static=[every(parents)])
        alone = add(builder, spec("alone"), one(single), one(parents, 1))
        called_twice = spec("called twice")
        several = add(builder, called_twice, one(single))
        add(builder, called_twice, one(parents, 1))
        groups = {group.spec.name: group for group in builder.take()}
        assert json.loads(group_row(PlannedGroup(mapped[0])).edges) == [
            [groups["parents"].id, "gather", 0, 3],
            [groups["parents"].id, "one_to_one", 0, 1],
        ]
        assert json.loads(group_row(PlannedGroup(alone[0])).edges) == [
            [groups["single"].id, "broadcast", 0, 1],
            [groups["parents"].id, "broadcast", 1, 2],
        ]
        assert json.loads(group_row(PlannedGroup(several[0])).edges) == [
            [groups["single"].id, "broadcast", -1, -1],
            [groups["parents"].id, "broadcast", -1, -1],
        ]

    def test_tells_of_the_plan_what_is_not_usual(self) -> None:
        first, second = group_of(3), group_of(3)
        usual = group_row(PlannedGroup(second, unit_size=1000))
        assert json.loads(str(usual.plan)) == {"unit_size": 1000}
        special = PlannedGroup(
            second,
            scheduling_class=(("num_cpus", "2"),),
            unit_size=5,
            fixed_size=True,
            overlapping=True,
            fuse_behind=first,
            notes=("so", "and so"),
        )
        assert json.loads(str(group_row(special).plan)) == {
            "unit_size": 5,
            "fixed": True,
            "overlapping": True,
            "class": {"num_cpus": "2"},
            "notes": ["so", "and so"],
            "fused_behind": first.id,
        }
