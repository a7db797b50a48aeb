"""Exactly one process owns a flow run, and the others are told who it is."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.drivers import until
from raysched.errors import RunNotFound, RunOwned, RunTakenOver
from raysched.model.rows import AttemptRow, Batch, FlowRunChange
from raysched.model.states import StateType
from raysched.model.values import CrashKind
from raysched.store import open_store
from raysched.store.reader import Reader
from raysched.store.sql import SqlStore
from store.samples import ERROR, NOON, closing, flow_run, group, log, resumed, task_runs

TESTS = Path(__file__).parents[1]

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def other(url: str) -> Iterator[SqlStore]:
    """A store of another driver, if of this process."""
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def start(url: str) -> Iterator[Start]:
    """Starts a taker of a run, and waits until it is ready; ends those that are left."""
    started: list[subprocess.Popen[str]] = []

    def start(run_id: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, TESTS / "store" / "taker.py", url, run_id],
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the taker ended early"
    return line.strip()


def tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("take\n")
    process.stdin.flush()


def lost_run(url: str, *batches: Batch, **columns: object) -> str:
    """Leave an open run whose driver is gone; return its id."""
    row = flow_run(**columns)
    store = open_store(url)
    number = store.open_run(row)
    for batch in batches:
        batch.run = number
        store.commit(batch)
    store.close()
    return row.id


class TestProcesses:
    def test_of_several_that_try_at_once_one_wins(self, url: str, start: Start) -> None:
        run_id = lost_run(url)
        takers = [start(run_id) for _ in range(4)]
        assert [heard(taker) for taker in takers] == ["ready"] * 4
        for taker in takers:
            tell(taker)
        told = {taker.pid: heard(taker) for taker in takers}
        (winner,) = (pid for pid, line in told.items() if line == "taken 2")
        owner = f"process {winner} on {socket.gethostname()} is working on it"
        assert sum(f"RunOwned: run {run_id}: {owner}" in line for line in told.values()) == 3

    def test_the_next_gets_what_a_killed_one_has_left(
        self, url: str, start: Start, reader: Reader
    ) -> None:
        run_id = lost_run(url)
        first, second = start(run_id), start(run_id)
        for taker in (first, second):
            heard(taker)
        tell(first)
        assert heard(first) == "taken 2"
        tell(second)
        assert heard(second).startswith(f"RunOwned: run {run_id}: process {first.pid} on ")
        first.kill()
        first.wait()
        if url.startswith("postgresql"):
            # Only when its server has noticed.
            until(lambda: reader.find_run(run_id).lost, "the end of its session")
        tell(second)
        assert heard(second) == "taken 3"


class TestTakingOver:
    def test_makes_the_run_go_on_as_it_was_opened(
        self, url: str, other: SqlStore, reader: Reader
    ) -> None:
        run_id = lost_run(
            url,
            Batch(0, flow_run=FlowRunChange(StateType.RUNNING, "waits", attempts=2)),
            pickled_parameters=b"\x00parameters",
            tags=("prod",),
            key="2026-11-20",
        )
        assert reader.find_run(run_id).lost
        taken = other.take_over(run_id, resumed)
        assert (taken.row.id, taken.row.epoch, taken.row.state) == (run_id, 2, StateType.RUNNING)
        assert (taken.row.pickled_parameters, taken.row.tags) == (b"\x00parameters", ("prod",))
        assert (taken.row.key, taken.row.attempts, taken.row.message) == ("2026-11-20", 3, "")
        view = reader.find_run(run_id)
        assert (view.number, view.state, view.lost) == (taken.number, StateType.RUNNING, False)
        other.commit(Batch(taken.number, epoch=2, logs=[log("again")]))
        assert [record.message for record in reader.logs(view)] == ["again"]

    def test_is_refused_while_the_driver_lives(self, store: SqlStore, other: SqlStore) -> None:
        row = flow_run()
        number = store.open_run(row)
        for asking in (other, store):
            with pytest.raises(RunOwned, match=f"process {os.getpid()} on .* is working on it"):
                asking.take_over(row.id, resumed)
        store.commit(Batch(number, groups=[group()]))

    def test_of_an_ended_run_needs_no_dead_driver(
        self, store: SqlStore, other: SqlStore, reader: Reader
    ) -> None:
        row = flow_run()
        number = store.open_run(row)
        failed = FlowRunChange(StateType.FAILED, "1 failed", NOON, ERROR, result=b"envelope")
        store.commit(Batch(number, flow_run=failed))
        assert other.take_over(row.id, resumed).row.error is None
        view = reader.find_run(row.id)
        assert (view.state, view.message, view.ended) == (StateType.RUNNING, "", 0)
        assert (view.error, view.counts) == (None, {})
        assert other.records(number).flow_runs == []
        with pytest.raises(RunTakenOver, match="epoch 2, ours is 1"):
            store.commit(Batch(number, groups=[group()]))
        assert reader.groups(view) == []

    def test_by_the_same_store_follows_an_end(self, store: SqlStore) -> None:
        row = flow_run()
        number = store.open_run(row)
        for epoch in (1, 2, 3):
            store.commit(Batch(number, epoch, flow_run=FlowRunChange(StateType.FAILED, ended=NOON)))
            assert store.take_over(row.id, resumed).row.epoch == epoch + 1

    def test_of_an_unknown_run_is_refused(self, store: SqlStore) -> None:
        with pytest.raises(RunNotFound, match="run 'abc': there is no such run"):
            store.take_over("abc", resumed)


class TestAttempts:
    def test_on_their_way_have_crashed_with_their_driver(
        self, url: str, other: SqlStore, reader: Reader
    ) -> None:
        done = task_runs(0, range(2))
        running = task_runs(0, [2, 3], StateType.RUNNING)
        running.attempts = [1, 2]
        pending, cancelling, queued, waiting = (
            task_runs(0, [index], state)
            for index, state in (
                (4, StateType.PENDING),
                (5, StateType.CANCELLING),
                (6, StateType.PENDING),
                (7, StateType.AWAITING_RETRY),
            )
        )
        pending.started = queued.started = [0]
        queued.attempts = [0]
        earlier = AttemptRow(0, 3, 1, StateType.FAILED, NOON, NOON + 1, ERROR)
        waits = AttemptRow(0, 7, 1, StateType.FAILED, NOON, NOON + 1, ERROR)
        columns = [done, running, pending, cancelling, queued, waiting]
        run_id = lost_run(
            url, Batch(0, groups=[group()], task_runs=columns, attempts=[earlier, waits])
        )
        lost = reader.find_run(run_id)
        before = [view.state for view in reader.task_runs(lost)]
        taken = other.take_over(run_id, resumed)
        run = reader.find_run(run_id)
        views = list(reader.task_runs(run))
        # As it was shown, but for those that nobody had begun.
        assert [view.state for view in views[:6]] == before[:6]
        assert [view.state for view in views[2:8]] == [StateType.CRASHED] * 4 + [
            StateType.PENDING,
            StateType.AWAITING_RETRY,
        ]
        attempts = reader.attempts(run)
        assert attempts[1] == earlier
        assert attempts[-1] == waits
        crashed = [row for row in attempts if row.state is StateType.CRASHED]
        assert [(row.index, row.attempt) for row in crashed] == [(2, 1), (3, 2), (4, 1), (5, 1)]
        assert {row.error.kind for row in crashed if row.error} == {CrashKind.DRIVER_LOST}
        assert {view.error.kind for view in views[2:6] if view.error} == {CrashKind.DRIVER_LOST}
        # It lived at least until the last thing that it told.
        assert {row.ended for row in crashed} == {NOON + 1_000_001}
        assert {view.ended for view in views[2:6]} == {NOON + 1_000_001}
        assert other.records(taken.number).groups[0].states[:8] == bytes(
            view.state for view in views[:8]
        )

    def test_of_many_task_runs_are_ended_at_once(
        self, url: str, other: SqlStore, reader: Reader
    ) -> None:
        size = 3000
        running = task_runs(0, range(size), StateType.RUNNING)
        run_id = lost_run(url, Batch(0, groups=[group(size=size)], task_runs=[running]))
        other.take_over(run_id, resumed)
        run = reader.find_run(run_id)
        assert run.counts == {StateType.CRASHED: size}
        assert len(reader.attempts(run)) == size


def test_ending_what_was_taken_over(url: str, other: SqlStore, reader: Reader) -> None:
    run_id = lost_run(url, Batch(0, groups=[group(size=2)], task_runs=[task_runs(0, [0])]))
    taken = other.take_over(run_id, resumed)
    end = closing(taken.number)
    end.epoch, end.task_runs = taken.row.epoch, [task_runs(0, [1])]
    other.commit(end)
    assert reader.find_run(run_id).counts == {StateType.COMPLETED: 2}
