"""Looking at the cache, and clearing it."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from raysched.client.words import utc
from raysched.errors import UsageError
from raysched.settings import settings

if TYPE_CHECKING:
    from raysched.store.cached import CachedTask, CacheEntryView, CacheReader

_KEY = re.compile(r"[0-9a-f]{4,32}")


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An entry of the cache.

    Attributes:
        key: The cache key, in hexadecimal.
        task: Name of the task.
        run: Id of the flow run that makes or made its result, or "" if that was removed.
        task_run: Key of the task run there.
        state: `kept`, `expired`, `being made`, or `none`.
        created: When it was claimed.
        ended: When its result was made, or None.
        expires: When that is too old, or None for never.
        size: Encoded size of the result (bytes).
        parts: What the key was made of: digests by name.
    """

    key: str
    task: str
    run: str
    task_run: str
    state: str
    created: datetime | None
    ended: datetime | None
    expires: datetime | None
    size: int
    parts: Mapping[str, str]


def cached_tasks() -> "list[CachedTask]":
    """Return what is cached, by task.

    Raises:
        StoreError: The database cannot be read.
    """
    with _reading() as reader:
        return reader.cached_tasks(time.time_ns())


def cache_entries(what: str, limit: int | None = None) -> list[CacheEntry]:
    """Return the entries of a task, or of a key, the newest first.

    Args:
        what: Name of a task, or the first digits of a key, at least four.
        limit: At most so many.

    Raises:
        UsageError: There is nothing like that in the cache.
        StoreError: The database cannot be read.
    """
    now = time.time_ns()
    with _reading() as reader:
        found = reader.cache_entries(now, task=what, limit=limit)
        if not found and (keys := _keys(reader, what)):
            found = reader.cache_entries(now, keys=keys[: limit or len(keys)])
        if not found:
            raise _not_found(reader, what)
    return [entry_of(view) for view in found]


def uses(entry: CacheEntry) -> int:
    """Return how many task runs have used the result of an entry."""
    with _reading() as reader:
        views = reader.cache_entries(time.time_ns(), keys=[bytes.fromhex(entry.key)])
        return sum(map(reader.uses, views))


def clear(what: str = "", *, older_than: timedelta | None = None, dry_run: bool = False) -> int:
    """Delete entries of the cache; the results stay with the task runs that have made them.

    Args:
        what: Name of a task, or the first digits of a key; "" for all.
        older_than: Only what was claimed longer ago.
        dry_run: Whether to count only.

    Returns:
        How many.

    Raises:
        UsageError: There is nothing like that in the cache.
        StoreError: The database cannot be written.
    """
    before = None
    if older_than is not None:
        before = time.time_ns() - older_than // timedelta(microseconds=1) * 1000
    with _reading() as reader:
        keys = reader.cache_keys(what or None, before)
        if not keys and what and before is None and not (keys := _keys(reader, what)):
            raise _not_found(reader, what)
        if not dry_run:
            reader.forget(keys)
    return len(keys)


def entry_of(view: "CacheEntryView") -> CacheEntry:
    """Return an entry as people see it."""
    expires = view.ended + view.lifetime if view.ended and view.lifetime else 0
    return CacheEntry(
        view.key.hex(),
        view.task,
        view.run,
        view.task_run,
        view.state,
        utc(view.created),
        utc(view.ended),
        utc(expires),
        view.size,
        json.loads(view.parts),
    )


@contextmanager
def _reading() -> "Iterator[CacheReader]":
    from raysched.store import open_reader

    with closing(open_reader(settings().resolved_database_url())) as reader:
        yield reader


def _keys(reader: "CacheReader", digits: str) -> list[bytes]:
    if not _KEY.fullmatch(digits):
        return []
    return [key for key in reader.cache_keys() if key.hex().startswith(digits)]


def _not_found(reader: "CacheReader", what: str) -> UsageError:
    tasks = [each.task for each in reader.cached_tasks(time.time_ns())]
    known = f"it has results of {', '.join(tasks)}" if tasks else "it is empty"
    return UsageError(f"nothing in the cache is of a task or key {what!r}: {known}")
