"""`raysched logs`."""

import time
from collections.abc import Iterable, Iterator
from heapq import merge
from typing import TypeAlias

from raysched.cli.output import (
    console,
    log_text,
    print_json_lines,
    print_json_list,
    say,
)
from raysched.cli.records import log_record
from raysched.client import LogView, Run, get_run
from raysched.client.words import split_key
from raysched.errors import UsageError
from raysched.model.ids import SHORT_ID

FOLLOW_SECONDS = 0.5
"""Between two looks at a run that goes on."""

Record: TypeAlias = tuple[Run, LogView]

PAGE = 1000
"""Records that are read at once."""


def print_logs(text: str, task: str | None, *, follow: bool, as_json: bool) -> None:
    """Print log records of a run and its subflows.

    Args:
        text: RUN.
        task: Only those of this task, or of the task run with this key.
        follow: Whether to go on until the run has ended.
        as_json: Whether to print JSON: a list, with `follow` one record a line.

    Raises:
        UsageError: The run has ended and has no such task or task run.
        RunNotFound: No run, or more than one, matches.
    """
    run = get_run(text)
    if task is not None and run.state.is_final():
        _check_task(run, task)
    records = _follow(run, task) if follow else _records(_tree(run), task, {})
    if as_json:
        printer = print_json_lines if follow else print_json_list
        printer(log_record(run, row) for run, row in records)
        return
    some = False
    try:
        for run, row in records:
            some = True
            line = log_text(row.at, row.level, row.key or run.flow, row.message, date=True)
            console().print(line, soft_wrap=True)
    except KeyboardInterrupt:
        return
    if not some:
        say(("no log records", "dim"), stderr=True)


def _check_task(run: Run, task: str) -> None:
    known: dict[str, int] = {}
    for each in _tree(run):
        for name in each:
            known[name] = max(known.get(name, 0), len(each[name]))
    name, index = (task, 0) if task in known else split_key(task) or (task, 0)
    if index >= known.get(name, 0):
        names = ", ".join(known) or "none"
        what = "task" if name == task else "task run"
        raise UsageError(f"run {run.id[:SHORT_ID]} has no {what} {task!r}; it has: {names}")


def _tree(run: Run) -> list[Run]:
    """Return a run and those of its subflows."""
    runs = [run]
    for each in runs:
        runs.extend(each.children)
    return runs


def _records(runs: Iterable[Run], task: str | None, seen: dict[str, int]) -> Iterator[Record]:
    """Yield records of runs by time; `seen` keeps the id of the last one by run."""
    return merge(*(_pages(run, task, seen) for run in runs), key=lambda record: record[1].at)


def _pages(run: Run, task: str | None, seen: dict[str, int]) -> Iterator[Record]:
    while rows := run.logs(task=task, after=seen.get(run.id, 0), limit=PAGE):
        for row in rows:
            seen[run.id] = row.id
            yield run, row


def _follow(run: Run, task: str | None) -> Iterator[Record]:
    seen: dict[str, int] = {}
    while True:
        # Looked at first: what is written before the end is still read.
        run.refresh()
        ended = run.state.is_final()
        yield from _records(_tree(run), task, seen)
        if ended:
            return
        time.sleep(FOLLOW_SECONDS)
