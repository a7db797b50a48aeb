"""The same work in bare Ray, as one writes it there: one call a task."""

import logging
import time
from collections.abc import Sequence

import ray

from benchmarks.case import Told
from benchmarks.load import CORES, burn, compute, number_of, payload

CHUNK = 1000


@ray.remote
def noop(number: int) -> int:
    return number


@ray.remote
def noops(numbers: Sequence[int]) -> list[int]:
    return [number for number in numbers]  # noqa: C416 - the body of each task


@ray.remote
def echo(data: bytes) -> bytes:
    return data


@ray.remote
def add(left: int, right: int) -> int:
    return left + right


@ray.remote
def busy(number: int, seconds: float) -> int:
    burn(seconds)
    return number


@ray.remote
def nap(seconds: float) -> None:
    time.sleep(seconds)


def warm_up() -> None:
    if not ray.is_initialized():
        # The cluster of RAY_ADDRESS.
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    # Long enough that each slot gets a worker.
    ray.get([nap.remote(0.3) for _ in range(2 * CORES)])


def many(size: int) -> int:
    """Also what a loop of submits is compared with: Ray has one way for both."""
    return sum(ray.get([noop.remote(number) for number in range(size)]))


def chunks(size: int) -> int:
    """Batched by hand: what nobody can beat who makes the same calls."""
    numbers = list(range(size))
    refs = [noops.remote(numbers[first : first + CHUNK]) for first in range(0, size, CHUNK)]
    return sum(number for chunk in ray.get(refs) for number in chunk)


def payloads(size: int) -> int:
    refs = [echo.remote(payload(number)) for number in range(size)]
    return sum(number_of(data) for data in ray.get(refs))


def first_payload(size: int) -> Told:
    began = time.perf_counter()
    refs = [echo.remote(payload(number)) for number in range(size)]
    ready, _ = ray.wait(refs)
    ray.get(ready)
    seconds = time.perf_counter() - began
    return Told(sum(number_of(data) for data in ray.get(refs)), seconds)


def calls(size: int) -> int:
    return sum(ray.get(noop.remote(number)) for number in range(size))


def chain(size: int) -> int:
    total = add.remote(0, 0)
    for number in range(1, size):
        total = add.remote(total, number)
    return int(ray.get(total))


def tree(size: int) -> int:
    level = [noop.remote(number) for number in range(size)]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [add.remote(left, right) for left, right in pairs] + odd
    return int(ray.get(level[0]))


def beside_computing(size: int) -> int:
    refs = [noop.remote(number) for number in range(size)]
    while not ray.wait(refs[-1:], timeout=0)[0]:
        compute()
    return sum(ray.get(refs))


def computing(seconds: float, size: int) -> int:
    return sum(ray.get([busy.remote(number, seconds) for number in range(size)]))
