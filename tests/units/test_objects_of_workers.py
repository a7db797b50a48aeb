"""Objects made once per worker are closed when the worker ends, however that comes about."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raysched import flow, once_per_worker, task

WAIT_SECONDS = 120
"""For what happens in milliseconds; a limit for the failing case only."""


def connect(story: Path) -> Iterator[sqlite3.Connection]:
    """Yield what only the thread that made it may close."""
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()
    with story.open("a") as file:
        file.write(f"closed {os.getpid()}\n")


@task
def ask(number: int, database: sqlite3.Connection) -> int:
    """Use it; return the process."""
    assert database.execute("SELECT ?", (number,)).fetchone() == (number,)
    return os.getpid()


@flow
def ask_many(story: Path) -> set[int]:
    """Return the processes that have one."""
    return set(ask.map(range(20), once_per_worker(connect, story)).result())


def wait_for(condition: Callable[[], object]) -> None:
    """Return when it holds."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@pytest.mark.usefixtures("on_ray")
def test_on_sigterm(tmp_path: Path) -> None:
    story = tmp_path / "story"
    processes = ask_many(story)
    for process in processes:
        os.kill(process, signal.SIGTERM)
    wait_for(lambda: story.exists() and len(story.read_text().splitlines()) == len(processes))
    assert {f"closed {process}" for process in processes} == set(story.read_text().splitlines())


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {directory!r})
from test_objects_of_workers import ask_many

if __name__ == "__main__":
    print(*ask_many(Path({story!r})))
"""


@pytest.mark.parametrize("backend", ["inline", "ray"])
def test_when_the_program_ends(backend: str, tmp_path: Path) -> None:
    """Ray kills the workers of a driver that has left; they have closed their objects before."""
    story = tmp_path / "story"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(directory=str(Path(__file__).parent), story=str(story)))
    environment = {
        **os.environ,
        "RAYSCHED_BACKEND": backend,
        "RAYSCHED_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, str(program)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    processes = done.stdout.split()
    assert sorted(story.read_text().splitlines()) == sorted(f"closed {each}" for each in processes)
