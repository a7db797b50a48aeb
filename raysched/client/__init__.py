"""Looking at runs from Python: what became of them, their values, failures and log records.

```python
from raysched import get_run

run = get_run("last")
run["parse"][17].result()
run.failures
pandas.DataFrame(run.table())
```

Times are aware datetimes in UTC, or None where there is none yet. Nothing is unpickled but by
`.result()` and `.state.data`.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from raysched.client.plan import Cut, GroupPlan
from raysched.client.run import Run
from raysched.client.task_run import TaskRun, TaskRuns
from raysched.client.words import (
    OWN_FAILURES,
    describe_error,
    error_type,
    nanoseconds,
    state_types,
    utc,
)
from raysched.model.states import StateType
from raysched.settings import settings
from raysched.store.views import EventView, LogView

if TYPE_CHECKING:
    from raysched.store.reader import Reader

MOST_UNSENT = 1000
"""Runs whose traces are looked for at once."""

__all__ = [
    "OWN_FAILURES",
    "Cut",
    "EventView",
    "GroupPlan",
    "LogView",
    "Run",
    "TaskRun",
    "TaskRuns",
    "describe_error",
    "error_type",
    "get_run",
    "get_run_of_key",
    "get_runs",
    "get_unsent_runs",
    "utc",
]


def get_run(run: str = "last", database_url: str | None = None) -> Run:
    """Return a flow run.

    Args:
        run: Its id, a unique prefix of it, or `last` for the newest one.
        database_url: Where to look, by default where this process keeps runs.

    Raises:
        RunNotFound: No run, or more than one, matches.
        StoreError: The database cannot be read.
    """
    reader = reader_of(database_url)
    return Run(reader, reader.find_run(run))


def get_runs(  # noqa: PLR0913 - the filters, each once
    *,
    states: Iterable[StateType | str] = (),
    flow: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
    include_subflows: bool = False,
    database_url: str | None = None,
) -> list[Run]:
    """Return flow runs, the newest first.

    Args:
        states: Only runs in one of these states, such as `"FAILED"`; by default in any.
        flow: Only runs of the flow of that name.
        since: Only runs that started then or later; without a time zone it is local time.
        limit: At most so many.
        include_subflows: Also runs that other runs called.
        database_url: Where to look, by default where this process keeps runs.

    Raises:
        StoreError: The database cannot be read.
    """
    reader = reader_of(database_url)
    views = reader.runs(
        states=state_types(states),
        flow=flow,
        since_ns=None if since is None else nanoseconds(since),
        limit=limit,
        include_children=include_subflows,
    )
    return [Run(reader, view) for view in views]


def get_run_of_key(key: str, database_url: str | None = None) -> Run | None:
    """Return the flow run that `raysched run --key` has begun, or None.

    Args:
        key: The key.
        database_url: Where to look, by default where this process keeps runs.

    Raises:
        StoreError: The database cannot be read.
    """
    reader = reader_of(database_url)
    view = reader.run_of_key(key)
    return None if view is None else Run(reader, view)


def get_unsent_runs(database_url: str | None = None) -> list[Run]:
    """Return flow runs with traces that were not delivered, and never will be by themselves.

    They have ended, or their process has died, and some of their executions are to be traced. The
    oldest come first; there are at most 1,000, the newest ones.

    Args:
        database_url: Where to look, by default where this process keeps runs.

    Raises:
        StoreError: The database cannot be read.
    """
    reader = reader_of(database_url)
    return [Run(reader, view) for view in reversed(reader.undelivered(0, limit=MOST_UNSENT))]


@cache
def _open(url: str) -> "Reader":
    from raysched.store import open_reader

    return open_reader(url)


def reader_of(database_url: str | None) -> "Reader":
    """Return what reads a database, by default the one of this process; one for each."""
    return _open(database_url or settings().resolved_database_url())
