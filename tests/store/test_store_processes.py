"""Several processes at one database, and what is left of those that are killed."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing as closing_after
from pathlib import Path

import pytest

from faults.drivers import until
from raysched.model.rows import Batch
from raysched.model.states import StateType
from raysched.store import open_reader, open_store, postgresql
from raysched.store.reader import Reader
from raysched.store.views import RunView
from store.samples import closing, execute, flow_run, group, task_runs

TESTS = Path(__file__).parents[1]

TERMINATE = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND datname = current_database()"
)
"""Ends all other connections, as a restart of the server does."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(url: str) -> Iterator[Start]:
    """Starts a writer; ends those that are left."""
    started: list[subprocess.Popen[str]] = []

    def start(run_id: str, commits: int = 0, rows: int = 10) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, TESTS / "store" / "writer.py", url, run_id, str(commits), str(rows)],
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the writer ended early"
    return line.strip()


def test_writers_at_once_do_not_disturb_each_other(start: Start, reader: Reader) -> None:
    writers = [start(f"{n:x}{n:x}", commits=40, rows=25) for n in range(4)]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    runs = reader.runs()
    assert [run.state for run in runs] == [StateType.COMPLETED] * 4
    assert [run.counts[StateType.COMPLETED] for run in runs] == [1000] * 4
    for run in runs:
        assert [record.id for record in reader.logs(run)] == list(range(1, 41))


def killed(writer: "subprocess.Popen[str]", url: str, reader: Reader, run_id: str) -> RunView:
    """Kill a writer; return its run as it is seen at once."""
    writer.kill()
    writer.wait()
    if url.startswith("postgresql"):
        # Only when its server has noticed, and what it was about to do is done.
        until(lambda: reader.find_run(run_id).lost, "the end of its sessions")
    return reader.find_run(run_id)


def test_killed_driver_is_seen_at_once(url: str, start: Start, reader: Reader) -> None:
    writer = start("aa")
    while wait_for_line(writer) == "open":
        pass
    assert reader.find_run("aa").state is StateType.RUNNING
    # Stopped, it is as silent as one that holds the GIL for ever, but it is not dead.
    writer.send_signal(signal.SIGSTOP)
    assert reader.find_run("aa").state is StateType.RUNNING
    run = killed(writer, url, reader, "aa")
    assert (run.state, run.message, run.lost) == (StateType.CRASHED, "driver lost", True)
    assert run.counts[StateType.COMPLETED] >= 10


def test_what_was_committed_survives_a_kill(url: str, start: Start, reader: Reader) -> None:
    chance = random.Random(20261120)
    rows = 300
    writers = {f"{n:x}{n:x}": start(f"{n:x}{n:x}", rows=rows) for n in range(4)}
    confirmed = {}
    for run_id, writer in writers.items():
        lines = [wait_for_line(writer) for _ in range(chance.randint(1, 30))]
        killed(writer, url, reader, run_id)
        assert writer.stdout is not None
        lines += writer.stdout.read().split()
        confirmed[run_id] = int(lines[-1].replace("open", "0"))
    for run_id, commits in confirmed.items():
        run = reader.find_run(run_id)
        completed = run.counts.get(StateType.COMPLETED, 0)
        # The last commit may have been done but not yet confirmed.
        assert completed in {commits * rows, (commits + 1) * rows}
        assert len(reader.logs(run)) == completed // rows
        assert run.state is StateType.CRASHED
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with closing_after(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_many_may_open_a_new_database_at_once(url: str, reader: Reader) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(open_store, [url] * 8))
    for store in stores:
        store.open_run(flow_run())
    assert len(reader.runs(states={StateType.RUNNING})) == 8
    for store in stores:
        store.close()


class TestOwnProcess:
    def test_open_run_is_not_lost_and_looking_does_not_lose_it(
        self, url: str, reader: Reader
    ) -> None:
        store = open_store(url)
        row = flow_run()
        store.open_run(row)
        for _ in range(2):
            assert reader.find_run(row.id).state is StateType.RUNNING
        # Another process can still tell, too.
        probe = (
            "import sys; from raysched.store import open_reader; "
            "print(open_reader(sys.argv[1]).find_run('last').state.name)"
        )
        command = [sys.executable, "-c", probe, url]
        seen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert seen.strip() == "RUNNING"
        store.close()
        assert reader.find_run(row.id).state is StateType.CRASHED

    def test_other_stores_of_the_process_do_not_disturb(self, url: str, reader: Reader) -> None:
        first, second = open_store(url), open_store(url)
        row = flow_run()
        first.open_run(row)
        second.open_run(flow_run())
        second.close()
        open_store(url).close()
        assert reader.find_run(row.id).state is StateType.RUNNING
        first.close()

    def test_closed_run_keeps_its_state_when_its_store_closes(
        self, url: str, reader: Reader
    ) -> None:
        store = open_store(url)
        row = flow_run()
        number = store.open_run(row)
        columns = task_runs(0, [0], StateType.RUNNING)
        store.commit(Batch(number, groups=[group(size=1)], task_runs=[columns]))
        store.commit(closing(number, StateType.CANCELLED))
        store.close()
        run = reader.find_run(row.id)
        assert (run.state, run.lost) == (StateType.CANCELLED, False)
        assert run.counts == {StateType.RUNNING: 1}


def test_link_to_a_database_is_the_same_database(sqlite_path: Path) -> None:
    link = sqlite_path.with_name("link.db")
    link.symlink_to(sqlite_path)
    store = open_store(f"sqlite:///{sqlite_path}")
    store.open_run(flow_run())
    open_store(f"sqlite:///{link}").close()
    reader = open_reader(f"sqlite:///{link}")
    assert reader.find_run("last").state is StateType.RUNNING
    store.close()
    assert reader.find_run("last").state is StateType.CRASHED
    reader.close()


def test_lock_files_of_the_dead_are_removed(sqlite_path: Path) -> None:
    url = f"sqlite:///{sqlite_path}"
    directory = sqlite_path.with_name("runs.db.drivers")
    directory.mkdir()
    (directory / "00000000000000aa").touch()
    store = open_store(url)
    assert list(directory.iterdir()) == []
    store.open_run(flow_run())
    assert len(list(directory.iterdir())) == 1
    store.close()
    assert list(directory.iterdir()) == []


def test_server_that_comes_back_brings_the_lock_back(postgresql_url: str) -> None:
    store, reader = open_store(postgresql_url), open_reader(postgresql_url)
    row = flow_run()
    number = store.open_run(row)
    execute(postgresql_url, TERMINATE)
    store.commit(Batch(number, groups=[group()]))
    assert reader.find_run(row.id).state is StateType.RUNNING
    reader.close()
    store.close()


def test_idle_driver_takes_its_lock_again(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by looking now and then, but because it is told.
    monkeypatch.setattr(postgresql, "LISTEN_SECONDS", 1000)
    store, reader = open_store(postgresql_url), open_reader(postgresql_url)
    store.open_run(flow_run())
    execute(postgresql_url, TERMINATE)
    # The test's time limit ends this if the lock does not come back.
    while reader.find_run("last").state is not StateType.RUNNING:
        pass
    reader.close()
    store.close()
