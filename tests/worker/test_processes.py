"""Processes that a task run starts end with it if it is ended from outside, and only they."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from raysched import once_per_worker
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.worker import processes
from raysched.worker.objects import objects
from worker.unit_runs import Call, Ended, new_context, new_run, outcome, outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of a test, which are ended after it in any case."""
    found: list[subprocess.Popen[str]] = []
    yield found
    for process in found:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def hang() -> None:
    threading.Event().wait()


def timed_out(function: Callable[..., Any], **options: Any) -> Ended:
    found = outcome(function, options={"timeout_seconds": 0.2, **options})
    assert found.state is StateType.TIMED_OUT
    return found


def test_those_of_an_interrupted_item_are_ended(started: list[subprocess.Popen[str]]) -> None:
    started.append(subprocess.Popen(SLEEPER, text=True))

    def work() -> None:
        started.append(subprocess.Popen(SLEEPER, text=True))
        hang()

    # Those before have begun an instant of the kernel's clock earlier.
    threading.Event().wait(2 / os.sysconf("SC_CLK_TCK"))
    found = timed_out(work)
    before, after = started
    assert is_running(before.pid)
    assert not is_running(after.pid)
    assert [log.message.rpartition(": ")[0] for log in found.logs] == [
        "processes that it had started were ended with it"
    ]


def test_descendants_and_those_that_ignore_sigterm(started: list[subprocess.Popen[str]]) -> None:
    children: list[int] = []

    def work() -> None:
        command = [sys.executable, "-c", STUBBORN]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        children.append(int(process.stdout.readline()))
        hang()

    timed_out(work, timeout_seconds=1.0)
    assert children
    assert not is_running(started[0].pid)
    assert not is_running(children[0])


def test_what_the_item_itself_cleans_up_is_left_to_it(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    def work() -> None:
        process = subprocess.Popen(SLEEPER, text=True)
        started.append(process)
        try:
            hang()
        finally:
            process.send_signal(signal.SIGINT)
            (tmp_path / "code").write_text(str(process.wait()))

    found = timed_out(work)
    assert (tmp_path / "code").read_text() == str(-signal.SIGINT)
    assert not found.logs


def test_threads_that_the_item_started_count(started: list[subprocess.Popen[str]]) -> None:
    def start() -> None:
        started.append(subprocess.Popen(SLEEPER, text=True))
        begun.set()
        hold.wait()

    hold, begun = threading.Event(), threading.Event()
    thread = threading.Thread(target=start)

    def work() -> None:
        thread.start()
        begun.wait()
        hang()

    timed_out(work)
    assert not is_running(started[0].pid)
    hold.set()
    thread.join()


def test_threads_that_were_there_before_do_not(started: list[subprocess.Popen[str]]) -> None:
    """They may be the program's own."""

    def start() -> None:
        wanted.wait()
        started.append(subprocess.Popen(SLEEPER, text=True))
        begun.set()
        hold.wait()

    hold, wanted, begun = threading.Event(), threading.Event(), threading.Event()
    thread = threading.Thread(target=start)
    thread.start()
    threading.Event().wait(2 / os.sysconf("SC_CLK_TCK"))

    def work() -> None:
        wanted.set()
        begun.wait()
        hang()

    timed_out(work)
    assert is_running(started[0].pid)
    hold.set()
    thread.join()


def test_an_item_that_ends_by_itself_leaves_what_it_leaves(
    started: list[subprocess.Popen[str]],
) -> None:
    def work(number: int) -> None:
        started.append(subprocess.Popen(SLEEPER, text=True))
        if number:
            raise ValueError

    states = [each.state for each in run(work, [((0,), {}), ((1,), {})])]
    assert states == [StateType.COMPLETED, StateType.FAILED]
    assert all(is_running(process.pid) for process in started)


def test_what_one_leaves_is_not_ended_with_the_next(
    started: list[subprocess.Popen[str]],
) -> None:
    """Also if that begins in the same tick of the kernel's clock: so it is now and then."""

    def work(number: int) -> None:
        started.append(subprocess.Popen(SLEEPER, text=True))
        if number:
            hang()

    for _ in range(4):
        first, second = run(work, [((0,), {}), ((1,), {})], timeout_seconds=0.5)
        assert (first.state, second.state) == (StateType.COMPLETED, StateType.TIMED_OUT)
        assert [is_running(process.pid) for process in started[-2:]] == [True, False]


def run(function: Callable[..., Any], calls: list[Call], **options: Any) -> list[Ended]:
    return outcomes(new_run(new_context(TaskSpec("work", function, **options)), calls))


def test_neighbours_in_threads_keep_theirs(started: list[subprocess.Popen[str]]) -> None:
    pids: dict[int, int] = {}
    cancelled = threading.Event()

    def work(number: int) -> bool:
        process = subprocess.Popen(SLEEPER, text=True)
        started.append(process)
        pids[number] = process.pid
        if number == 0:
            while len(pids) < 2:
                pass
            unit.cancel([0])
            while True:
                pass
        # Not only when it ends: also when items begin.
        while 0 not in pids:
            pass
        cancelled.wait()
        return is_running(process.pid)

    calls: list[Call] = [((0,), {}), ((1,), {})]
    unit = new_run(new_context(TaskSpec("work", work, max_concurrency=2)), calls)
    unit.progress.on_change = lambda: (
        cancelled.set() if 0 in pids and 0 not in unit.progress.running else None
    )
    first, second = outcomes(unit)
    assert (first.state, second.value) == (StateType.CANCELLED, True)
    assert not is_running(pids[0])
    assert is_running(pids[1])


def test_items_of_an_event_loop_wait_for_each_other(
    started: list[subprocess.Popen[str]],
) -> None:
    pids: dict[int, int] = {}
    ended = asyncio.Event()

    async def work(number: int) -> bool:
        process = subprocess.Popen(SLEEPER, text=True)  # noqa: ASYNC220 - the fixture ends it
        started.append(process)
        pids[number] = process.pid
        if number == 0:
            unit.cancel([0])
            try:
                await asyncio.sleep(600)
            finally:
                asyncio.get_running_loop().call_soon(ended.set)
        await ended.wait()
        return is_running(process.pid)

    calls: list[Call] = [((0,), {}), ((1,), {})]
    unit = new_run(new_context(TaskSpec("work", work, is_async=True)), calls)
    first, second = outcomes(unit)
    assert (first.state, second.value) == (StateType.CANCELLED, True)
    assert not is_running(pids[0])


def test_helpers_of_multiprocessing_stay() -> None:
    from multiprocessing import resource_tracker

    helpers: list[int] = []
    context = multiprocessing.get_context("spawn")

    def work() -> None:
        resource_tracker.ensure_running()
        helpers.append(resource_tracker._resource_tracker._pid)  # type: ignore[attr-defined] # noqa: SLF001 - nobody else tells
        process = context.Process(target=hang)
        process.start()
        helpers.append(process.pid or 0)
        hang()

    timed_out(work, timeout_seconds=1.0)
    assert [is_running(pid) for pid in helpers] == [True, False]


def server() -> Iterator[int]:
    """Make what needs a process of its own."""
    with subprocess.Popen(SLEEPER) as process:
        yield process.pid
        process.kill()


def test_those_of_objects_once_per_worker_stay(started: list[subprocess.Popen[str]]) -> None:
    pids: list[int] = []

    def work(pid: int) -> None:
        started.append(subprocess.Popen(SLEEPER, text=True))
        pids.extend((pid, started[0].pid))
        hang()

    found = outcome(work, once_per_worker(server), options={"timeout_seconds": 1.0})
    assert found.state is StateType.TIMED_OUT
    assert [is_running(pid) for pid in pids] == [True, False]
    objects.close()
    assert not is_running(pids[0])


def test_all_end_with_their_process() -> None:
    """As before `os._exit`, which would leave them behind."""
    script = f"""
import os, subprocess, sys
from raysched.worker.processes import end_processes
started = [subprocess.Popen({SLEEPER!r}) for _ in range(2)]
assert len(end_processes()) == 2
print(*(process.pid for process in started), flush=True)
os._exit(1)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False
    )
    assert found.returncode == 1
    assert [is_running(int(pid)) for pid in found.stdout.split()] == [False, False]


def test_where_the_system_does_not_tell_children(
    monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[str]]
) -> None:
    """As on a kernel without CONFIG_PROC_CHILDREN."""
    read = processes._read  # noqa: SLF001 - stands for the kernel

    def refuse(path: str) -> bytes:
        if path.endswith("children"):
            raise FileNotFoundError(path)
        return read(path)

    monkeypatch.setattr(processes, "_read", refuse)

    def work() -> None:
        started.append(subprocess.Popen(SLEEPER, text=True))
        hang()

    timed_out(work)
    assert not is_running(started[0].pid)
