"""Flows as a notebook calls them: beside an event loop, with cells executed anew, from threads."""

from faults.drivers import Place

NOTEBOOK = '''
import asyncio
from concurrent.futures import ThreadPoolExecutor


def cell(source):
    """Execute a cell in `__main__`, which has no file."""
    exec(compile(source, "<cell>", "exec"), globals())


cell("""
from raysched import flow, task

STEP = 1

class Point:
    def __init__(self, x):
        self.x = x

@task
def move(point):
    return Point(point.x + STEP)

@task
async def later(number):
    return number * STEP

@flow
def walking(n):
    return sum(point.x for point in move.map([Point(x) for x in range(n)]).result())

@flow
async def waiting(n):
    return sum(await asyncio.gather(*[later(x) for x in range(n)]))
""")


async def first():
    print("beside a loop", walking(3), await waiting(3))


asyncio.run(first())

cell("""
STEP = 10

@task
def move(point):
    return Point(point.x * STEP)

@task
async def later(number):
    return number * STEP
""")


async def second():
    both = await asyncio.gather(waiting(3), waiting(4))
    print("again", walking(3), both)


asyncio.run(second())

with ThreadPoolExecutor(4) as threads:
    print("threads", list(threads.map(walking, range(4))))
'''


def test_cells(either_place: Place) -> None:
    driver = either_place.start("-c", NOTEBOOK)
    assert driver.finish() == 0, driver.output
    assert "beside a loop 6 3" in driver.output
    assert "again 30 [30, 60]" in driver.output
    assert "threads [0, 0, 10, 30]" in driver.output
    assert {run["state"] for run in either_place.look("runs")} == {"COMPLETED"}
