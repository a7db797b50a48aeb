"""A driver is killed at some moment, and the run is resumed: nothing that completed runs again."""

from dataclasses import dataclass
from itertools import cycle

import pytest

from raysched import get_run
from raysched.faults import Point
from raysched.model.states import StateType
from raysched.testing import FaultPoints
from resume.places import CountingPlace

MAPS = """
from common import *

@task
def listing():
    ran()
    return list(range(12))

@task
def load(n):
    ran()
    return list(range(n % 3))

@task
def split(n):
    ran()
    return n + 1

@task
def total(numbers):
    ran()
    return sum(numbers)

@flow
def main():
    parts = load.map(listing.submit())
    sums = [total.submit(split.map(part)) for part in parts.result()]
    return sum(each.result() for each in sums)
"""

GATHER = """
import asyncio
from common import *

@task
async def load(n):
    ran()
    await asyncio.sleep(0.001 * (7 * n % 5))
    return n

@task
async def double(n):
    ran()
    return 2 * n

async def chain(n):
    return await double(await load(n))

@flow
async def main():
    return sum(await asyncio.gather(*(chain(n) for n in range(10))))
"""

THREADS = """
import contextvars
from concurrent.futures import ThreadPoolExecutor
from common import *

@task
def load(n):
    ran()
    return n

@task
def double(n):
    ran()
    return 2 * n

@flow
def main():
    def chain(n):
        return double(load(n))
    with ThreadPoolExecutor(4) as pool:
        chains = [pool.submit(contextvars.copy_context().run, chain, n) for n in range(10)]
        return sum(each.result() for each in chains)
"""

AS_COMPLETED = """
from raysched import as_completed
from common import *

@task
def load(n):
    ran()
    return n

@task
def place(n, position):
    ran()
    return n * position

@flow
def main():
    futures = load.map(range(10))
    order = [future.result() for future in as_completed(futures)]
    placed = [place.submit(n, position) for position, n in enumerate(order)]
    return [n for n, _ in zip(order, [future.result() for future in placed])]
"""

SUBFLOWS = """
from common import *

@task
def load(n):
    ran(f"load-{n}")
    return n

@flow
def part(n):
    return sum(load.map([10 * n, 10 * n + 1, 10 * n + 2]).result())

@flow
def main():
    return sum(part(n) for n in range(4)) + sum(load.map(range(1000, 1004)).result())
"""

RETRIES = """
from common import *

@task(retries=2, retry_delay_seconds=0.2)
def load(n):
    ran()
    if n % 4 == 0 and once(f"tried-{n}"):
        raise ConnectionError(n)
    return n

@flow
def main():
    return sum(load.map(range(8)).result())
"""

NESTED = """
from common import *

@task
def inner(n):
    return n

@task
def outer(n):
    ran()
    return inner(n) + inner(n + 1)

@flow
def main():
    return sum(outer.map(range(8)).result())
"""


@dataclass(frozen=True)
class Story:
    """A flow, the number of its task runs, and what it returns, if that is always the same."""

    source: str
    executions: int
    returned: str


STORIES = {
    "maps": Story(MAPS, 1 + 12 + 12 + 12, "returned 16"),
    "gather": Story(GATHER, 20, "returned 90"),
    "threads": Story(THREADS, 20, "returned 90"),
    "as_completed": Story(AS_COMPLETED, 20, "returned ["),
    "subflows": Story(SUBFLOWS, 16, "returned 4198"),
    "retries": Story(RETRIES, 8 + 2, "returned 28"),
    "nested": Story(NESTED, 8, "returned 64"),
}

MOMENTS: list[tuple[Point, int]] = [
    ("before commit", 2),
    ("after commit", 3),
    ("before dispatch", 4),
    ("worker: item ended", 7),
    ("flow: before end", 1),
]


def turns() -> list[tuple[str, Point, int]]:
    """Return three moments for each story; all moments have their turns."""
    moments = cycle(MOMENTS)
    return [(name, *next(moments)) for name in STORIES for _ in range(3)]


@pytest.mark.parametrize(("name", "point", "nth"), turns())
def test_what_completed_does_not_run_again(
    place: CountingPlace, name: str, point: Point, nth: int
) -> None:
    story = STORIES[name]
    place.write(story.source)
    faults = FaultPoints(place.path).kill(point, nth=nth)
    killed = place.broken(faults, "run", "flows.py:main")
    assert killed.process.returncode == -9, killed.output
    run = get_run("last")
    assert (run.lost, run.state.type) == (True, StateType.CRASHED)
    everything = [run, *run.children]
    completed = {
        (each.id, task_run.key)
        for each in everything
        for task_run in each.task_runs(states=["COMPLETED"])
        # What a task calls runs with it.
        if task_run.task != "inner"
    }
    before = place.executions

    told = place.done("resume", "last")

    assert story.returned in told
    run.refresh()
    assert run.state.type is StateType.COMPLETED
    again = place.executions
    # What was under way, and no more, ran twice.
    unfinished = before.total() - len(completed)
    assert again.total() <= story.executions + unfinished
    if name != "subflows":
        assert {key: again[key] - before[key] for _, key in completed} == dict.fromkeys(
            (key for _, key in completed), 0
        )


def test_killed_again_and_again_it_comes_to_its_end(place: CountingPlace) -> None:
    place.write(MAPS)
    place.broken(FaultPoints(place.path).kill("after commit", nth=2), "run", "flows.py:main")
    for attempt in range(3):
        faults = FaultPoints(place.path / str(attempt)).kill("after commit", nth=2)
        (place.path / str(attempt)).mkdir()
        place.broken(faults, "resume", "last")
    told = place.done("resume", "last")
    assert "returned 16" in told
    assert get_run("last").run_count == 5
    assert place.executions.total() <= 37 + 4 * 12
