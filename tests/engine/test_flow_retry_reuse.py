"""Flows that race for real, break at some point and begin again: nothing runs twice."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from random import Random
from typing import Any

import pytest

from raysched import as_completed, flow, task
from raysched.testing import FakeClock, inline

executed: Counter[tuple[str, Any]] = Counter()
"""How often each call has run: the tasks are in this process."""


@pytest.fixture(autouse=True)
def runs_inline() -> Iterator[None]:
    executed.clear()
    with inline(FakeClock()):
        yield


@task
def step(name: str, value: int) -> int:
    executed[name, value] += 1
    return value + 1


@task
def total(values: list[int]) -> int:
    executed["total", tuple(values)] += 1
    return sum(values)


class Bomb:
    """Ends the flow function at some point, in each attempt but the last one."""

    def __init__(self, random: Random, attempts: int, most: int) -> None:
        self._fuses = [random.randrange(most) for _ in range(attempts)]
        self._left = most

    def light(self) -> None:
        """Begin an attempt."""
        self._left = self._fuses.pop() if self._fuses else 10**9

    def tick(self) -> None:
        """Come closer to the point."""
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("broken here")


def chain(name: str, length: int, bomb: Bomb) -> int:
    value = 0
    for _ in range(length):
        bomb.tick()
        value = step(name, value)
    return value


def gathered(bomb: Bomb, lengths: list[int]) -> Callable[[], int]:
    """A flow of coroutines, each of which calls a chain of tasks."""

    async def one(name: str, length: int) -> int:
        value = 0
        for _ in range(length):
            bomb.tick()
            value = await step.submit(name, value)
        return value

    @flow(retries=3)
    async def around() -> int:
        bomb.light()
        values = await asyncio.gather(*(one(f"c{n}", length) for n, length in enumerate(lengths)))
        return await total.submit(values)

    return lambda: asyncio.run(around())


def threaded(bomb: Bomb, lengths: list[int]) -> Callable[[], int]:
    """A flow of threads, each of which calls a chain of tasks."""

    @flow(retries=3)
    def around() -> int:
        bomb.light()
        with ThreadPoolExecutor(len(lengths)) as pool:
            chains = [
                pool.submit(copy_context().run, chain, f"t{n}", length, bomb)
                for n, length in enumerate(lengths)
            ]
        return total([one.result() for one in chains])

    return around


def followed_up(bomb: Bomb, lengths: list[int]) -> Callable[[], int]:
    """A flow that follows up results in the order in which they come."""

    @flow(retries=3)
    def around() -> int:
        bomb.light()
        values = {}
        futures = {step.submit(f"f{n}", -length): n for n, length in enumerate(lengths)}
        for future in as_completed(list(futures)):
            bomb.tick()
            number = futures[future]
            values[number] = chain(f"g{number}", lengths[number], bomb)
        return total([values[number] for number in sorted(values)])

    return around


@pytest.mark.parametrize("kind", [gathered, threaded, followed_up])
@pytest.mark.parametrize("seed", range(12))
def test_what_completed_is_not_run_again(
    kind: Callable[[Bomb, list[int]], Callable[[], int]], seed: int
) -> None:
    random = Random(seed)
    lengths = [random.randint(1, 4) for _ in range(random.randint(1, 4))]
    bomb = Bomb(random, random.randint(0, 3), sum(lengths) + 1)
    assert kind(bomb, lengths)() == sum(lengths)
    assert set(executed.values()) == {1}
    assert executed["total", tuple(lengths)] == 1
