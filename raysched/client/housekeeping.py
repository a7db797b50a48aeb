"""Looking after the database and the result storage: upgrade, figures, retention."""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from raysched.errors import ResultLost, UsageError
from raysched.results.storage import (
    StoredObject,
    delete,
    directory_of,
    objects,
    open_storage,
    parse,
)
from raysched.settings import settings

if TYPE_CHECKING:
    from raysched.store.housekeeping import ExpiredRun, Housekeeping, Stats

RUN_ID = re.compile("[0-9a-f]{32}")

__all__ = ["Figures", "Pruned", "Upgraded", "figures", "prune", "upgrade"]


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What became of a database's schema.

    Attributes:
        database: The database.
        before: Its revision before, "" if there was none.
        after: Its revision now.
    """

    database: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What is kept.

    Attributes:
        database: The database.
        stats: What it holds.
        storage: The result storage.
        objects: Objects there.
        object_bytes: What they take (bytes).
        problem: Why the storage could not be looked at, or "".
    """

    database: str
    stats: "Stats"
    storage: str
    objects: int
    object_bytes: int
    problem: str = ""


@dataclass(slots=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        runs: Flow runs, the oldest first, without those that they called.
        subflows: How many those are.
        task_runs: Task runs of all of these.
        objects: Objects of the result storage.
        object_bytes: What they took (bytes).
        given_back: What the database's file is smaller now (bytes).
        problems: What could not be removed, and why; it will be tried again the next time.
    """

    runs: "list[ExpiredRun]" = field(default_factory=list)
    subflows: int = 0
    task_runs: int = 0
    objects: int = 0
    object_bytes: int = 0
    given_back: int = 0
    problems: list[str] = field(default_factory=list)


def upgrade(database_url: str | None = None) -> Upgraded:
    """Bring the schema of the database up to date, or make it where there is none yet.

    Raises:
        StoreError: The database cannot be used, or its schema is newer than this raysched.
    """
    from raysched.store.database import database
    from raysched.store.schema import HEAD, revision, upgrade

    opened = database(database_url or settings().resolved_database_url())
    with closing(opened):
        opened.prepare()
        before = revision(opened)
        upgrade(opened)
    return Upgraded(opened.name, before, HEAD)


def figures(database_url: str | None = None) -> Figures:
    """Return what is kept; reads all of a SQLite file, and lists the result storage.

    Raises:
        StoreError: The database cannot be read, or there is none.
    """
    storage = open_storage(settings().resolved_result_storage())
    with _keeper(database_url) as keeper:
        stats = keeper.stats()
    count = size = 0
    problem = ""
    try:
        for each in objects(storage):
            count += 1
            size += each.size
    except Exception as error:  # noqa: BLE001 - whatever the storage raises
        problem = f"{type(error).__name__}: {error}"
    return Figures(keeper.name, stats, storage, count, size, problem)


def prune(
    older_than: timedelta | None = None, *, dry_run: bool = False, database_url: str | None = None
) -> Pruned:
    """Remove the flow runs that ended longer ago than that, with everything of theirs.

    Open runs stay, also those that were lost with their driver; so does what they need. Others may
    work with the database meanwhile.

    Args:
        older_than: How long ago; by default as `RAYSCHED_RETENTION_DAYS` says.
        dry_run: Whether only to look what would be removed.
        database_url: The database, by default that of this process.

    Raises:
        UsageError: It is not said how long ago.
        StoreError: The database cannot be used, or there is none.
    """
    before = time.time_ns() - _nanoseconds(older_than)
    storage = open_storage(settings().resolved_result_storage())
    with _keeper(database_url) as keeper:
        runs = keeper.expired(before)
        if not dry_run:
            runs = keeper.hide(runs, before)
        pruned = Pruned()
        borrowed = _names(keeper.borrowed(but=runs)) if runs else set()
        for run in runs:
            _prune_objects(keeper, run, storage, borrowed, pruned, dry_run=dry_run)
        if not dry_run:
            keeper.delete(pruned.runs)
            keeper.forget_drivers(before)
            pruned.given_back = keeper.give_back()
    return pruned


def _nanoseconds(older_than: timedelta | None) -> int:
    if older_than is None:
        days = settings().retention_days
        if not days:
            raise UsageError(
                "--older-than: nothing says how long runs are kept; give an age such as 30d, or "
                "set RAYSCHED_RETENTION_DAYS"
            )
        older_than = timedelta(days=days)
    return older_than // timedelta(microseconds=1) * 1000


def _prune_objects(  # noqa: PLR0913 - one step of `prune`
    keeper: "Housekeeping",
    run: "ExpiredRun",
    storage: str,
    borrowed: set[str],
    pruned: Pruned,
    *,
    dry_run: bool,
) -> None:
    """Remove what a run has stored, and count the run; if that fails, the run is left for later."""
    try:
        for each in _objects(keeper, run, storage):
            if _name(each.url) not in borrowed:
                if not dry_run:
                    delete(each.url)
                pruned.objects += 1
                pruned.object_bytes += each.size
    except Exception as error:  # noqa: BLE001 - whatever the storage raises
        pruned.problems.append(f"{run.id} ({run.flow}): {type(error).__name__}: {error}")
        return
    pruned.runs.append(run)
    pruned.subflows += len(run.members) - 1
    pruned.task_runs += run.task_runs


def _objects(keeper: "Housekeeping", run: "ExpiredRun", storage: str) -> Iterator[StoredObject]:
    """Yield what the units of a run have written, also into a storage of earlier settings.

    And what is left of runs whose results it has reused, where those are gone.
    """
    directories = {directory_of(storage, run_id): run_id for _, run_id in run.members}
    for location in keeper.locations(run):
        try:
            directory = parse(location).url.rpartition("/")[0]
        except ResultLost:
            continue
        # Never a directory of something else, whatever a damaged row says.
        if RUN_ID.fullmatch(_name(directory)):
            directories[directory] = _name(directory)
    own = {run_id for _, run_id in run.members}
    others = keeper.known(sorted(set(directories.values()) - own))
    for directory, run_id in sorted(directories.items()):
        if run_id not in others:
            # As a list: directories in which something is deleted meanwhile may be read otherwise.
            yield from list(objects(directory))


def _names(locations: Iterable[str]) -> set[str]:
    """Return the names of the objects that are pointed to: unique, however an URL is written."""
    names = set()
    for location in locations:
        url, *_ = location.rpartition("#")
        names.add(_name(url))
    return names


def _name(url: str) -> str:
    return url.rpartition("/")[2]


@contextmanager
def _keeper(database_url: str | None) -> "Iterator[Housekeeping]":
    from raysched.store import open_housekeeping

    with closing(open_housekeeping(database_url or settings().resolved_database_url())) as keeper:
        yield keeper
