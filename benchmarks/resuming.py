"""Flow runs whose driver is killed at the half, and that are resumed.

What has run is counted outside: each task run appends its number, and when it began, to a file of
its worker. Number `size // 2` kills the driver of the first execution with SIGKILL.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from array import array
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from benchmarks.case import Told
from benchmarks.databases import SQLITE
from raysched import StateType, flow, task, unmapped, wait
from raysched.settings import settings

ENTRY_BYTES = 16

DRIVER, KILLED = "driver", "killed"
"""Files with the process that is to be killed, and that says that it was."""

FIRST = "SELECT id, first FROM task_group WHERE run = (SELECT max(number) FROM flow_run)"
COMPLETED = (
    "SELECT grp, idx FROM task_run WHERE run = (SELECT max(number) FROM flow_run) AND state = ?"
)


@task
def counted(number: int, directory: str, victim: int) -> int:
    os.write(_file_in(directory), array("q", (number, time.time_ns())))
    if number == victim and _is_first_time(directory):
        os.kill(int(Path(directory, DRIVER).read_text("ascii")), signal.SIGKILL)
    return number


@flow
def counted_map(size: int, directory: str) -> int:
    return sum(counted.map(range(size), unmapped(directory), unmapped(size // 2)).result())


@flow
def counted_submits(size: int, directory: str) -> int:
    futures = [counted.submit(number, directory, size // 2) for number in range(size)]
    wait(futures)
    return sum(future.result() for future in futures)


@flow
def counted_calls(size: int, directory: str) -> int:
    return sum(counted(number, directory, size // 2) for number in range(size))


def resumed_map(size: int) -> Told:
    return _resumed("counted_map", size)


def resumed_submits(size: int) -> Told:
    return _resumed("counted_submits", size)


def resumed_calls(size: int) -> Told:
    return _resumed("counted_calls", size)


def first_task(size: int) -> Told:
    """Run one task in bare Ray in a driver of its own; tell the time since it was connected."""
    script = Path(__file__).parent / "cold" / "first_task.py"
    done = subprocess.run(  # noqa: S603 - script of this package
        [sys.executable, str(script)], check=True, capture_output=True, text=True
    )
    return Told(sum(range(size)), float(done.stdout.splitlines()[-1]))


def begin(name: str, size: int, directory: str) -> None:
    """Run a flow of this module in a process that is killed."""
    Path(directory, DRIVER).write_text(str(os.getpid()), "ascii")
    globals()[name](size, directory)


def go_on(name: str) -> None:
    """Resume the run of a flow of this module; print when it had its backend (ns), and its value.

    That is when Ray was connected. Inline, it is at once, before the store is loaded.
    """
    ready = time.time_ns()
    if settings().backend == "ray":
        import ray

        connect = ray.init

        def init(**options: Any) -> Any:
            nonlocal ready
            context = connect(**options)
            ready = time.time_ns()
            return context

        setattr(ray, "init", init)  # noqa: B010 - what it returns matters to nobody here
    total = globals()[name].resume("last")
    print(ready, total)


def _resumed(name: str, size: int) -> Told:
    """Begin a flow run, have its driver killed, and go on with it in another process.

    What is told is the time until the first task run that is new.
    """
    with tempfile.TemporaryDirectory(prefix="raysched-resumed-") as directory:
        _kill(name, size, directory)
        earlier = set(Path(directory).glob("*.runs"))
        kept, began_before = _completed(), {number for number, _ in _runs(earlier)}
        resumed = _driver(f"go_on({name!r})")
        if resumed.returncode:
            raise RuntimeError(f"the run was not resumed: {resumed.stderr}")
        called, total = map(int, resumed.stdout.split())
        runs = _runs(set(Path(directory).glob("*.runs")) - earlier)
    again = [number for number, _ in runs if number in kept]
    seconds = (min(began for _, began in runs) - called) / 1e9
    twice = len(runs) - len({number for number, _ in runs})
    lost = len({number for number, _ in runs} & began_before - kept)
    return Told(total, seconds, {"repeated": len(again) + twice, "lost": lost})


def _kill(name: str, size: int, directory: str) -> None:
    """Begin a flow run; return when its driver and its workers are dead."""
    begun = _driver(f"begin({name!r}, {size}, {directory!r})")
    if begun.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the driver was not killed: {begun.stderr}")
    workers = []
    for path in Path(directory).glob("*.runs"):
        with suppress(psutil.NoSuchProcess):
            workers.append(psutil.Process(int(path.stem)))
    psutil.wait_procs(workers)


def _driver(call: str) -> subprocess.CompletedProcess[str]:
    """Call a function of this module in a process of its own."""
    return subprocess.run(  # noqa: S603 - this module
        [sys.executable, "-c", f"from {__name__} import *; {call}"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def _completed() -> set[int]:
    """Return the numbers of the task runs whose results are kept, of the newest flow run."""
    database = os.environ["RAYSCHED_DATABASE_URL"].removeprefix(SQLITE)
    with closing(sqlite3.connect(database)) as connection:
        first = dict(connection.execute(FIRST).fetchall())
        rows = connection.execute(COMPLETED, (int(StateType.COMPLETED),)).fetchall()
    return {first[group] + index for group, index in rows}


def _runs(paths: set[Path]) -> list[tuple[int, int]]:
    """Return which task runs began, and when (ns since the epoch)."""
    told: array[int] = array("q")
    for path in paths:
        content = path.read_bytes()
        # A process that is killed may have written a part of its last entry.
        told.frombytes(content[: len(content) - len(content) % ENTRY_BYTES])
    return list(zip(told[::2], told[1::2], strict=True))


@cache
def _file_in(directory: str) -> int:
    """Open the file of this process."""
    path = Path(directory, f"{os.getpid()}.runs")
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _is_first_time(directory: str) -> bool:
    try:
        Path(directory, KILLED).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
