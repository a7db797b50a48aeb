"""What a resume reads of an earlier execution."""

from dataclasses import replace

import pytest

from raysched.engine.ports import Store
from raysched.errors import RunNotFound
from raysched.model.records import Kept, RecordedFlowRun
from raysched.model.rows import Batch, FlowRunChange, TaskRunColumns
from raysched.model.states import StateType
from raysched.store import open_store
from store.samples import NOON, closing, flow_run, group, identities, task_runs


def test_of_a_run_that_has_done_nothing_are_empty(store: Store) -> None:
    number = store.open_run(flow_run())
    records = store.records(number)
    assert (records.run, records.groups, records.deliveries) == (number, [], [])
    assert (records.next_group, records.next_index, records.flow_runs) == (0, {}, [])


def test_tell_what_became_of_each_member(store: Store) -> None:
    number = store.open_run(flow_run())
    row = replace(
        group(2, 5, "parse", 7), mapped=True, identities=identities(2, 5), source="0123456789abcdef"
    )
    columns = TaskRunColumns(
        2,
        [0, 1, 3],
        bytearray([StateType.COMPLETED, StateType.COMPLETED, StateType.RUNNING]),
        [1, 3, 2],
        [NOON, NOON + 1, NOON + 2],
        [NOON + 5, NOON + 6, 0],
        [b"value", None, None],
        [5, 10**9, 0],
        locations={1: "s3://bucket/r#0+9:ab"},
        rolled_back=frozenset({1}),
        handled=frozenset({0}),
    )
    store.commit(Batch(number, groups=[row], task_runs=[columns]))
    (recorded,) = store.records(number).groups
    assert (recorded.id, recorded.task, recorded.first, recorded.size) == (2, "parse", 7, 5)
    assert (recorded.mapped, recorded.source) == (True, "0123456789abcdef")
    assert recorded.identities == identities(2, 5)
    scheduled = StateType.SCHEDULED
    assert list(recorded.states) == [16, 16, scheduled, StateType.RUNNING, scheduled]
    assert list(recorded.attempts) == [1, 3, 0, 2, 0]
    assert list(recorded.started) == [NOON, NOON + 1, 0, NOON + 2, 0]
    assert list(recorded.ended) == [NOON + 5, NOON + 6, 0, 0, 0]
    assert list(recorded.kept) == [Kept.INLINE, Kept.STORED, 0, 0, 0]
    assert list(recorded.sizes) == [5, 10**9, 0, 0, 0]
    assert recorded.locations == {1: "s3://bucket/r#0+9:ab"}
    assert (recorded.rolled_back, recorded.handled) == (frozenset({1}), frozenset({0}))


def test_have_all_groups_but_those_of_attempts(store: Store) -> None:
    number, other = store.open_run(flow_run()), store.open_run(flow_run())
    inside = replace(group(4, 3, "load", 6), parent_key="parse[0]")
    groups = [group(0, 2, "load"), group(1, 4, "parse"), group(3, 4, "load", 2), inside]
    store.commit(Batch(number, groups=groups, task_runs=[task_runs(4, range(3))]))
    for some in ([task_runs(0, [1])], [task_runs(3, [3, 0]), task_runs(1, range(4))]):
        store.commit(Batch(number, task_runs=some))
    store.commit(Batch(other, groups=[group(0, 9, "load")], task_runs=[task_runs(0, range(9))]))
    records = store.records(number)
    assert [(each.id, each.task, each.first, each.size) for each in records.groups] == [
        (0, "load", 0, 2),
        (1, "parse", 0, 4),
        (3, "load", 2, 4),
    ]
    assert [list(each.states) for each in records.groups] == [[0, 16], [16] * 4, [16, 0, 0, 16]]
    assert (records.next_group, records.next_index) == (5, {"load": 9, "parse": 4})


@pytest.mark.parametrize("size", [19_999, 20_000, 45_678])
def test_of_many_members_are_complete(store: Store, size: int) -> None:
    number = store.open_run(flow_run())
    first = 12_345
    store.commit(
        Batch(
            number,
            groups=[group(0, first), group(1, size, first=first)],
            task_runs=[task_runs(0, range(first)), task_runs(1, range(size))],
        )
    )
    one, two = store.records(number).groups
    assert one.states == bytes([StateType.COMPLETED]) * first
    assert two.states == bytes([StateType.COMPLETED]) * size
    assert list(two.started) == [NOON + index for index in range(size)]


def test_values_of_groups_with_few_members_are_read_along(store: Store) -> None:
    number = store.open_run(flow_run())
    groups = [group(0, 1, "load"), group(1, 2, "load", 1), group(2, 1000, "parse")]
    columns = [task_runs(0, [0]), task_runs(1, [1]), task_runs(2, range(1000))]
    kept = [replace(each, values=[b"value"] * len(each.indices)) for each in columns]
    store.commit(Batch(number, groups=groups, task_runs=kept))
    one, two, many = store.records(number).groups
    assert (one.values, two.values, many.values) == ({0: b"value"}, {1: b"value"}, {})


def test_groups_that_are_written_again_keep_their_identities(store: Store) -> None:
    number = store.open_run(flow_run())
    row = replace(group(0, 2), identities=identities(0, 2))
    store.commit(Batch(number, groups=[row]))
    store.commit(Batch(number, groups=[replace(row, identities=b"", source="fedcba9876543210")]))
    (recorded,) = store.records(number).groups
    assert recorded.identities == identities(0, 2)
    assert recorded.source == "fedcba9876543210"


class TestDeliveries:
    def test_come_in_order_also_when_given_twice(self, store: Store) -> None:
        number, other = store.open_run(flow_run()), store.open_run(flow_run())
        again = (0, 3)
        store.commit(Batch(number, deliveries=[again, (1, 0)]))
        store.commit(Batch(other, deliveries=[(5, 5)]))
        store.commit(Batch(number, deliveries=[again]))
        assert store.records(number).deliveries == [(0, 3), (1, 0), (0, 3)]

    def test_committed_again_are_there_once(self, store: Store) -> None:
        number = store.open_run(flow_run())
        batch = Batch(number, deliveries=[(0, 1)])
        store.commit(batch)
        batch.deliveries.append((0, 0))
        store.commit(batch)
        assert store.records(number).deliveries == [(0, 1), (0, 0)]

    def test_go_on_after_those_of_another_store(self, url: str, store: Store) -> None:
        number = store.open_run(flow_run())
        store.commit(Batch(number, deliveries=[(0, 1)]))
        other = open_store(url)
        other.commit(Batch(number, deliveries=[(0, 0)]))
        other.close()
        assert store.records(number).deliveries == [(0, 1), (0, 0)]


class TestFlowRuns:
    def test_are_those_that_the_flow_function_called(self, store: Store) -> None:
        parent = flow_run()
        number = store.open_run(parent)
        done, failed, inside, other = (
            flow_run(parent=parent.id, identity=b"a" * 16),
            flow_run(parent=parent.id, identity=b"b" * 16),
            flow_run(parent=parent.id, parent_key="parse[3]"),
            flow_run(parent="elsewhere"),
        )
        completed = FlowRunChange(StateType.COMPLETED, ended=NOON, result=b"envelope")
        store.commit(Batch(store.open_run(done), flow_run=completed))
        store.open_run(failed)
        store.open_run(inside)
        store.open_run(other)
        assert store.records(number).flow_runs == [
            RecordedFlowRun(done.id, b"a" * 16, StateType.COMPLETED, b"envelope"),
            RecordedFlowRun(failed.id, b"b" * 16, StateType.RUNNING, None),
        ]


class TestNumbers:
    def test_are_found_whoever_owns_the_run(self, url: str, store: Store) -> None:
        row = flow_run()
        number = store.open_run(row)
        store.commit(closing(number))
        other = open_store(url)
        assert other.number_of(row.id) == number
        other.close()

    def test_of_unknown_runs_are_none(self, store: Store) -> None:
        with pytest.raises(RunNotFound, match="run 'abc': there is no such run"):
            store.number_of("abc")
