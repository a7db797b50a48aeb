"""The work in raysched. A turn is a whole flow run: opened, run, committed and closed."""

import asyncio
import os
import time

from raysched import flow, task, wait

SLOTS = os.cpu_count() or 1
WAIT_SECONDS = 0.1
WAITS = 1000
"""How many tasks wait at once, over all slots."""


@task
def noop(number: int) -> int:
    return number


@task
def nap(seconds: float) -> None:
    time.sleep(seconds)


@task
async def wait_async(number: int) -> int:
    await asyncio.sleep(WAIT_SECONDS)
    return number


@task(max_concurrency=WAITS // SLOTS)
def wait_in_thread(number: int) -> int:
    time.sleep(WAIT_SECONDS)
    return number


@flow
def warm_up() -> None:
    # Long enough that each slot gets a worker.
    nap.map([0.3] * 2 * SLOTS).wait()


@flow
def submits(size: int) -> int:
    futures = [noop.submit(number) for number in range(size)]
    wait(futures)
    return sum(future.result() for future in futures)


@flow
def many(size: int) -> int:
    return sum(noop.map(range(size)).result())


@flow
def calls(size: int) -> int:
    return sum(noop(number) for number in range(size))


@flow
def async_waits(size: int) -> int:
    return sum(wait_async.map(range(size)).result())


@flow
def thread_waits(size: int) -> int:
    return sum(wait_in_thread.map(range(size)).result())
