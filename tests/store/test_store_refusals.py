"""Databases that cannot be used: which error, and what it says to do."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from raysched.errors import StoreError, StoreUnavailable
from raysched.model.rows import Batch
from raysched.store import open_reader, open_store
from raysched.store import sqlite as sqlite_module
from store.samples import closing, flow_run, group, task_runs

TESTS = Path(__file__).parents[1]


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("no url", "'no url' cannot be understood"),
            ("", "'' cannot be understood"),
            ("postgresql://host:port/db", "cannot be understood"),
            ("mysql://me:secret@host/db", r"mysql://me:\*\*\*@host/db: mysql is not supported"),
            ("sqlite://", "names no file"),
            ("sqlite:///:memory:", "names no file"),
        ],
    )
    def test_is_refused_with_the_forms(self, url: str, says: str) -> None:
        for open_it in (open_store, open_reader):
            with pytest.raises(StoreError, match=f"(?s){says}.*use sqlite:///path"):
                open_it(url)

    def test_without_the_driver_for_postgresql(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(StoreError, match=r'pip install "raysched\[postgres\]"'):
            open_store("postgresql://me@host/db")

    def test_home_is_expanded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        open_store("sqlite:///~/deep/er/runs.db").close()
        assert (tmp_path / "deep" / "er" / "runs.db").exists()

    def test_path_may_have_any_characters(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'a %20 dir#1' / 'runs;ü.db'}"
        store = open_store(url)
        store.open_run(flow_run())
        reader = open_reader(url)
        assert len(reader.runs()) == 1
        reader.close()
        store.close()


class Partition(NamedTuple):
    mountpoint: str
    fstype: str


class TestPlace:
    def test_directory_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreUnavailable, match=r"its directory cannot be used.*RAYSCHED_HOME"):
            open_store(f"sqlite:///{tmp_path}/file/runs.db")

    def test_path_that_is_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailable, match="cannot be opened"):
            open_store(f"sqlite:///{tmp_path}")

    def test_file_that_is_no_database(self, sqlite_path: Path) -> None:
        sqlite_path.write_text("What a nice day. " * 100, encoding="utf-8")
        with pytest.raises(StoreUnavailable, match="not a SQLite database"):
            open_store(f"sqlite:///{sqlite_path}")
        reader = open_reader(f"sqlite:///{sqlite_path}")
        with pytest.raises(StoreUnavailable, match="not a SQLite database"):
            reader.runs()

    @pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "lustre"])
    def test_network_file_system(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        partitions = [Partition("/", "ext4"), Partition(str(tmp_path), kind)]
        monkeypatch.setattr(psutil, "disk_partitions", lambda *, all: partitions)  # noqa: A006, ARG005
        url = f"sqlite:///{tmp_path}/deeper/runs.db"
        says = rf"{tmp_path} is a network file system \({kind}\).*PostgreSQL"
        with pytest.raises(StoreUnavailable, match=says):
            open_store(url)
        assert not (tmp_path / "deeper" / "runs.db").exists()
        partitions.append(Partition(str(tmp_path / "deeper"), "ext4"))
        open_store(url).close()

    def test_no_right_to_write(self, tmp_path: Path) -> None:
        writable, read_only, closed = (tmp_path / name for name in ("warm", "file", "directory"))
        for directory in (writable, read_only):
            store = open_store(f"sqlite:///{directory}/runs.db")
            store.commit(closing(store.open_run(flow_run())))
            store.close()
        closed.mkdir()
        closed.chmod(0o555)
        (read_only / "runs.db").chmod(0o444)
        read_only.chmod(0o555)
        for directory in tmp_path.parents:
            if directory.name.startswith(("pytest-", "popen-")):
                directory.chmod(0o755)
        tmp_path.chmod(0o755)
        urls = [f"sqlite:///{path}/runs.db" for path in (writable, read_only, closed)]
        # Rights do not bind root, so root becomes nobody once everything is imported.
        script = (
            "import os, sys; from raysched.store import open_reader, open_store\n"
            "open_store(sys.argv[1]).close(); open_reader(sys.argv[1]).runs()\n"
            "os.geteuid() or os.setuid(65534)\n"
            "for url in sys.argv[2:]:\n"
            "    try: open_store(url)\n"
            "    except Exception as error: print(type(error).__name__, error)\n"
            "print(open_reader(sys.argv[2]).find_run('last').state.name)\n"
        )
        command = [sys.executable, "-c", script, *urls]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        file, directory_, looked_at = done.stdout.splitlines()
        for said, path in ((file, read_only), (directory_, closed)):
            assert said.startswith(f"StoreUnavailable {path}/runs.db: ")
            assert "give this user the right to write" in said
        # Looking needs no such right.
        assert looked_at == "COMPLETED"

    def test_locked_for_too_long_and_then_free(
        self, sqlite_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_module, "LOCK_SECONDS", 0.05)
        store = open_store(f"sqlite:///{sqlite_path}")
        row = flow_run()
        number = store.open_run(row)
        batch = Batch(number, groups=[group()], task_runs=[task_runs(0, range(10))])
        other = sqlite3.connect(sqlite_path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another process has locked it"):
            store.commit(batch)
        other.execute("ROLLBACK")
        other.close()
        store.commit(batch)
        reader = open_reader(f"sqlite:///{sqlite_path}")
        assert sum(reader.find_run(row.id).counts.values()) == 10
        reader.close()
        store.close()


class TestFullDisk:
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Path]:
        """A disk of 1 MiB."""
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, stderr=-3).returncode != 0:
            pytest.skip("only root may mount a small disk")
        yield tmp_path
        subprocess.run(["umount", str(tmp_path)], check=True)

    def test_nothing_is_lost_and_it_goes_on(self, disk: Path) -> None:
        filler = disk / "filler"
        url = f"sqlite:///{disk / 'runs.db'}"
        store = open_store(url)
        row = flow_run()
        number = store.open_run(row)
        store.commit(Batch(number, groups=[group(size=2000)]))
        filler.write_bytes(b"x" * 700_000)
        columns = task_runs(0, range(2000))
        columns.values = [b"y" * 100] * 2000
        columns.sizes = [100] * 2000
        batch = Batch(number, task_runs=[columns])
        with pytest.raises(StoreUnavailable, match="disk is full; free some space"):
            store.commit(batch)
        filler.unlink()
        store.commit(batch)
        reader = open_reader(url)
        assert sum(reader.find_run(row.id).counts.values()) == 2000
        reader.close()
        store.close()


def test_file_that_may_not_grow(sqlite_path: Path) -> None:
    """As with a quota: works without root, and ends in the same kind of error."""
    script = (
        "import resource, sys\n"
        "from store.samples import flow_run, group, task_runs\n"
        "from raysched.errors import StoreUnavailable\n"
        "from raysched.model.rows import Batch\n"
        "from raysched.store import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "number = store.open_run(flow_run(id='aa'))\n"
        "batch = Batch(number, groups=[group(size=9000)], task_runs=[task_runs(0, range(9000))])\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))\n"
        "try: store.commit(batch)\n"
        "except StoreUnavailable as error: print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "store.commit(batch)\n"
    )
    url = f"sqlite:///{sqlite_path}"
    command = [sys.executable, "-c", script, url]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "look for a full or failing disk" in done.stdout
    reader = open_reader(url)
    assert sum(reader.find_run("aa").counts.values()) == 9000
    reader.close()


def test_server_that_is_not_there(tmp_path: Path) -> None:
    url = f"postgresql://me:secret@/db?host={tmp_path}"
    for look in (open_store, lambda url: open_reader(url).runs()):
        with pytest.raises(StoreUnavailable, match="the server cannot be reached") as caught:
            look(url)
        assert "secret" not in str(caught.value)
