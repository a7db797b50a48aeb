"""Small pieces of work beside a random graph: the ways in which flow functions call tasks.

Each begins with a list that only a task run knows, so that what follows is as long as that list,
and ends with a task run that is given the results in the order in which they came. They all
complete, whatever is broken, so it is easily said what has to be there in the end.
"""

import asyncio
import contextvars
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from chaos.log import Log, note
from raysched import Task, as_completed, flow, runtime, task, unmapped
from raysched.model.states import StateType

WAYS = ("map", "threads", "gather", "as_completed")

RETRY_SECONDS = 0.3
"""How long task runs wait between their attempts."""

PRIME = 7
"""What values are multiplied by."""


@dataclass(frozen=True, slots=True)
class Side:
    """One piece of work.

    Attributes:
        number: Its number in the flow.
        way: How its tasks are called, from `WAYS`.
        size: How many task runs are made of the list.
        fails: Every how many of them fail once; 0 for none.
        subflow: Whether it is a flow of its own.
        after: The node of the graph after which it is done.
        milliseconds: How long each of its task runs takes at least.
    """

    number: int
    way: str
    size: int
    fails: int
    subflow: bool
    after: int
    milliseconds: int

    @property
    def numbers(self) -> list[int]:
        """What its list has."""
        return [100 * self.number + position for position in range(self.size)]

    @property
    def result(self) -> int:
        """What it comes to."""
        return PRIME * sum(self.numbers)

    def name(self, task_name: str) -> str:
        """Return the name of one of its tasks."""
        return f"{task_name}{self.number}"

    def given(self, fn: Task[..., Any]) -> Task[..., Any]:
        """Return one of its tasks."""
        return fn.with_options(
            name=self.name(fn.name),
            retries=1,
            retry_delay_seconds=RETRY_SECONDS,
            # Beside whatever is killed.
            crash_retries=50,
        )


def make_sides(chance: Random, nodes: int, *, inline: bool) -> tuple[Side, ...]:
    """Make up some."""
    return tuple(
        Side(
            number,
            chance.choice(WAYS),
            chance.randint(1, 10),
            chance.choice((0, 0, 3)),
            chance.random() < 0.4,
            chance.randrange(nodes),
            chance.choice((0, 5, 10) if inline else (0, 20, 100)),
        )
        for number in range(chance.choice((0, 1, 1, 2, 3)))
    )


def _begin(place: str, number: int) -> None:
    key = f"{runtime.task_run.task_name}[{number}]"
    note(place, "begins", key, runtime.task_run.run_count, os.getpid())


@task
def spread(place: str, side: Side) -> list[int]:
    """Return what the side is about."""
    _begin(place, 0)
    return side.numbers


@task
def leaf(place: str, number: int, side: Side) -> int:
    """Compute one value, some only at the second attempt."""
    position = number - side.numbers[0]
    _begin(place, position)
    time.sleep(side.milliseconds / 1000)
    if side.fails and position % side.fails == 0 and runtime.task_run.run_count == 1:
        raise OSError(number)
    return number * PRIME


@task
def total(place: str, values: Sequence[int]) -> int:
    """Sum up; the order of the values is a part of what is asked for."""
    _begin(place, 0)
    return sum(values)


@flow
async def gathered(place: str, side: Side, numbers: Sequence[int]) -> list[int]:
    """Compute the values beside each other in an event loop."""
    fn = side.given(leaf)

    async def one(number: int) -> int:
        value: int = await fn.submit(place, number, side)
        return value

    return await asyncio.gather(*(one(number) for number in numbers))


def do(place: str, side: Side) -> None:
    """Do one in a flow function, in it or in a subflow, and tell what it came to."""
    fn = flow(name=side.name("side"))(_do) if side.subflow else _do
    note(place, "side", side.number, fn(place, side))


def _do(place: str, side: Side) -> int:
    numbers = side.given(spread)(place, side)
    fn = side.given(leaf)
    match side.way:
        case "map":
            values = fn.map(unmapped(place), numbers, unmapped(side)).result()
        case "threads":
            with ThreadPoolExecutor(4) as pool:
                runs = [contextvars.copy_context().run for _ in numbers]
                calls = [
                    pool.submit(run, fn, place, number, side)
                    for run, number in zip(runs, numbers, strict=True)
                ]
                values = [call.result() for call in calls]
        case "gather":
            values = asyncio.run(gathered(place, side, numbers))
        case _:
            futures = [fn.submit(place, number, side) for number in numbers]
            values = [future.result() for future in as_completed(futures)]
    found: int = side.given(total)(place, values)
    return found


class Row(NamedTuple):
    """A task run as it is written.

    Attributes:
        task: Name of its task.
        number: Its index among those.
        state: Its state.
    """

    task: str
    number: int
    state: StateType


def judge_sides(
    sides: Iterable[Side], rows: Sequence[Row], log: Log, *, ended: bool, deaths: int
) -> list[str]:
    """Return what is wrong with them.

    Args:
        sides: All of the flow.
        rows: All task runs of the database.
        log: What task runs and flow functions have written down themselves.
        ended: Whether the flow function came to its end.
        deaths: How many processes died.
    """
    wrong = []
    for side in sides:
        sizes = {side.name("spread"): 1, side.name("leaf"): side.size, side.name("total"): 1}
        for name, size in sizes.items():
            states = Counter(row.state for row in rows if row.task == name)
            if ended and states != {StateType.COMPLETED: size}:
                wrong.append(f"{name} has {states}, not {size} completed")
            if states.total() > size:
                wrong.append(f"{name} has {states.total()} task runs, not {size}")
            for position in range(size):
                begun = log.begun[f"{name}[{position}]"]
                if begun > 2 + deaths:
                    wrong.append(f"{name}[{position}] began {begun} times after {deaths} deaths")
        told = log.sides.get(side.number, [])
        if ended and not told:
            wrong.append(f"side {side.number} was not done")
        wrong += [f"side {side.number} is {one}" for one in told if one != side.result]
    return wrong
