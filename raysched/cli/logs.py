"""`raysched logs`."""

import time
from collections.abc import Iterator

from raysched.cli.output import (
    SHORT_ID,
    console,
    log_text,
    print_json_lines,
    print_json_list,
    say,
)
from raysched.cli.records import log_record
from raysched.client import LogView, Run, get_run
from raysched.errors import UsageError

FOLLOW_SECONDS = 0.5
"""Between two looks at a run that goes on."""

PAGE = 1000
"""Records that are read at once."""


def print_logs(text: str, task: str | None, *, follow: bool, as_json: bool) -> None:
    """Print log records.

    Args:
        text: RUN.
        task: Only those of this task.
        follow: Whether to go on until the run has ended.
        as_json: Whether to print JSON: a list, with `follow` one record a line.

    Raises:
        UsageError: The run has ended and has no such task.
        RunNotFound: No run, or more than one, matches.
    """
    run = get_run(text)
    if task is not None and task not in run and run.state.is_final():
        raise UsageError(f"run {run.id[:SHORT_ID]} has no task {task!r}; it has: {', '.join(run)}")
    rows = _follow(run, task) if follow else _pages(run, task)
    if as_json:
        printer = print_json_lines if follow else print_json_list
        printer(map(log_record, rows))
        return
    some = False
    try:
        for row in rows:
            some = True
            console().print(
                log_text(row.at, row.level, row.key or run.flow, row.message, date=True),
                soft_wrap=True,
            )
    except KeyboardInterrupt:
        return
    if not some:
        say(("no log records", "dim"), stderr=True)


def _pages(run: Run, task: str | None, after: int = 0) -> Iterator[LogView]:
    while rows := run.logs(task=task, after=after, limit=PAGE):
        yield from rows
        after = rows[-1].id


def _follow(run: Run, task: str | None) -> Iterator[LogView]:
    after = 0
    while True:
        # Looked at first: what is written before the end is still read.
        run.refresh()
        ended = run.state.is_final()
        for row in _pages(run, task, after):
            after = row.id
            yield row
        if ended:
            return
        time.sleep(FOLLOW_SECONDS)
