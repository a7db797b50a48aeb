"""`db upgrade`, `db stats` and `db prune`."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cli.commands import Command
from cli.kept_runs import close_run, keep_billing, keep_nightly, members, open_run, store
from raysched.model.rows import Batch, GroupRow
from raysched.model.states import StateType
from raysched.results.storage import directory_of
from raysched.settings import settings
from raysched.store.sql import SqlStore
from store.samples import resumed

AGE = ("--older-than", "30d")


@pytest.fixture
def kept() -> Iterator[SqlStore]:
    opened = store()
    yield opened
    opened.close()


@pytest.fixture
def storage(home: Path) -> Path:
    return home / "results"


@pytest.fixture
def grow_old(kept: SqlStore, home: Path) -> Callable[[], None]:
    """Lets all runs that have ended have done so long ago, whatever the clock says."""
    del kept

    def grow_old() -> None:
        with closing(sqlite3.connect(home / "raysched.db")) as connection:
            connection.execute("UPDATE flow_run SET ended = 1 WHERE ended > 0")
            connection.commit()

    return grow_old


def keep_large(kept: SqlStore, storage: Path, *names: str, at: str = "") -> str:
    """Keep a run with values in the storage, or in another one."""
    run_id, number = open_run(kept, "large")
    directory = Path(directory_of(str(storage), run_id))
    told = directory_of(at, run_id) if at else directory
    columns = replace(
        members(0, range(len(names)), StateType.COMPLETED),
        locations={n: f"{told}/{name}#0+5:00" for n, name in enumerate(names)},
    )
    kept.commit(Batch(number, groups=[GroupRow(0, "load", 0, len(names))], task_runs=[columns]))
    if not at:
        directory.mkdir(parents=True)
        for name in names:
            (directory / name).write_bytes(b"large")
    close_run(kept, number)
    return run_id


def files(storage: Path) -> list[str]:
    return sorted(path.name for path in storage.rglob("*") if path.is_file())


class TestUpgrade:
    def test_makes_upgrades_and_leaves_alone(self, looking: Command, home: Path) -> None:
        path = home / "raysched.db"
        made = looking("db", "upgrade")
        assert (made.code, made.out.startswith(f"Made {path} (schema ")) == (0, True)
        assert looking("db", "upgrade").out.startswith(f"Nothing to do: {path} has schema ")
        record = looking("db", "upgrade", "--json").json()
        assert record["before"] == record["after"]


class TestStats:
    def test_tell_what_there_is(self, looking: Command, kept: SqlStore, storage: Path) -> None:
        keep_billing(kept)
        keep_nightly(kept)
        keep_large(kept, storage, "a", "b")
        record = looking("db", "stats", "--json").json()
        assert record["runs"] == {"COMPLETED": 2, "FAILED": 1}
        assert record["task_runs"] == 46
        assert record["results"]["objects"] == 2
        assert record["results"]["bytes"] == 10
        assert record["tables"]["task_run"]["rows"] == 46
        lines = looking("db", "stats").out.splitlines()
        assert max(map(len, lines[5:])) <= 80
        assert lines[2] == "runs       3: 2 completed, 1 failed"
        assert lines[4] == f"results    2 objects, 10 bytes in {storage}"

    def test_of_an_empty_database(self, looking: Command, kept: SqlStore) -> None:
        del kept
        lines = looking("db", "stats").out.splitlines()
        assert lines[2:4] == ["runs       0", "task runs  0"]
        assert lines[4].startswith("results    0 objects, 0 bytes in ")

    def test_of_no_database_are_refused(self, looking: Command) -> None:
        done = looking("db", "stats")
        assert done.code == 1
        assert "there is no database yet; the first `raysched run` makes it" in done.err


class TestPrune:
    def test_removes_runs_with_their_results(
        self, looking: Command, kept: SqlStore, storage: Path, grow_old: Callable[[], None]
    ) -> None:
        keep_billing(kept)
        run_id = keep_large(kept, storage, "a", "b")
        grow_old()
        # Of an attempt that nobody waited for any more.
        (storage / run_id / "late").write_bytes(b"late")
        _, number = open_run(kept, "nightly")
        told = looking("db", "prune", *AGE, "--dry-run").out.splitlines()
        assert told[0] == "Would remove 2 runs, 43 task runs, 3 objects of results (14 bytes)."
        assert [line.split()[1] for line in told[1:]] == ["billing,", "large,"]
        assert len(looking("runs", "--json").json()) == 3
        assert files(storage) == ["a", "b", "late"]
        done = looking("db", "prune", *AGE)
        assert done.out.splitlines()[0] == (
            "Removed 2 runs, 43 task runs, 3 objects of results (14 bytes)."
        )
        assert [run["flow"] for run in looking("runs", "--json").json()] == ["nightly"]
        assert list(storage.iterdir()) == []
        kept.commit(Batch(number, groups=[GroupRow(0, "load", 0, 1)]))
        assert looking("db", "prune", *AGE).out == "Nothing to remove.\n"

    def test_leaves_results_that_another_run_uses(
        self, looking: Command, kept: SqlStore, storage: Path, grow_old: Callable[[], None]
    ) -> None:
        first = keep_large(kept, storage, "a", "b")
        grow_old()
        _, number = open_run(kept, "again")
        borrowed = replace(
            members(0, [0], StateType.CACHED),
            locations={0: f"{directory_of(str(storage), first)}/b#0+5:00"},
        )
        kept.commit(Batch(number, groups=[GroupRow(0, "load", 0, 1)], task_runs=[borrowed]))
        record = looking("db", "prune", *AGE, "--json").json()
        assert ([run["id"] for run in record["runs"]], record["objects"]) == ([first], 1)
        assert files(storage) == ["b"]
        # It goes with the last one that uses it.
        close_run(kept, number)
        grow_old()
        record = looking("db", "prune", *AGE, "--json").json()
        assert (len(record["runs"]), record["objects"]) == (1, 1)
        assert files(storage) == []

    def test_leaves_what_is_another_runs_own(
        self, looking: Command, kept: SqlStore, storage: Path, grow_old: Callable[[], None]
    ) -> None:
        _, number = open_run(kept, "again")
        first = keep_large(kept, storage, "a", "b")
        borrowed = replace(
            members(0, [0], StateType.CACHED),
            locations={0: f"{directory_of(str(storage), first)}/b#0+5:00"},
        )
        kept.commit(Batch(number, groups=[GroupRow(0, "load", 0, 1)], task_runs=[borrowed]))
        close_run(kept, number)
        grow_old()
        kept.take_over(first, resumed)
        record = looking("db", "prune", *AGE, "--json").json()
        assert (len(record["runs"]), record["objects"]) == (1, 0)
        assert files(storage) == ["a", "b"]

    def test_keeps_what_tells_of_results_that_cannot_be_removed(
        self, looking: Command, kept: SqlStore, storage: Path, grow_old: Callable[[], None]
    ) -> None:
        run_id = keep_large(kept, storage, "a", at="elsewhere://bucket")
        keep_billing(kept)
        grow_old()
        for done in (looking("db", "prune", *AGE), looking("db", "prune", *AGE)):
            assert done.code == 1
            assert f"not removed: {run_id} (large): ValueError: Protocol not known" in done.err
        assert looking("runs", "--json").json() == []
        assert looking("db", "stats", "--json").json()["tables"]["task_run"]["rows"] == 1

    def test_without_an_age_goes_by_the_setting(
        self,
        looking: Command,
        kept: SqlStore,
        monkeypatch: pytest.MonkeyPatch,
        grow_old: Callable[[], None],
    ) -> None:
        keep_billing(kept)
        grow_old()
        done = looking("db", "prune")
        assert (done.code, "set RAYSCHED_RETENTION_DAYS" in done.err) == (2, True)
        for days, told in (
            ("36500", "Nothing to remove."),
            ("0.5", "Removed 1 run, 41 task runs."),
        ):
            monkeypatch.setenv("RAYSCHED_RETENTION_DAYS", days)
            settings.cache_clear()
            assert looking("db", "prune").out.splitlines()[0] == told

    @pytest.mark.parametrize("age", ["", "30", "d", "3x", "-1d"])
    def test_of_no_age_is_refused(self, looking: Command, kept: SqlStore, age: str) -> None:
        keep_billing(kept)
        done = looking("db", "prune", f"--older-than={age}")
        assert (done.code, "give an age such as 12h, 30d or 8w" in done.err) == (2, True)
        assert len(looking("runs", "--json").json()) == 1
