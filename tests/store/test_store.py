"""What every store promises (the shared suite of the port), seen through the reader."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, repeat
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from raysched.engine.ports import Store
from raysched.errors import (
    RunExists,
    RunTakenOver,
    StoreError,
    StoreUnavailable,
)
from raysched.model.records import Kept
from raysched.model.rows import AttemptRow, Batch, FlowRunChange, GroupRow, InputRow
from raysched.model.states import StateType
from raysched.store import open_reader, open_store
from raysched.store.database import Execute
from raysched.store.reader import Reader
from raysched.store.sql import SqlStore
from raysched.store.sqlite import SQLite
from store.samples import ERROR, NOON, closing, execute, flow_run, group, log, task_runs


class TestRuns:
    def test_comes_back_as_it_was_opened(self, store: Store, reader: Reader) -> None:
        row = flow_run(
            parameters='{"day": "2026-11-20"}',
            tags=("nightly", "prod"),
            target="flow.py:nightly",
            backend="inline",
            versions='{"python": "3.11"}',
            key="nightly-2026-11-20",
            identity=b"0123456789abcdef",
            rerun_of="ab" * 16,
        )
        number = store.open_run(row)
        view = reader.find_run(row.id)
        assert view.number == number
        assert {name: getattr(view, name) for name in row.__slots__} == {
            name: getattr(row, name) for name in row.__slots__
        }

    def test_has_its_own_number(self, store: Store) -> None:
        assert store.open_run(flow_run()) != store.open_run(flow_run())

    def test_opened_again_after_an_unclear_error_is_the_same(self, store: Store) -> None:
        row = flow_run()
        assert store.open_run(row) == store.open_run(row)

    def test_of_one_key_is_opened_once(self, store: Store, reader: Reader, url: str) -> None:
        first = flow_run(key="2026-11-20")
        number = store.open_run(first)
        assert store.open_run(first) == number
        other = open_store(url)
        for opening in (store, other):
            with pytest.raises(RunExists, match=f"key '2026-11-20': flow run {first.id}") as raised:
                opening.open_run(flow_run(key="2026-11-20"))
            assert raised.value.run_id == first.id
        other.open_run(flow_run(key="2026-11-21"))
        other.close()
        assert [run.key for run in reader.runs()] == ["2026-11-21", "2026-11-20"]

    def test_changes(self, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        change = FlowRunChange(StateType.FAILED, "1 failure", NOON + 5, ERROR, attempts=2, late=3)
        store.commit(Batch(number, flow_run=change))
        view = reader.find_run(row.id)
        assert (view.state, view.message, view.ended) == (StateType.FAILED, "1 failure", NOON + 5)
        assert (view.error, view.attempts, view.late) == (ERROR, 2, 3)

    def test_keeps_pickled_parameters(self, store: Store, url: str) -> None:
        store.open_run(flow_run(pickled_parameters=b"\x00\x80pickled"))
        ((kept,),) = execute(url, "SELECT pickled_parameters FROM flow_run")
        assert bytes(kept) == b"\x00\x80pickled"

    def test_unknown_number_is_refused(self, store: Store) -> None:
        with pytest.raises(StoreError, match="no run with the number 4711"):
            store.commit(Batch(4711, groups=[group()]))


class TestTaskRuns:
    def test_come_back_as_they_were_committed(self, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        columns = task_runs(0, [3, 7], StateType.UPSTREAM_FAILED)
        columns.attempts = [0, 2]
        columns.started = [0, NOON]
        columns.ended = [NOON + 1, NOON + 2]
        columns.values = [None, b"envelope"]
        columns.sizes = [0, 8]
        columns.names = {1: "parse a.csv"}
        columns.roots = {0: ("load[1]", "load[2]")}
        columns.handled = frozenset({0})
        columns.reasons = {0: "stopped by max_failures=2"}
        columns.rolled_back = frozenset({1})
        group_row = GroupRow(0, "parse", 100, 10, mapped=True, tags=("io",))
        store.commit(Batch(number, groups=[group_row], task_runs=[columns]))
        run = reader.find_run(row.id)
        first, second = (reader.task_run(run, "parse", index) for index in (103, 107))
        assert first is not None
        assert second is not None
        assert (first.key, first.index, first.tags) == ("parse[103]", 103, ("io",))
        assert (first.state, first.attempts) == (StateType.UPSTREAM_FAILED, 0)
        assert (first.started, first.ended, first.name) == (0, NOON + 1, "parse[103]")
        assert (first.roots, first.handled) == (("load[1]", "load[2]"), True)
        assert (second.started, second.ended, second.name) == (NOON, NOON + 2, "parse a.csv")
        assert (second.roots, second.handled, second.size) == ((), False, 8)
        assert (first.reason, first.rolled_back) == ("stopped by max_failures=2", False)
        assert (second.reason, second.rolled_back) == ("", True)
        assert reader.value(run, "parse", 107) == b"envelope"
        assert reader.value(run, "parse", 103) is None
        assert reader.groups(run) == [group_row]

    def test_later_rows_replace_earlier_ones(self, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        running = task_runs(0, range(10), StateType.RUNNING)
        store.commit(Batch(number, groups=[group()], task_runs=[running]))
        store.commit(Batch(number, task_runs=[task_runs(0, range(5))]))
        counts = reader.find_run(row.id).counts
        assert counts == {StateType.COMPLETED: 5, StateType.RUNNING: 5}

    def test_what_is_kept_stays_when_a_later_row_has_none(
        self, store: Store, reader: Reader
    ) -> None:
        row = flow_run()
        number = store.open_run(row)
        first = replace(task_runs(0, [1, 2]), values=[b"a", None], locations={1: "s3://r/b#0+1:c"})
        store.commit(Batch(number, groups=[group()], task_runs=[first]))
        store.commit(Batch(number, task_runs=[task_runs(0, [1, 2, 3])]))
        views = reader.task_runs(reader.find_run(row.id), offset=1, limit=3)
        assert [(view.kept, view.location) for view in views] == [
            (Kept.INLINE, ""),
            (Kept.STORED, "s3://r/b#0+1:c"),
            (Kept.NOTHING, ""),
        ]

    def test_the_last_row_of_a_batch_wins(self, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        begun, ended = (
            task_runs(0, [1, 2], state) for state in (StateType.RUNNING, StateType.COMPLETED)
        )
        store.commit(Batch(number, groups=[group(size=3)], task_runs=[begun, ended]))
        assert reader.find_run(row.id).counts == {
            StateType.SCHEDULED: 1,
            StateType.COMPLETED: 2,
        }

    def test_many_at_once(self, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        # Not a multiple of any chunk.
        size = 5_003
        store.commit(
            Batch(number, groups=[group(size=size)], task_runs=[task_runs(0, range(size))])
        )
        run = reader.find_run(row.id)
        assert run.counts == {StateType.COMPLETED: size}
        assert [view.index for view in reader.task_runs(run)] == list(range(size))

    def test_columns_of_unequal_length_are_refused_whole(
        self, store: Store, reader: Reader
    ) -> None:
        row = flow_run()
        number = store.open_run(row)
        columns = task_runs(0, [1, 2])
        columns.states = bytearray([StateType.COMPLETED])
        with pytest.raises(ValueError, match="shorter"):
            store.commit(Batch(number, groups=[group()], task_runs=[columns]))
        assert reader.groups(reader.find_run(row.id)) == []


class TestValues:
    def test_are_read_by_position(self, store: Store) -> None:
        number, other = store.open_run(flow_run()), store.open_run(flow_run())
        columns = replace(task_runs(0, range(5)), values=[b"a", None, b"c", b"d", b"e"])
        store.commit(Batch(number, groups=[group(0, 5)], task_runs=[columns]))
        store.commit(Batch(other, groups=[group(0, 5)], task_runs=[task_runs(0, range(5))]))
        assert store.values(number, 0, 0, 4) == {0: b"a", 2: b"c", 3: b"d"}
        assert not store.values(number, 1, 0, 4)
        assert not store.values(other, 0, 0, 4)


class TestGroups:
    def test_come_back_as_they_were_committed(self, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        plain = group(0)
        planned = replace(group(1, task="clean"), plan='{"unit_size": 5}', options='{"a": 1}')
        store.commit(Batch(number, groups=[planned, plain]))
        assert reader.groups(reader.find_run(row.id)) == [plain, planned]

    def test_units_are_counted_later(self, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        opened = Batch(number, groups=[group(0), group(1), group(2)])
        store.commit(opened)
        for _ in range(2):
            store.commit(Batch(number, units={0: 3, 2: 0}))
        # Nothing else of the group changes, nor does its row take the number back.
        store.commit(opened)
        kept = reader.groups(reader.find_run(row.id))
        assert kept == [replace(group(0), units=3), group(1), replace(group(2), units=0)]


class TestAttempts:
    def test_come_back_as_they_were_committed(self, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        failed = AttemptRow(0, 1, 1, StateType.FAILED, NOON, NOON + 1, ERROR)
        passed = AttemptRow(0, 1, 2, StateType.COMPLETED, NOON + 2, NOON + 3)
        other = AttemptRow(1, 0, 1, StateType.CRASHED, NOON, NOON + 1, ERROR, "no retries left")
        batch = Batch(number, attempts=[failed, passed, other])
        store.commit(batch)
        store.commit(batch)
        run = reader.find_run(row.id)
        assert reader.attempts(run) == [failed, passed, other]
        assert reader.attempts(run, group=1) == [other]
        assert reader.attempts(run, group=0, index=1) == [failed, passed]
        assert reader.attempts(run, group=0, index=2) == []


class TestInputs:
    def test_are_kept_as_they_were_first_committed(self, store: Store, url: str) -> None:
        number = store.open_run(flow_run())
        shared = InputRow(0, -1, b"\x00shared", '[["gather", 1, 0, 3, false]]')
        single = InputRow(0, 7, b"payload")
        for _ in range(2):
            store.commit(Batch(number, inputs=[shared, single, single]))
        kept = execute(url, "SELECT idx, payload, slots FROM task_input ORDER BY idx")
        assert [(index, bytes(payload), slots) for index, payload, slots in kept] == [
            (-1, b"\x00shared", '[["gather", 1, 0, 3, false]]'),
            (7, b"payload", "[]"),
        ]


class TestLogs:
    def test_are_numbered_in_order(self, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        store.commit(Batch(number, groups=[group()], logs=[log("a"), log("b", group=-1)]))
        store.commit(Batch(number, logs=[log("c", index=4)]))
        records = reader.logs(reader.find_run(row.id))
        assert [(record.id, record.message) for record in records] == [(1, "a"), (2, "b"), (3, "c")]
        assert [record.key for record in records] == ["parse[0]", "", "parse[4]"]

    def test_committed_again_are_there_once(self, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        store.commit(Batch(number, logs=[log("a")]))
        batch = Batch(number, logs=[log("b"), log("c")])
        store.commit(batch)
        store.commit(batch)
        store.commit(Batch(number, logs=[log("d")]))
        records = reader.logs(reader.find_run(row.id))
        assert [record.message for record in records] == ["a", "b", "c", "d"]

    def test_batch_that_grew_before_it_was_committed_again(
        self, store: Store, reader: Reader
    ) -> None:
        row = flow_run()
        number = store.open_run(row)
        batch = Batch(number, logs=[log("a")])
        store.commit(batch)
        batch.logs.append(log("b"))
        store.commit(batch)
        store.commit(Batch(number, logs=[log("c")]))
        records = reader.logs(reader.find_run(row.id))
        assert [record.message for record in records] == ["a", "b", "c"]

    def test_go_on_counting_in_another_store(self, url: str, store: Store, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        store.commit(Batch(number, logs=[log("a")]))
        other = open_store(url)
        other.commit(Batch(number, logs=[log("b")]))
        other.close()
        records = reader.logs(reader.find_run(row.id), after=1)
        assert [(record.id, record.message) for record in records] == [(2, "b")]

    @pytest.mark.parametrize("message", ["a\0b", "half \ud83d", "whole \N{OWL}", ""])
    def test_any_text_can_be_kept(self, store: Store, reader: Reader, message: str) -> None:
        row = flow_run(message=message, parameters=message)
        number = store.open_run(row)
        columns = task_runs(0, [0])
        columns.names = {0: message}
        store.commit(
            Batch(number, groups=[group()], task_runs=[columns], logs=[log(message), log("end")])
        )
        run = reader.find_run(row.id)
        records = reader.logs(run)
        kept = (
            message.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
        )
        assert [record.message for record in records] == [kept, "end"]
        assert run.message == kept


class UnclearDatabase(SQLite):
    """Loses answers: what it did is reported as failed."""

    losses: Iterator[bool] = repeat(object=False)

    @contextmanager
    def committing(self) -> Iterator[Execute]:
        with super().committing() as execute:
            yield execute
        if next(self.losses):
            raise StoreUnavailable("the answer got lost")


def test_commit_that_arrived_but_failed_is_there_once(sqlite_path: Path) -> None:
    database = UnclearDatabase(make_url(f"sqlite:///{sqlite_path}"), "FULL")
    store = SqlStore(database)
    row = flow_run()
    number = store.open_run(row)
    database.losses = cycle([True, False])
    for message in ("a", "b", "c"):
        batch = Batch(number, groups=[group()], logs=[log(message)])
        with pytest.raises(StoreUnavailable, match="the answer got lost"):
            store.commit(batch)
        store.commit(batch)
    store.close()
    reader = open_reader(f"sqlite:///{sqlite_path}")
    records = reader.logs(reader.find_run(row.id))
    assert [(record.id, record.message) for record in records] == [(1, "a"), (2, "b"), (3, "c")]
    reader.close()


class TestEpoch:
    def test_writer_of_an_older_epoch_is_stopped(
        self, store: Store, reader: Reader, url: str
    ) -> None:
        row = flow_run()
        number = store.open_run(row)
        execute(url, "UPDATE flow_run SET epoch = 2")
        with pytest.raises(RunTakenOver, match="epoch 2, ours is 1"):
            store.commit(Batch(number, groups=[group()]))
        assert reader.groups(reader.find_run(row.id)) == []
        store.commit(Batch(number, epoch=2, groups=[group()]))
        assert reader.groups(reader.find_run(row.id)) == [group()]


class TestSharing:
    def test_threads_may_share_a_store(self, store: Store, reader: Reader) -> None:
        rows = [flow_run() for _ in range(4)]

        def write(number: int) -> None:
            store.commit(Batch(number, groups=[group(size=200)]))
            for start in range(0, 200, 10):
                columns = task_runs(0, range(start, start + 10))
                store.commit(Batch(number, task_runs=[columns], logs=[log(str(start))]))
            store.commit(closing(number))

        threads = [threading.Thread(target=write, args=[store.open_run(row)]) for row in rows]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        runs = reader.runs()
        assert [run.counts for run in runs] == [{StateType.COMPLETED: 200}] * 4
        for run in runs:
            assert [record.id for record in reader.logs(run)] == list(range(1, 21))

    def test_closing_twice_is_closing(self, url: str) -> None:
        store = open_store(url)
        store.open_run(flow_run())
        store.close()
        store.close()
