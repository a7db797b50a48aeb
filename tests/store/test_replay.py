"""What is kept of a run, told as if it was committed just now, on every store."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from raysched.model.events import ClusterEvent, EventKind
from raysched.model.rows import (
    AttemptRow,
    Batch,
    Execution,
    FlowRunChange,
    FlowRunRow,
    GroupRow,
    PlaceRow,
    TaskRunColumns,
)
from raysched.model.states import StateType
from raysched.model.values import CrashKind
from raysched.store import open_store
from raysched.store.reader import Reader
from raysched.store.replay import ROWS
from raysched.store.sql import SqlStore
from store.replays import attempts, members, told
from store.samples import ERROR, NOON, closing, flow_run, group, log, resumed, task_runs

MS = 1_000_000

HERE = PlaceRow(1, "ab", "cd", 4711, "ant")
REMOVED = ClusterEvent(EventKind.NODE_REMOVED, NOON + 5, "node bee: health check failed", {"n": 1})


def changes(batches: Sequence[tuple[FlowRunRow, Batch]]) -> list[tuple[str, StateType]]:
    return [(row.id, batch.flow_run.state) for row, batch in batches if batch.flow_run]


def eventful() -> TaskRunColumns:
    """A member with everything that one can have, one that failed, and one that followed it."""
    columns = task_runs(1, range(3), StateType.COMPLETED)
    columns.states = [StateType.COMPLETED, StateType.FAILED, StateType.UPSTREAM_FAILED]
    columns.attempts = [2, 1, 0]
    columns.started = [NOON + 3, NOON + 2, 0]
    columns.ended = [NOON + 9 * MS, NOON + 4 * MS, NOON + 6 * MS]
    columns.values = [b"small", None, None]
    columns.sizes = [5, 0, 0]
    columns.names = {0: "the first é"}
    columns.roots = {2: ("load[1]",)}
    columns.handled = frozenset({1})
    columns.reasons = {2: "stopped"}
    columns.rolled_back = frozenset({0})
    columns.locations = {0: "file:///r#0+5:ab"}
    columns.places = [1, 1, 0]
    return columns


FAILURES = [
    AttemptRow(1, 0, 1, StateType.FAILED, NOON, NOON + 1, ERROR, place=1),
    AttemptRow(1, 0, 2, StateType.COMPLETED, NOON + 3, NOON + 9 * MS, place=1),
    AttemptRow(1, 1, 1, StateType.FAILED, NOON + 2, NOON + 4 * MS, ERROR, "no retries left"),
]


def keep_whole(store: SqlStore) -> FlowRunRow:
    row = flow_run(executions=(Execution(NOON, "00-ab"),), tags=("prod",), backend="inline")
    number = store.open_run(row)
    store.commit(
        Batch(
            number,
            groups=[
                group(size=2),
                GroupRow(1, "load", 0, 3, edges="[[0, 1, -1, -1]]", tags=("x",), created=NOON - 1),
            ],
            task_runs=[task_runs(0, range(2)), eventful()],
            attempts=FAILURES,
            places=[HERE],
            logs=[log("one"), log("two", group=-1)],
            events=[REMOVED],
        )
    )
    end = FlowRunChange(StateType.FAILED, "1 failed", NOON + 20 * MS, ERROR, 2, 3, b"result")
    store.commit(Batch(number, flow_run=end))
    return row


class TestWholeRun:
    def test_comes_in_order(self, store: SqlStore, reader: Reader) -> None:
        row = keep_whole(store)
        batches = told(reader, row.id)
        # As it was opened, but for how often its function has been begun since.
        assert {each.id: each for each, _ in batches} == {row.id: replace(row, attempts=2)}
        filled = [
            [
                name
                for name in Batch.__slots__
                if name not in {"run", "epoch"} and getattr(batch, name)
            ]
            for _, batch in batches
        ]
        assert filled == [
            ["flow_run"],
            ["groups"],
            ["places"],
            ["task_runs", "attempts"],
            ["logs"],
            ["events"],
            ["flow_run"],
        ]
        view = reader.find_run(row.id)
        assert {(batch.run, batch.epoch) for _, batch in batches} == {(view.number, 1)}

    def test_tells_what_was_committed(self, store: SqlStore, reader: Reader) -> None:
        row = keep_whole(store)
        opened, groups, places, task_runs_, logs, events, closed = (
            batch for _, batch in told(reader, row.id)
        )
        assert opened.flow_run == FlowRunChange(StateType.RUNNING)
        assert [each.created for each in groups.groups] == [0, NOON - 1]
        assert groups.groups == reader.groups(reader.find_run(row.id))
        assert places.places == [HERE]
        assert attempts([(row, task_runs_)]) == FAILURES
        first, second = task_runs_.task_runs
        assert (list(first.indices), list(first.places)) == ([0, 1], [0, 0])
        # By their ends: the one that failed, the one that followed it, the one that completed.
        assert list(second.indices) == [1, 2, 0]
        assert list(second.states) == [
            StateType.FAILED,
            StateType.UPSTREAM_FAILED,
            StateType.COMPLETED,
        ]
        assert list(second.attempts) == [1, 0, 2]
        assert list(second.started) == [NOON + 2, 0, NOON + 3]
        assert list(second.ended) == [NOON + 4 * MS, NOON + 6 * MS, NOON + 9 * MS]
        assert (list(second.values), list(second.sizes)) == ([None] * 3, [0, 0, 5])
        assert (second.names, second.roots) == ({2: "the first é"}, {1: ("load[1]",)})
        assert (second.handled, second.rolled_back) == (frozenset({0}), frozenset({2}))
        assert second.reasons == {1: "stopped"}
        assert second.locations == {2: "file:///r#0+5:ab"}
        assert list(second.places) == [1, 0, 1]
        assert [(each.group, each.message) for each in logs.logs] == [(0, "one"), (-1, "two")]
        assert events.events == [REMOVED]
        end = FlowRunChange(StateType.FAILED, "1 failed", NOON + 20 * MS, ERROR, 2, 3)
        assert closed.flow_run == end

    def test_can_be_committed_elsewhere(self, store: SqlStore, reader: Reader, url: str) -> None:
        row = keep_whole(store)
        batches = told(reader, row.id)
        copy = replace(batches[0][0], id="cd" * 16)
        other = open_store(url)
        number = other.open_run(copy)
        for _, batch in batches:
            other.commit(replace(batch, run=number))
        other.close()
        again = [replace(batch, run=0) for _, batch in told(reader, copy.id)]
        assert again == [replace(batch, run=0) for _, batch in batches]

    def test_log_records_are_told_where_they_are_wanted(
        self, store: SqlStore, reader: Reader
    ) -> None:
        row = keep_whole(store)
        assert not any(batch.logs for _, batch in told(reader, row.id, logs=False))


class TestManyTaskRuns:
    def test_come_in_columns_by_their_ends(self, store: SqlStore, reader: Reader) -> None:
        size = 2 * ROWS + 100
        row = flow_run()
        number = store.open_run(row)
        backwards = task_runs(0, range(size))
        backwards.ended = [NOON + size - index + MS for index in range(size)]
        store.commit(
            Batch(
                number,
                groups=[group(0, size), group(1, 10, "load")],
                task_runs=[backwards, task_runs(1, range(10))],
                logs=[log(str(index)) for index in range(size)],
            )
        )
        store.commit(closing(number))
        batches = told(reader, row.id)
        found = members(batches)
        assert [index for group, index, *_ in found if group == 0] == list(range(size))[::-1]
        assert [index for group, index, *_ in found if group == 1] == list(range(10))
        lengths = [len(part.indices) for _, batch in batches for part in batch.task_runs]
        assert (max(lengths), sum(lengths)) == (ROWS, size + 10)
        said = [each.message for _, batch in batches for each in batch.logs]
        assert said == [str(index) for index in range(size)]

    def test_have_their_attempts_beside_them(self, store: SqlStore, reader: Reader) -> None:
        size = ROWS + 50
        row = flow_run()
        number = store.open_run(row)
        retried = task_runs(0, range(size))
        retried.attempts = [2] * size
        rows = [
            AttemptRow(0, index, attempt, state, NOON, NOON + 1)
            for index in range(size)
            for attempt, state in ((1, StateType.FAILED), (2, StateType.COMPLETED))
        ]
        store.commit(Batch(number, groups=[group(0, size)], task_runs=[retried], attempts=rows))
        batches = told(reader, row.id)
        assert attempts(batches) == rows
        for _, batch in batches:
            told_here = {(part.group, at) for part in batch.task_runs for at in part.indices}
            assert {(each.group, each.index) for each in batch.attempts} == told_here

    def test_of_many_groups_are_told_by_group(self, store: SqlStore, reader: Reader) -> None:
        count = ROWS + 10
        row = flow_run()
        number = store.open_run(row)
        groups = [group(index, 1, "call", index) for index in range(count)]
        parts = [task_runs(index, [0], StateType.FAILED) for index in range(count)]
        failures = [
            AttemptRow(index, 0, 1, StateType.FAILED, NOON, NOON + 1) for index in range(count)
        ]
        store.commit(Batch(number, groups=groups, task_runs=parts, attempts=failures))
        batches = told(reader, row.id)
        assert [group for group, *_ in members(batches)] == list(range(count))
        assert attempts(batches) == failures
        assert [each.id for _, batch in batches for each in batch.groups] == list(range(count))


class TestSubflows:
    def test_are_told_between_the_opening_and_the_closing_of_their_parent(
        self, store: SqlStore, reader: Reader
    ) -> None:
        parent = flow_run()
        top = store.open_run(parent)
        first = flow_run(parent=parent.id)
        numbers = [store.open_run(first)]
        grandchild = flow_run(parent=first.id, parent_key="load[3]")
        second = flow_run(parent=parent.id)
        numbers += [store.open_run(grandchild), store.open_run(second)]
        store.commit(Batch(top, groups=[group(size=1)], task_runs=[task_runs(0, [0])]))
        for number in (*reversed(numbers), top):
            store.commit(closing(number))
        batches = told(reader, parent.id)
        ended = StateType.COMPLETED
        assert changes(batches) == [
            (parent.id, StateType.RUNNING),
            (first.id, StateType.RUNNING),
            (grandchild.id, StateType.RUNNING),
            (grandchild.id, ended),
            (first.id, ended),
            (second.id, StateType.RUNNING),
            (second.id, ended),
            (parent.id, ended),
        ]
        assert [row.parent_key for row, _ in batches if row.id == grandchild.id] == ["load[3]"] * 2
        # The parent's own task runs come first: a subflow may stand below one of them.
        assert [bool(batch.task_runs) for _, batch in batches].index(True) < changes(batches).index(
            (first.id, StateType.RUNNING)
        ) + 2


class TestOpenRun:
    def test_has_no_closing_and_only_what_has_ended(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        columns = task_runs(0, range(3))
        columns.states = [StateType.RUNNING, StateType.COMPLETED, StateType.AWAITING_RETRY]
        columns.ended = [0, NOON + 1, NOON + 1]
        store.commit(Batch(number, groups=[group(size=4)], task_runs=[columns]))
        batches = told(reader, row.id)
        assert changes(batches) == [(row.id, StateType.RUNNING)]
        assert [index for _, index, *_ in members(batches)] == [1]

    def test_has_the_attempts_of_what_will_be_tried_again(
        self, store: SqlStore, reader: Reader
    ) -> None:
        """A resume that goes on with them tells of them in the trace of the execution before."""
        row = flow_run()
        number = store.open_run(row)
        columns = task_runs(0, range(2))
        columns.states = [StateType.AWAITING_RETRY, StateType.FAILED]
        rows = [AttemptRow(0, index, 1, StateType.FAILED, NOON, NOON + 1) for index in range(2)]
        store.commit(Batch(number, groups=[group(size=3)], task_runs=[columns], attempts=rows))
        batches = told(reader, row.id)
        assert attempts(batches) == rows
        assert [index for _, index, *_ in members(batches)] == [1]


class TestLostRun:
    @pytest.fixture
    def lost(self, url: str) -> FlowRunRow:
        """A run whose driver died; the last that it told is a log record, at NOON + 50 ms."""
        row = flow_run(executions=(Execution(NOON),))
        store = open_store(url)
        number = store.open_run(row)
        done, running = task_runs(0, [0]), task_runs(0, [1], StateType.RUNNING)
        queued, waiting = (
            task_runs(0, [index], state)
            for index, state in ((2, StateType.PENDING), (3, StateType.AWAITING_RETRY))
        )
        running.places = [1]
        queued.attempts, queued.started = [0], [0]
        waiting.ended = [NOON + 2 * MS]
        failure = AttemptRow(0, 3, 1, StateType.FAILED, NOON + 3, NOON + 2 * MS, ERROR)
        store.commit(
            Batch(
                number,
                groups=[group(size=5)],
                task_runs=[done, running, queued, waiting],
                attempts=[failure],
                places=[HERE],
                logs=[replace(log("still here"), at=NOON + 50 * MS)],
            )
        )
        store.close()
        return row

    def test_is_told_to_have_crashed_when_it_was_last_heard_of(
        self, lost: FlowRunRow, reader: Reader
    ) -> None:
        batches = told(reader, lost.id)
        last, crashed = NOON + 50 * MS, StateType.CRASHED
        assert members(batches) == [
            (0, 0, StateType.COMPLETED, NOON, NOON + MS),
            (0, 1, crashed, NOON + 1, last),
            (0, 2, crashed, 0, last),
            (0, 3, crashed, NOON + 3, last),
        ]
        (died, failed) = attempts(batches)
        assert (died.index, died.attempt, died.state, died.place) == (1, 1, crashed, 1)
        assert (died.started, died.ended) == (NOON + 1, last)
        assert died.error is not None
        assert died.error.kind == CrashKind.DRIVER_LOST
        assert (failed.index, failed.state, failed.error) == (3, StateType.FAILED, ERROR)
        end = FlowRunChange(crashed, CrashKind.DRIVER_LOST.value, last)
        assert batches[-1][1].flow_run == end

    def test_a_takeover_writes_the_same_attempts(
        self, lost: FlowRunRow, reader: Reader, store: SqlStore
    ) -> None:
        before = attempts(told(reader, lost.id))
        store.take_over(lost.id, resumed)
        assert reader.attempts(reader.find_run(lost.id)) == before

    def test_ends_after_its_subflows(self, lost: FlowRunRow, url: str, reader: Reader) -> None:
        store = open_store(url)
        child = flow_run(parent=lost.id)
        event = replace(REMOVED, at=NOON + 70 * MS)
        store.commit(Batch(store.open_run(child), events=[event]))
        store.close()
        ends = {
            row.id: batch.flow_run.ended
            for row, batch in told(reader, lost.id)
            if batch.flow_run and batch.flow_run.ended
        }
        assert ends == {child.id: NOON + 70 * MS, lost.id: NOON + 70 * MS}
