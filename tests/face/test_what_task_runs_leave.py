"""What a task run changes in its process is put back after it; what it leaves there is told."""

import asyncio
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from raysched import Task, flow, get_run, task

MANY = 30


class Seen(NamedTuple):
    """What a task run found when it began."""

    process: int
    directory: str
    variables: frozenset[tuple[str, str]]
    interrupt: str


def look() -> Seen:
    """Return what is there now."""
    variables = frozenset(os.environ.items())
    handler = repr(signal.getsignal(signal.SIGINT)).split(" at 0x")[0]
    return Seen(os.getpid(), str(Path.cwd()), variables, handler)


def change(number: int, directory: str) -> None:
    """Change all that can be changed."""
    os.chdir(directory)
    os.environ["RAYSCHED_TEST_LEFT"] = str(number)
    os.environ.pop("PATH", None)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@task
def leave_all(number: int, directory: str) -> Seen:
    """Return what was there, and leave everything changed."""
    seen = look()
    change(number, directory)
    return seen


@task
def leave_all_and_fail(number: int, directory: str) -> Seen:
    """Leave everything changed, and fail."""
    change(number, directory)
    raise ValueError(number)


@task(timeout_seconds=0.05)
def leave_all_too_late(number: int, directory: str) -> Seen:
    """Leave everything changed, and take too long."""
    change(number, directory)
    time.sleep(60)
    raise AssertionError


@task
async def leave_all_async(number: int, directory: str) -> Seen:
    """As `leave_all`, overlapping with others."""
    seen = look()
    await asyncio.sleep(0)
    change(number, directory)
    return seen


@task
def begin() -> Seen:
    """Return what is there."""
    return look()


@flow
def in_turn(directory: str) -> list[Seen]:
    """Let task runs follow each other."""
    return leave_all.map(range(MANY), directory).result()


@flow
def one_by_one(changing: Task[[int, str], Seen], directory: str) -> list[Seen]:
    """Let them follow each other in units of their own."""
    seen = []
    for number in range(4):
        changing.submit(number, directory).result(raise_on_failure=False)
        seen.append(begin())
    return seen


def assert_each_found_the_same(seen: list[Seen]) -> None:
    """Check that in each process all found what the first one did."""
    first: dict[int, Seen] = {}
    for each in seen:
        assert first.setdefault(each.process, each) == each


def test_task_runs_of_a_unit_begin_with_the_same(tmp_path: Path) -> None:
    seen = in_turn(str(tmp_path))
    assert len(seen) == MANY
    assert len({each.process for each in seen}) < MANY
    assert_each_found_the_same(seen)
    assert str(tmp_path) not in {each.directory for each in seen}


@pytest.mark.parametrize(
    "changing",
    [
        leave_all,
        leave_all_and_fail,
        leave_all_too_late,
        leave_all_async,
        leave_all.with_options(max_concurrency=2),
    ],
    ids=["returns", "fails", "times out", "async", "max_concurrency"],
)
def test_units_begin_with_the_same(changing: Any, tmp_path: Path) -> None:
    seen = one_by_one(changing, str(tmp_path))
    assert_each_found_the_same(seen)
    assert str(tmp_path) not in {each.directory for each in seen}


@pytest.mark.usefixtures("in_this_process")
def test_the_programs_own_process_is_as_before(tmp_path: Path) -> None:
    before = look()
    in_turn(str(tmp_path))
    one_by_one(leave_all, str(tmp_path))
    assert look() == before


@pytest.mark.usefixtures("in_this_process")
def test_a_task_called_by_a_task_gives_back_what_it_found(tmp_path: Path) -> None:
    @task
    def outer(directory: str) -> tuple[str, str | None]:
        os.chdir(directory)
        os.environ["RAYSCHED_TEST_LEFT"] = "outer"
        leave_all(1, "/")
        return str(Path.cwd()), os.environ.get("RAYSCHED_TEST_LEFT")

    @flow
    def nested() -> tuple[str, str | None]:
        return outer(str(tmp_path))

    assert nested() == (str(tmp_path), "outer")
    assert "RAYSCHED_TEST_LEFT" not in os.environ


def test_thread_left_behind_is_told(tmp_path: Path) -> None:
    @task
    def start_poller(stop: Path) -> int:
        def poll() -> None:
            while not stop.exists():
                time.sleep(0.01)

        threading.Thread(target=poll, name="poller", daemon=True).start()
        return os.getpid()

    @flow
    def pollers() -> list[int]:
        return start_poller.map([tmp_path / "stop"] * MANY).result()

    processes = set(pollers())
    (tmp_path / "stop").touch()
    warnings = [record for record in get_run("last").logs() if record.level == logging.WARNING]
    assert len(warnings) == len(processes)
    for record in warnings:
        assert "'poller' (daemon)" in record.message
        assert record.task == "start_poller"


def test_quiet_task_runs_are_told_nothing_of() -> None:
    @task
    def quiet(number: int) -> int:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        return number

    @flow
    def many() -> None:
        quiet.map(range(MANY)).wait()

    many()
    assert get_run("last").logs() == []
