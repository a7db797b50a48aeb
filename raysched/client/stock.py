"""What there is of a run for another execution: what of it would be reused, and what not."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from raysched.model.records import Kept, RecordedGroup, Records
from raysched.model.rows import GroupRow
from raysched.model.states import SUCCESSES, StateType

REPEATED = ("setup", "teardown")
"""Options of tasks that run in each execution, whatever became of them before."""


@dataclass(slots=True)
class TaskStock:
    """What there is of the task runs of one task.

    Attributes:
        task: The task.
        reused: Task runs that completed; they answer equal calls.
        unkept: Those of them whose value was not kept: it is computed again if something needs it.
        unkept_bytes: Encoded size of these values (bytes).
        again: Completed task runs that run again all the same, by why: `rolled back`, `setup`.
        others: The others, which run, by the state that they are in.
    """

    task: str
    reused: int = 0
    unkept: int = 0
    unkept_bytes: int = 0
    again: Counter[str] = field(default_factory=Counter)
    others: Counter[StateType] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is of a run for another execution of its flow.

    Attributes:
        tasks: By task, in order of calls.
        subflows: Subflows' runs by state; a completed one whose result is kept is reused.
    """

    tasks: tuple[TaskStock, ...]
    subflows: Mapping[StateType, int]

    @property
    def total(self) -> TaskStock:
        """All tasks together."""
        total = TaskStock("all")
        for task in self.tasks:
            total.reused += task.reused
            total.unkept += task.unkept
            total.unkept_bytes += task.unkept_bytes
            total.again += task.again
            total.others += task.others
        return total


def stock_of(records: Records, groups: Iterable[GroupRow]) -> Stock:
    """Return what there is of a run.

    Args:
        records: What became of its task runs.
        groups: Its groups.
    """
    options = {group.id: json.loads(group.options) for group in groups}
    tasks: dict[str, TaskStock] = {}
    for group in records.groups:
        stock = tasks.setdefault(group.task, TaskStock(group.task))
        of_group = options.get(group.id, {})
        _add(stock, group, next((name for name in REPEATED if of_group.get(name)), ""))
    subflows = Counter(flow_run.state for flow_run in records.flow_runs)
    return Stock(tuple(tasks.values()), subflows)


def _add(stock: TaskStock, group: RecordedGroup, again: str) -> None:
    counts = Counter(group.states)
    completed = sum(counts.pop(state, 0) for state in SUCCESSES)
    stock.others.update({StateType(code): number for code, number in counts.items()})
    if again or not group.identities:
        stock.again[again or "recorded by an older raysched"] += completed
        return
    undone = sum(group.states[index] in SUCCESSES for index in group.rolled_back)
    if undone:
        stock.again["rolled back"] += undone
    stock.reused += completed - undone
    if Kept.NOTHING not in group.kept:
        return
    for index, kept in enumerate(group.kept):
        reused = group.states[index] in SUCCESSES and index not in group.rolled_back
        if reused and kept == Kept.NOTHING:
            stock.unkept += 1
            stock.unkept_bytes += group.sizes[index]
