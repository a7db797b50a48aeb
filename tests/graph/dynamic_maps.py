"""A flow that maps over what it finds, executed over one find after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from graph.claiming import (
    Calls,
    Execution,
    begin,
    go_on,
    kill,
    look_at_columns,
    random_choice,
)
from graph.random_flows import ALL_TASKS, Oracle

if TYPE_CHECKING:
    from raysched.define.futures import TaskFutureList


@dataclass(frozen=True, slots=True)
class Data:
    """What a flow over dynamic data finds when it runs.

    Attributes:
        items: Elements of its first map: numbers, and lists, which can be changed.
        slices: Parts of that map's results that go into maps item by item.
        gathered: Whether those are gathered, and how: into calls, or as what all members need.
        submits: Arguments of a loop of submits.
        cuts: Before which submits a segment ends.
        waits: Whether the loop waits for the first map.
    """

    items: tuple[Any, ...]
    slices: tuple[tuple[int, int], ...]
    gathered: tuple[bool, ...]
    submits: tuple[int, ...]
    cuts: frozenset[int]
    waits: bool


def over(execution: Execution, data: Data) -> None:
    """Run a flow function that maps over what it finds."""
    load, clean, score, total = ALL_TASKS[:4]
    loaded = execution.map(load, data.items, [], [])
    cleaned: list[TaskFutureList[Any]] = []
    for start, stop in data.slices:
        part: Any = loaded[start:stop]
        if len(part):
            cleaned.append(execution.map(clean, part, [], [loaded] if data.waits else []))
    for future, whole in zip(cleaned, data.gathered, strict=False):
        _ = execution.call_one(total, (), [future], [])
        if whole:
            _ = execution.map(total, data.items, [future], [])
            mixed = [*data.items[:2], *future]
            _ = execution.map(score, mixed, [future], [])
    for number, item in enumerate(data.submits):
        if number in data.cuts:
            execution.builder.take()
        _ = execution.call_one(score, (item,), list(loaded)[item : item + 1], cleaned[:item])


def execute_over(
    datas: Sequence[Data], random: Random, *, same: bool, share: float
) -> list[Execution]:
    """Execute that flow over one find after the other; of each, a share of the task runs ends."""
    executions = [begin(Oracle(), Calls())]
    for number, data in enumerate(datas):
        if number:
            records = kill(executions[-1], random)
            choice = random_choice(random, records, same=same)
            executions.append(go_on(executions[-1], records, choice))
        execution = executions[-1]
        over(execution, data)
        execution.builder.take()
        for member in execution.trees:
            if random.random() < share and member not in execution.completed:
                (execution.completed if random.random() < 0.8 else execution.failed).add(member)
        if number:
            look_at_columns(execution)
    return executions
