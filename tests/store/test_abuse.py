"""What must not harm a database: kills while it is written, loss of power, others that hold it."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing as closing_after
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from raysched.errors import StoreUnavailable
from raysched.model.rows import Batch
from raysched.settings import Settings
from raysched.store import open_store
from raysched.store import postgresql as postgresql_module
from raysched.store import sqlite as sqlite_module
from raysched.store.database import database
from servers import Server
from store.samples import flow_run, group

TESTS = Path(__file__).parents[1]

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has begun to write, and does not end."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_killed_while_writing_at_200_random_moments(sqlite_path: Path) -> None:
    command = [sys.executable, str(TESTS / "store" / "killed.py"), str(sqlite_path), "200", "1122"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    }
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("200 kills, "), done.stderr


class TestLossOfPower:
    """Whether a commit waits for the disk; no test can take the power away."""

    @pytest.mark.parametrize(("synchronous", "number"), [("FULL", 2), ("NORMAL", 1)])
    def test_the_connections_that_commit_wait_as_told(
        self, sqlite_path: Path, synchronous: str, number: int
    ) -> None:
        opened = database(f"sqlite:///{sqlite_path}", synchronous=synchronous)
        opened.prepare()
        with opened.committing() as execute:
            assert execute("PRAGMA synchronous", ()).fetchone() == (number,)
        with opened.writing() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == number
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        opened.close()

    def test_a_postgresql_that_does_not_wait_is_told_to(self, postgresql: Server) -> None:
        """As `off` is for all of a server, or asked for in the URL."""
        postgresql.execute("CREATE DATABASE lazy")
        postgresql.execute("ALTER DATABASE lazy SET synchronous_commit = off")
        url = postgresql.url.replace("/postgres?", "/lazy?")
        for options, expected in (("", "on"), ("&options=-csynchronous_commit%3Doff", "off")):
            opened = database(url + options)
            with opened.committing() as execute:
                assert execute("SHOW synchronous_commit", ()).fetchone() == (expected,)
            opened.close()
        postgresql.execute("DROP DATABASE lazy")

    def test_full_is_what_nobody_has_to_ask_for(self) -> None:
        assert Settings.model_fields["sqlite_synchronous"].default == "FULL"


class TestHeldByAnother:
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_module, "LOCK_SECONDS", 0.05)
        monkeypatch.setattr(sqlite_module, "PATIENCE_SECONDS", 0.05)

    def test_it_is_named(self, sqlite_path: Path) -> None:
        store = open_store(f"sqlite:///{sqlite_path}")
        number = store.open_run(flow_run())
        batch = Batch(number, groups=[group()])
        with held(sqlite_path) as process:
            named = rf"{sqlite_path}: process {process.pid} \(.*python.* has locked it"
            with pytest.raises(StoreUnavailable, match=f"(?s){named}"):
                store.commit(batch)
            # Also who opens it is told.
            with pytest.raises(StoreUnavailable, match=f"(?s){named}"):
                open_store(f"sqlite:///{sqlite_path}")
        store.commit(batch)
        store.close()

    def test_where_the_system_does_not_tell(
        self, sqlite_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("raysched.store.lockholders.LOCKS", tmp_path / "nothing")
        store = open_store(f"sqlite:///{sqlite_path}")
        with held(sqlite_path), pytest.raises(StoreUnavailable, match="another process has locked"):
            store.open_run(flow_run())
        store.close()

    def test_one_that_reads_for_long_holds_nobody_up(self, sqlite_path: Path) -> None:
        store = open_store(f"sqlite:///{sqlite_path}")
        number = store.open_run(flow_run())
        with closing_after(sqlite3.connect(sqlite_path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM flow_run").fetchone()
            store.commit(Batch(number, groups=[group()]))
            assert reader.execute("SELECT count(*) FROM task_group").fetchone() == (0,)
        store.close()


class TestRefusalsOfPostgreSQL:
    """What a server says is told apart where it says it by a code of its own."""

    def test_rows_that_another_session_holds(
        self, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(postgresql_module._SESSION, "lock_timeout", "50ms")  # noqa: SLF001
        store = open_store(postgresql_url)
        number = store.open_run(flow_run())
        batch = Batch(number, groups=[group()])
        with psycopg.connect(postgresql_url) as other:
            other.execute("SELECT number FROM flow_run FOR UPDATE")
            with pytest.raises(StoreUnavailable, match=r"another session.*pg_stat_activity"):
                store.commit(batch)
        store.commit(batch)
        store.close()

    def test_a_user_who_may_not_write(self, postgresql: Server, postgresql_url: str) -> None:
        open_store(postgresql_url).close()
        postgresql.execute("CREATE ROLE reader LOGIN")
        url = postgresql_url.replace("raysched@", "reader@")
        with pytest.raises(StoreUnavailable, match=r"search_path.*grant its use"):
            open_store(url)
        schema = postgresql_url.rpartition("%3D")[2]
        postgresql.execute(f"GRANT USAGE ON SCHEMA {schema} TO reader")
        postgresql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader")
        store = open_store(url)
        with pytest.raises(StoreUnavailable, match=r"may not be written.*the right to create"):
            store.open_run(flow_run())
        store.close()
        postgresql.execute("DROP OWNED BY reader")
        postgresql.execute("DROP ROLE reader")

    def test_a_server_with_no_connection_left(self, postgresql: Server) -> None:
        postgresql.execute("CREATE ROLE lonely LOGIN CONNECTION LIMIT 0")
        url = postgresql.url.replace("raysched@", "lonely@")
        with pytest.raises(StoreUnavailable, match=r"refuses to work.*too many connections"):
            open_store(url)
        postgresql.execute("DROP ROLE lonely")
