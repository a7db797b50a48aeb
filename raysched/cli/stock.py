"""What there is of a run for another execution, in words, as a table and as JSON."""

from collections import Counter
from typing import Any

from rich.table import Table
from rich.text import Text

from raysched.cli.output import console, count, say
from raysched.cli.why_words import size_text
from raysched.client.stock import Stock, TaskStock
from raysched.model.states import StateType

WORDS = {
    StateType.SCHEDULED: "open",
    StateType.PENDING: "open",
    StateType.RUNNING: "open",
    StateType.AWAITING_RETRY: "open",
    StateType.PAUSED: "open",
    StateType.CANCELLING: "open",
    StateType.UPSTREAM_FAILED: "not run",
}
"""What states are called where their names would tell people less."""


def stock_words(stock: Stock) -> str:
    """Return what is gone on from, in one line.

    Such as `50,012 completed are reused, 37 will be computed again if needed (12 GiB not kept), 3
    failed and 49,948 open go on`.
    """
    total = stock.total
    parts = [f"{total.reused - total.unkept:,} completed are reused"]
    if total.unkept:
        size = size_text(total.unkept_bytes)
        parts.append(f"{total.unkept:,} will be computed again if needed ({size} not kept)")
    parts += [f"{number:,} completed run again ({why})" for why, number in total.again.items()]
    others = " and ".join(_others(total))
    parts += [f"{others} go on"] if others else []
    parts += [f"subflows: {_subflows(stock)}"] if stock.subflows else []
    return ", ".join(parts)


def print_stock(stock: Stock) -> None:
    """Print a table of tasks with what is reused and what runs."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("task", overflow="fold")
    for name in ("reused", "if needed", "not kept"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("runs", overflow="fold")
    for task in stock.tasks:
        table.add_row(task.task, *_cells(task))
    if len(stock.tasks) > 1:
        table.add_row(Text("all", "dim"), *_cells(stock.total))
    console().print(table)
    if stock.subflows:
        say((f"subflows: {_subflows(stock)}", "dim"))


def stock_record(stock: Stock) -> list[dict[str, Any]]:
    """Return what there is of each task as JSON values."""
    return [
        {
            "name": task.task,
            "reused": task.reused - task.unkept,
            "recomputed_if_needed": task.unkept,
            "not_kept_bytes": task.unkept_bytes,
            "completed_run_again": dict(task.again),
            "run": {state.name: number for state, number in task.others.items() if number},
        }
        for task in stock.tasks
    ]


def _cells(task: TaskStock) -> list[str]:
    again = [f"{number:,} completed ({why})" for why, number in task.again.items() if number]
    return [
        count(task.reused - task.unkept) if task.reused - task.unkept else "",
        count(task.unkept) if task.unkept else "",
        size_text(task.unkept_bytes) if task.unkept else "",
        ", ".join([*again, *_others(task)]),
    ]


def _others(task: TaskStock) -> list[str]:
    counts: Counter[str] = Counter()
    for state in sorted(task.others, key=_rank):
        counts[_word(state)] += task.others[state]
    return [f"{number:,} {word}" for word, number in counts.items() if number]


def _subflows(stock: Stock) -> str:
    return " and ".join(f"{number:,} {_word(state)}" for state, number in stock.subflows.items())


def _rank(state: StateType) -> tuple[bool, bool, int]:
    """Order states: what failed itself, then what followed, then what is open."""
    return not state.is_terminal, state is StateType.UPSTREAM_FAILED, state


def _word(state: StateType) -> str:
    return WORDS.get(state, state.name.lower().replace("_", " "))
