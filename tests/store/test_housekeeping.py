"""Old runs go with everything of theirs; open ones stay, and what they need."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from raysched.errors import RunNotFound, RunTakenOver, StoreError
from raysched.model.events import ClusterEvent, EventKind
from raysched.model.records import CacheClaim, CacheVerdict
from raysched.model.rows import AttemptRow, Batch, FlowRunChange, InputRow, PlaceRow
from raysched.model.states import StateType
from raysched.store import open_housekeeping, open_store, room
from raysched.store.database import database
from raysched.store.housekeeping import Housekeeping
from raysched.store.reader import Reader
from raysched.store.sql import SqlStore
from raysched.store.tables import METADATA
from store.samples import ERROR, NOON, execute, flow_run, group, log, resumed, task_runs

TESTS = Path(__file__).parents[1]

DAY = 24 * 3600 * 10**9

OLD, NEW = NOON, NOON + 10 * DAY
"""When runs ended."""

BETWEEN = NOON + DAY


@pytest.fixture
def keeper(store: SqlStore, url: str) -> Iterator[Housekeeping]:
    del store
    keeper = open_housekeeping(url)
    yield keeper
    keeper.close()


def keep(store: SqlStore, run_id: str, ended: int = OLD, size: int = 3, **columns: object) -> int:
    """Keep a run that has rows in every table; with `ended` 0 it stays open."""
    number = store.open_run(flow_run(id=run_id, **columns))
    store.claim(number, [CacheClaim(run_id.encode().ljust(16), 0, 0, "parse")])
    store.commit(
        Batch(
            number,
            groups=[group(0, size), group(1, 1, "load")],
            task_runs=[
                replace(task_runs(0, range(size)), locations={0: f"/r/{run_id}/a-1#0+1:ab"})
            ],
            attempts=[AttemptRow(0, 1, 1, StateType.FAILED, NOON, NOON, ERROR)],
            logs=[log(str(n)) for n in range(size)],
            inputs=[InputRow(0, 1, b"payload")],
            deliveries=[(0, 1), (0, 0)],
            places=[PlaceRow(1, "", "", 4711, "here")],
            events=[ClusterEvent(EventKind.NODE_ADDED, NOON, "bee")],
        )
    )
    if ended:
        store.commit(Batch(number, flow_run=FlowRunChange(StateType.COMPLETED, ended=ended)))
    return number


def prune(keeper: Housekeeping, before: int = BETWEEN) -> list[str]:
    runs = keeper.hide(keeper.expired(before), before)
    keeper.delete(runs)
    return sorted(run.id for run in runs)


def count_rows(url: str) -> dict[str, int]:
    counts = {}
    for table in sorted(METADATA.tables):
        ((counts[table],),) = execute(url, f"SELECT count(*) FROM {table}")  # noqa: S608
    return counts


class TestPruning:
    def test_removes_everything_of_old_runs_and_nothing_else(
        self, store: SqlStore, reader: Reader, keeper: Housekeeping, url: str
    ) -> None:
        keep(store, "aa", NEW)
        reader.requests.ask(reader.find_run("aa").number, "cancel", "me")
        before = count_rows(url)
        keep(store, "bb", size=7000, key="nightly")
        reader.requests.ask(reader.find_run("bb").number, "cancel", "me")
        keep(store, "cc")
        (expired, other) = keeper.expired(BETWEEN)
        assert (expired.id, expired.flow, expired.ended) == ("bb", "nightly", OLD)
        assert (expired.task_runs, other.task_runs) == (7001, 4)
        assert prune(keeper) == ["bb", "cc"]
        assert count_rows(url) == before
        assert [run.id for run in reader.runs()] == ["aa"]
        assert list(reader.task_runs(reader.find_run("aa")))
        # Their key is free, and their numbers may be used again.
        keep(store, "dd", NEW, key="nightly")
        assert len(reader.logs(reader.find_run("dd"))) == 3
        assert prune(keeper) == []

    def test_leaves_open_runs_and_those_that_belong_to_them(
        self, store: SqlStore, keeper: Housekeeping, reader: Reader
    ) -> None:
        keep(store, "parent", 0)
        keep(store, "child", parent="parent")
        keep(store, "source")
        keep(store, "again", 0, rerun_of="source")
        assert prune(keeper) == []
        number = store.number_of("again")
        store.commit(Batch(number, flow_run=FlowRunChange(StateType.COMPLETED, ended=NEW)))
        assert prune(keeper) == ["source"]
        assert sorted(run.id for run in reader.runs(include_children=True)) == [
            "again",
            "child",
            "parent",
        ]

    def test_leaves_runs_that_were_lost_with_their_driver(
        self, store: SqlStore, keeper: Housekeeping, url: str
    ) -> None:
        dead = open_store(url)
        keep(dead, "lost", 0)
        dead.close()
        assert prune(keeper, NEW * 2) == []
        assert store.take_over("lost", resumed).row.epoch == 2

    def test_removes_subflows_with_the_run_that_called_them(
        self, store: SqlStore, keeper: Housekeeping, reader: Reader
    ) -> None:
        keep(store, "parent", OLD)
        keep(store, "child", NEW, parent="parent")
        keep(store, "grandchild", NEW, parent="child")
        (expired,) = keeper.expired(BETWEEN)
        assert (len(expired.members), expired.task_runs) == (3, 12)
        assert prune(keeper) == ["parent"]
        assert reader.runs(include_children=True) == []

    def test_leaves_a_run_that_somebody_has_gone_on_with(
        self, store: SqlStore, keeper: Housekeeping
    ) -> None:
        keep(store, "aa")
        expired = keeper.expired(BETWEEN)
        store.take_over("aa", resumed)
        assert keeper.hide(expired, BETWEEN) == []

    def test_what_is_being_removed_is_gone_for_everybody(
        self, store: SqlStore, keeper: Housekeeping, reader: Reader
    ) -> None:
        number = keep(store, "aa", key="nightly")
        other = keep(store, "bb", NEW)
        view = reader.find_run("aa")
        keeper.hide(keeper.expired(BETWEEN), BETWEEN)
        for look in (reader.find_run, partial(store.take_over, execution=resumed), store.number_of):
            with pytest.raises(RunNotFound):
                look("aa")
        with pytest.raises(RunNotFound):
            reader.requests.ask(view.number, "cancel", "me")
        with pytest.raises(RunTakenOver):
            store.commit(Batch(number, groups=[group(7)]))
        assert [run.id for run in reader.runs()] == ["bb"]
        assert reader.last_success(reader.find_run("bb"), "parse", 0) is None
        (answer,) = store.claim(other, [CacheClaim(b"aa".ljust(16), 0, 0, "parse")])
        assert answer.verdict is CacheVerdict.MINE

    def test_goes_on_where_it_was_killed(
        self, store: SqlStore, keeper: Housekeeping, url: str
    ) -> None:
        keep(store, "aa", NEW)
        before = count_rows(url)
        keep(store, "bb", size=20_000)
        keep(store, "cc")
        process = subprocess.Popen(
            [sys.executable, TESTS / "store" / "pruner.py", url, str(BETWEEN)],
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "hidden\n"
        process.kill()
        process.communicate()
        # Whatever is said of their age now.
        assert prune(keeper, 0) == ["bb", "cc"]
        assert count_rows(url) == before

    def test_does_not_hold_up_those_who_write(self, store: SqlStore, url: str) -> None:
        keep(store, "old", size=30_000)
        number = keep(store, "new", 0)
        keeper = open_housekeeping(url)
        pruning = threading.Thread(target=prune, args=[keeper])
        pruning.start()
        commits = 0
        while pruning.is_alive():
            store.commit(Batch(number, task_runs=[task_runs(0, range(3))]))
            commits += 1
        pruning.join()
        keeper.close()
        # Some 25 transactions, each of which lets others have their turn.
        assert commits >= 10


class TestBorrowed:
    def test_are_values_that_other_runs_have_made(
        self, store: SqlStore, keeper: Housekeeping
    ) -> None:
        keep(store, "aa")
        cached = replace(task_runs(0, [5], StateType.CACHED), locations={0: "/r/aa/a-1#0+1:ab"})
        for run_id, ended in (("bb", NEW), ("cc", 0), ("dd", OLD)):
            number = keep(store, run_id, 0, rerun_of="")
            own = replace(cached, locations={0: f"/r/aa/{run_id}#0+1:ab"})
            store.commit(Batch(number, task_runs=[own]))
            if ended:
                end = FlowRunChange(StateType.COMPLETED, ended=ended)
                store.commit(Batch(number, flow_run=end))
        expired = keeper.expired(BETWEEN)
        assert [run.id for run in expired] == ["aa", "dd"]
        assert list(keeper.locations(expired[0])) == ["/r/aa/a-1#0+1:ab"]
        assert sorted(keeper.borrowed(but=expired)) == ["/r/aa/bb#0+1:ab", "/r/aa/cc#0+1:ab"]


class TestDrivers:
    def test_that_are_dead_and_own_nothing_are_forgotten(
        self, store: SqlStore, keeper: Housekeeping, url: str
    ) -> None:
        for run_id, ended in (("aa", OLD), ("bb", NEW)):
            other = open_store(url)
            keep(other, run_id, ended)
            other.close()
        keep(store, "cc")
        assert prune(keeper) == ["aa", "cc"]
        keeper.forget_drivers(time.time_ns())
        # That of the new run, and the living one.
        assert count_rows(url)["driver"] == 2
        keep(store, "dd")


class TestStats:
    def test_count_what_is_kept(self, store: SqlStore, keeper: Housekeeping) -> None:
        keep(store, "aa", size=500)
        keep(store, "bb", 0)
        keep(store, "cc", parent="aa")
        stats = keeper.stats()
        assert stats.runs == {StateType.COMPLETED: 1, StateType.RUNNING: 1}
        assert (stats.subflows, stats.task_runs) == (1, 506)
        assert stats.rows["delivery"] == 6
        assert stats.rows.keys() == METADATA.tables.keys()
        assert stats.tables.keys() == METADATA.tables.keys()
        assert sum(stats.tables.values()) <= stats.bytes
        assert stats.tables["task_run"] > 500 * 20

    def test_of_no_database_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "none.db"
        with pytest.raises(StoreError, match="there is no database yet"):
            open_housekeeping(f"sqlite:///{path}")
        assert not path.exists()


class TestRoom:
    def test_of_removed_runs_is_given_back(self, sqlite_path: Path) -> None:
        url = f"sqlite:///{sqlite_path}"
        store = open_store(url)
        keep(store, "aa", size=40_000)
        keeper = open_housekeeping(url)
        before = keeper.stats()
        prune(keeper)
        assert keeper.stats().free > before.bytes // 2
        # While a driver lives.
        given_back = keeper.give_back()
        after = keeper.stats()
        assert given_back == before.bytes - after.bytes
        assert (after.free, after.bytes < before.bytes // 4) == (0, True)
        assert sqlite_path.stat().st_size == after.bytes
        keep(store, "bb")
        keeper.close()
        store.close()

    def test_of_files_of_older_versions_is_given_back_when_nobody_works(
        self, sqlite_path: Path
    ) -> None:
        url = f"sqlite:///{sqlite_path}"
        open_store(url).close()
        opened = database(url)
        with opened.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.executescript("PRAGMA auto_vacuum = NONE; VACUUM")
        opened.close()
        store = open_store(url)
        keep(store, "aa", size=40_000)
        keeper = open_housekeeping(url)
        prune(keeper)
        assert keeper.give_back() == 0
        free = keeper.stats().free
        assert free > 0
        store.close()
        # But for a page that tells which pages others are told of.
        assert keeper.give_back() > free * 0.9
        assert keeper.stats().free == 0
        keeper.close()
        assert execute(url, "PRAGMA auto_vacuum") == [(room.INCREMENTAL,)]

    def test_of_postgresql_is_its_own_business(self, postgresql_url: str) -> None:
        open_store(postgresql_url).close()
        keeper = open_housekeeping(postgresql_url)
        assert keeper.give_back() == 0
        assert keeper.stats().bytes > 0
        keeper.close()
