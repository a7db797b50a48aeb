"""The work in raysched. A turn is a whole flow run: opened, run, committed and closed."""

import asyncio
import random
import time
from functools import cache

from benchmarks.case import Told
from benchmarks.load import CORES, WAIT_SECONDS, burn, compute, mixed, number_of, payload
from raysched import INPUTS, StateType, as_completed, flow, task, unmapped, wait

WAITS = 1000
"""How many tasks wait at once, over all slots."""


@task
def noop(number: int) -> int:
    return number


@task
def echo(data: bytes) -> bytes:
    return data


@task
def add(left: int, right: int) -> int:
    return left + right


@task
def busy(number: int, seconds: float) -> int:
    burn(seconds)
    return number


@task
def nap(seconds: float) -> None:
    time.sleep(seconds)


@task
async def wait_async(number: int) -> int:
    await asyncio.sleep(WAIT_SECONDS)
    return number


@task(max_concurrency=WAITS // CORES)
def wait_in_thread(number: int) -> int:
    time.sleep(WAIT_SECONDS)
    return number


@task(persist_result=False)
def noop_unkept(number: int) -> int:
    return number


@task(cache_policy=INPUTS)
def noop_cached(number: int, occasion: int) -> int:  # noqa: ARG001 - part of the cache key
    return number


@task
def noop_uncached(number: int, occasion: int) -> int:  # noqa: ARG001 - as in noop_cached
    return number


@task
def large(number: int) -> bytes:
    return number.to_bytes(8, "little") + _incompressible()


@task(persist_result=False)
def large_unkept(number: int) -> bytes:
    return number.to_bytes(8, "little") + _incompressible()


@cache
def _incompressible() -> bytes:
    return random.Random(0).randbytes(1_000_000)  # noqa: S311 - no secret


@flow
def warm_up() -> None:
    # Long enough that each slot gets a worker.
    nap.map([0.3] * 2 * CORES).wait()


@flow
def submits(size: int) -> int:
    futures = [noop.submit(number) for number in range(size)]
    wait(futures)
    return sum(future.result() for future in futures)


@flow
def many(size: int) -> int:
    return sum(noop.map(range(size)).result())


@flow
def streamed(size: int) -> int:
    return sum(future.result() for future in as_completed(noop.map(range(size))))


@flow
def payloads(size: int) -> int:
    echoes = echo.map(payload(number) for number in range(size))
    return sum(number_of(data) for data in echoes.result())


@flow
def first_payload(size: int) -> Told:
    began = time.perf_counter()
    echoes = echo.map(payload(number) for number in range(size))
    next(iter(as_completed(echoes))).result()
    seconds = time.perf_counter() - began
    return Told(sum(number_of(data) for data in echoes.result()), seconds)


@flow
def calls(size: int) -> int:
    return sum(noop(number) for number in range(size))


@flow
def chain(size: int) -> int:
    total = add.submit(0, 0)
    for number in range(1, size):
        total = add.submit(total, number)
    return total.result()


@flow
def tree(size: int) -> int:
    level = noop.map(range(size))
    while len(level) > 1:
        # Past an odd end there is nothing to add.
        level = add.map(level[::2], [*level[1::2], 0] if len(level) % 2 else level[1::2])
    return level[0].result()


@flow
def beside_computing(size: int) -> int:
    futures = noop.map(range(size))
    while not futures[-1].done():
        compute()
    return sum(futures.result())


@flow
def async_waits(size: int) -> int:
    return sum(wait_async.map(range(size)).result())


@flow
def thread_waits(size: int) -> int:
    return sum(wait_in_thread.map(range(size)).result())


@flow
def compute_all(seconds: float, size: int) -> int:
    return sum(busy.map(range(size), unmapped(seconds)).result())


def computing(seconds: float, size: int) -> int:
    return compute_all(seconds, size)


@flow
def mixed_computing(size: int) -> int:
    return sum(busy.map(range(size), mixed(size)).result())


@flow
def unkept(size: int) -> int:
    return sum(noop_unkept.map(range(size)).result())


@flow
def large_results(size: int) -> int:
    return sum(number_of(data[:8]) for data in large.map(range(size)).result())


@flow
def large_results_unkept(size: int) -> int:
    return sum(number_of(data[:8]) for data in large_unkept.map(range(size)).result())


@flow
def cached_map(occasion: int, size: int) -> int:
    return sum(noop_cached.map(range(size), unmapped(occasion)).result())


def misses(size: int) -> int:
    return cached_map(time.time_ns(), size)


def fill_cache(size: int) -> int:
    return cached_map(0, size)


@flow
def hits(size: int) -> int:
    futures = noop_cached.map(range(size), unmapped(0))
    total = sum(futures.result())
    # Else the cache was not what is measured.
    if any(future.state.type is not StateType.CACHED for future in (futures[0], futures[-1])):
        raise RuntimeError("the results were not cached")
    return total


@flow
def uncached(size: int) -> int:
    return sum(noop_uncached.map(range(size), unmapped(time.time_ns())).result())
