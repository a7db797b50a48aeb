"""`cancel`, asked of runs whose driver is this test."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.commands import Command
from cli.kept_runs import NOON, SECOND, close_run, keep_nightly, members, open_run, store
from raysched.cli import cancel as cancel_module
from raysched.client import get_run
from raysched.model.rows import ENGINE_LOGGER, Batch, GroupRow, LogRow, RequestRow
from raysched.model.states import StateType
from raysched.store.sql import SqlStore


@pytest.fixture
def kept() -> Iterator[SqlStore]:
    opened = store()
    yield opened
    opened.close()


@pytest.fixture
def going_on(kept: SqlStore) -> tuple[str, int]:
    """A run with three task runs, two of which are running."""
    run_id, number = open_run(kept, "nightly")
    running = members(0, range(2), StateType.RUNNING)
    kept.commit(Batch(number, groups=[GroupRow(0, "parse", 0, 3)], task_runs=[running]))
    return run_id, number


Drive = Callable[[int, Callable[[RequestRow], None]], threading.Thread]


@pytest.fixture
def drive(kept: SqlStore) -> Iterator[Drive]:
    """Waits in a thread for the first request to a run, and does what a driver does then."""
    threads: list[threading.Thread] = []
    given_up = threading.Event()

    def drive(number: int, answer: Callable[[RequestRow], None]) -> threading.Thread:
        def wait() -> None:
            while not given_up.is_set():
                for row in kept.requests(number, 0):
                    answer(row)
                    return

        thread = threading.Thread(target=wait)
        threads.append(thread)
        thread.start()
        return thread

    yield drive
    given_up.set()
    for thread in threads:
        thread.join()


class TestRun:
    def test_is_waited_for_until_it_is_cancelled(
        self, looking: Command, kept: SqlStore, going_on: tuple[str, int], drive: Drive
    ) -> None:
        run_id, number = going_on

        def answer(row: RequestRow) -> None:
            cancelled = members(0, range(3), StateType.CANCELLED)
            kept.commit(Batch(number, task_runs=[cancelled]))
            close_run(kept, number, StateType.CANCELLED, f"cancelled by {row.by}")

        drive(number, answer)
        done = looking("cancel", run_id[:10])
        assert done.code == 0
        assert (done.out, "CANCELLED in 2.5 s: cancelled by " in done.err) == ("", True)
        ((request,), host) = kept.requests(number, 0), os.uname().nodename
        assert (request.kind, request.keys) == ("cancel", ())
        assert request.by.endswith(f"@{host}")

    def test_that_completes_before_it_could_be_cancelled_is_no_success(
        self, looking: Command, kept: SqlStore, going_on: tuple[str, int], drive: Drive
    ) -> None:
        drive(going_on[1], lambda _row: close_run(kept, going_on[1]))
        done = looking("cancel", "last")
        assert done.code == 1
        assert "COMPLETED" in done.err

    def test_without_waiting_is_only_asked(
        self, looking: Command, kept: SqlStore, going_on: tuple[str, int]
    ) -> None:
        done = looking("cancel", "last", "--no-wait", "--force", "--json")
        assert (done.code, done.json()["asked"]) == (0, True)
        shown = looking("show", "last", "--json").json()
        assert (shown["state"], "has asked to cancel it" in shown["message"]) == (
            "CANCELLING",
            True,
        )
        assert "without time to clean up" in done.err
        (request,) = kept.requests(going_on[1], 0)
        assert request.kind == "kill"

    def test_that_has_ended_says_so(self, looking: Command, kept: SqlStore) -> None:
        keep_nightly(kept)
        done = looking("cancel", "last", "--json")
        assert (done.code, done.json()["asked"]) == (1, False)
        assert "it has ended COMPLETED: there is nothing to cancel" in done.err
        close_run(kept, 1, StateType.CANCELLED)
        assert looking("cancel", "last").code == 0

    def test_whose_process_died_says_so(self, looking: Command) -> None:
        other = store()
        open_run(other, "nightly")
        other.close()
        done = looking("cancel", "last")
        assert done.code == 1
        assert "its process has died" in done.err

    @pytest.mark.usefixtures("going_on")
    def test_that_does_not_answer_stays_asked(
        self, looking: Command, kept: SqlStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cancel_module, "ANSWER_SECONDS", 0.0)
        done = looking("cancel", "last")
        assert done.code == 1
        assert "its process has not answered for 0 s. It stays asked" in done.err
        assert len(kept.requests(1, 0)) == 1

    def test_ctrl_c_ends_only_the_waiting(self, kept: SqlStore, going_on: tuple[str, int]) -> None:
        command = [sys.executable, "-m", "raysched", "cancel", "last"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("asked nightly")
            process.send_signal(signal.SIGINT)
            told = process.stderr.read()
        assert (process.returncode, "still asked to cancel" in told) == (1, True)
        assert len(kept.requests(going_on[1], 0)) == 1

    def test_that_was_taken_says_what_is_waited_for(
        self, kept: SqlStore, going_on: tuple[str, int]
    ) -> None:
        number = going_on[1]
        command = [sys.executable, "-m", "raysched", "cancel", "last"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("asked nightly")
            (request,) = kept.requests(number, 0)
            taken = LogRow(-1, 0, 1, request.at, 30, ENGINE_LOGGER, "me has asked to cancel it")
            kept.commit(Batch(number, logs=[taken]))
            waits = "  taken by its process, which waits for "
            assert process.stderr.readline() == f"{waits}3 task runs to end\n"
            cancelled = members(0, range(3), StateType.CANCELLED)
            kept.commit(Batch(number, task_runs=[cancelled]))
            assert process.stderr.readline() == f"{waits}the flow function to end\n"
            close_run(kept, number, StateType.CANCELLED)
            told = process.stderr.read()
        assert (process.returncode, "CANCELLED" in told) == (0, True)

    def test_that_takes_long_says_what_people_may_do(
        self,
        looking: Command,
        kept: SqlStore,
        going_on: tuple[str, int],
        drive: Drive,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(cancel_module, "PATIENCE_SECONDS", -1.0)
        drive(going_on[1], lambda _row: close_run(kept, going_on[1], StateType.CANCELLED))
        done = looking("cancel", "last")
        assert done.code == 0
        harder = f"raysched cancel {going_on[0][:8]} --force gives it no more time"
        assert done.err.count(f"{harder}; Ctrl-C ends only this waiting\n") == 1

    def test_that_is_not_there_is_refused(self, looking: Command) -> None:
        done = looking("cancel", "nothing")
        assert (done.code, "there are no runs yet" in done.err) == (1, True)


WAITING = """
import time
from pathlib import Path
from raysched import flow, task

@task
def work(n):
    try:
        print("begun", flush=True)
        time.sleep(600)
    finally:
        Path(f"cleaned-{n}").touch()

@flow
def slow():
    work.map(range(3)).result()
"""


def test_flow_in_another_process_cleans_up_and_ends(
    raysched: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.py").write_text(WAITING, encoding="utf-8")
    command = [sys.executable, "-m", "raysched", "run", "slow.py", "--backend", "inline"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line == "begun\n")
        done = raysched("cancel", "last")
        told = process.stdout.read()
    assert (done.code, process.returncode) == (0, 1)
    assert "CANCELLED" in told
    run = get_run()
    assert run.state.is_cancelled()
    assert run.counts == {StateType.CANCELLED: 3}
    assert [path.name for path in tmp_path.glob("cleaned-*")] == ["cleaned-0"]


class TestTaskRuns:
    def test_are_waited_for(
        self, looking: Command, kept: SqlStore, going_on: tuple[str, int], drive: Drive
    ) -> None:
        def answer(row: RequestRow) -> None:
            assert row.keys == ("parse[1]",)
            # It concerns not all of the run.
            assert get_run("last").state.is_running()
            cancelled = members(0, [1], StateType.CANCELLED)
            cancelled.reasons = {0: "parse[1]: cancelled by me"}
            kept.commit(Batch(going_on[1], task_runs=[cancelled]))

        drive(going_on[1], answer)
        done = looking("cancel", "last", "--task-run", "parse[1]")
        assert done.code == 0
        assert "parse[1] CANCELLED: cancelled by me" in done.err

    @pytest.mark.parametrize(
        ("key", "told"),
        [
            ("parse[3]", "of that task it has parse[0] to parse[2]"),
            ("parse", "of that task it has parse[0] to parse[2]"),
            ("load[0]", "has no task 'load'; it has: parse"),
        ],
    )
    def test_that_are_not_there_are_refused(
        self, looking: Command, kept: SqlStore, going_on: tuple[str, int], key: str, told: str
    ) -> None:
        done = looking("cancel", "last", "--task-run", key)
        assert (done.code, told in done.err) == (2, True)
        assert kept.requests(going_on[1], 0) == []


def test_database_that_another_process_locks_for_some_seconds_is_waited_for(
    looking: Command, kept: SqlStore, going_on: tuple[str, int]
) -> None:
    """Longer than a statement waits."""
    locking = (
        "import sqlite3, sys, time\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True)\n"
        "time.sleep(6)\n"
    )
    path = os.environ["RAYSCHED_HOME"] + "/raysched.db"
    command = [sys.executable, "-c", locking, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        done = looking("cancel", "last", "--no-wait")
    assert done.code == 0
    (request,) = kept.requests(going_on[1], 0)
    assert request.at > NOON - SECOND
