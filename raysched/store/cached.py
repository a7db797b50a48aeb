"""The cache as it is: its entries, with the task runs that make or have made their results."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, delete, func, or_, select

from raysched.model.ids import SHORT_ID, task_run_key
from raysched.model.states import StateType
from raysched.store.claims import HAS_RESULT, IS_OPEN
from raysched.store.snapshots import Snapshots
from raysched.store.tables import CACHE_ENTRY, DRIVER, FLOW_RUN, TASK_GROUP, TASK_RUN
from raysched.store.views import RunView

ROWS = 2000
"""Entries that one transaction deletes."""


class EntryState(StrEnum):
    """What there is for a cache key."""

    KEPT = "kept"
    """A result that can be used."""
    EXPIRED = "expired"
    """A result that is too old."""
    MAKING = "being made"
    NONE = "none"
    """Who was to make it has left no result that can be used: the next to ask makes it."""


@dataclass(frozen=True, slots=True)
class CacheEntryView:
    """An entry of the cache.

    Attributes:
        key: The cache key.
        task: Name of the task.
        run: Id of the flow run that makes or made its result; "" if that was removed.
        task_run: Key of the task run there.
        state: What there is.
        created: When it was claimed (ns).
        ended: When its result was made (ns), 0 where there is none.
        lifetime: How long it may be used (ns from its end), 0 for ever.
        size: Encoded size of the result (bytes).
        parts: JSON text: what the key was made of (see `CacheClaim`).
    """

    key: bytes
    task: str
    run: str
    task_run: str
    state: EntryState
    created: int
    ended: int
    lifetime: int
    size: int
    parts: str


@dataclass(frozen=True, slots=True)
class CachedTask:
    """The entries of one task.

    Attributes:
        task: Its name.
        entries: How many there are.
        kept: How many of them have a result that is not too old.
        bytes: What these results take, encoded.
        oldest: When the first of the entries was claimed (ns).
        newest: When the last one was claimed (ns).
    """

    task: str
    entries: int
    kept: int
    bytes: int
    oldest: int
    newest: int


_ENDED = func.coalesce(TASK_RUN.c.started + TASK_RUN.c.duration, 0)
_MAKERS = (
    CACHE_ENTRY.outerjoin(
        TASK_RUN,
        and_(
            TASK_RUN.c.run == CACHE_ENTRY.c.run,
            TASK_RUN.c.grp == CACHE_ENTRY.c.grp,
            TASK_RUN.c.idx == CACHE_ENTRY.c.idx,
        ),
    )
    .outerjoin(FLOW_RUN, FLOW_RUN.c.number == CACHE_ENTRY.c.run)
    .outerjoin(DRIVER, DRIVER.c.number == FLOW_RUN.c.driver)
)


class CacheReader(Snapshots):
    """Looks at the cache, and clears it."""

    def cached_tasks(self, now: int) -> list[CachedTask]:
        """Return what is cached, by task; `now` in ns since the epoch."""
        is_usable = and_(
            HAS_RESULT, or_(CACHE_ENTRY.c.lifetime == 0, _ENDED + CACHE_ENTRY.c.lifetime > now)
        )
        query = (
            select(
                CACHE_ENTRY.c.task,
                func.count(),
                func.count().filter(is_usable),
                func.coalesce(func.sum(TASK_RUN.c.size).filter(is_usable), 0),
                func.min(CACHE_ENTRY.c.created),
                func.max(CACHE_ENTRY.c.created),
            )
            .select_from(_MAKERS)
            .group_by(CACHE_ENTRY.c.task)
            .order_by(CACHE_ENTRY.c.task)
        )
        with self._reading() as connection:
            return [CachedTask(*row) for row in connection.execute(query)]

    def cache_entries(
        self,
        now: int,
        *,
        task: str | None = None,
        keys: Collection[bytes] | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[CacheEntryView]:
        """Return entries of the cache, the newest first.

        Args:
            now: The present (ns since the epoch).
            task: Only those of the task of that name.
            keys: Only these keys.
            before: Only those that were claimed before this time (ns).
            limit: At most so many.
        """
        conditions: list[ColumnElement[bool]] = []
        if task is not None:
            conditions.append(CACHE_ENTRY.c.task == task)
        if keys is not None:
            conditions.append(CACHE_ENTRY.c.key.in_(keys))
        if before is not None:
            conditions.append(CACHE_ENTRY.c.created < before)
        query = _entries().where(*conditions).order_by(CACHE_ENTRY.c.created.desc()).limit(limit)
        return self._found(query, now)

    def cache_keys(self, task: str | None = None, before: int | None = None) -> list[bytes]:
        """Return keys of the cache; see `cache_entries`."""
        query = select(CACHE_ENTRY.c.key)
        if task is not None:
            query = query.where(CACHE_ENTRY.c.task == task)
        if before is not None:
            query = query.where(CACHE_ENTRY.c.created < before)
        with self._reading() as connection:
            return list(connection.execute(query).scalars())

    def cache_entry_of(
        self, run: RunView, group: int, member: int, now: int
    ) -> CacheEntryView | None:
        """Return the entry whose result a task run makes or has made, or None."""
        mine = (
            CACHE_ENTRY.c.run == run.number,
            CACHE_ENTRY.c.grp == group,
            CACHE_ENTRY.c.idx == member,
        )
        return next(iter(self._found(_entries().where(*mine), now)), None)

    def uses(self, entry: CacheEntryView) -> int:
        """Return how many task runs have used the result of an entry; looks at all of its task."""
        if not entry.run:
            return 0
        said = "the result of "
        elsewhere = TASK_RUN.c.reason == f"{said}{entry.run[:SHORT_ID]}/{entry.task_run}"
        here = (TASK_RUN.c.reason == said + entry.task_run) & (FLOW_RUN.c.id == entry.run)
        query = (
            select(func.count())
            .select_from(TASK_GROUP)
            .join(
                TASK_RUN, (TASK_RUN.c.run == TASK_GROUP.c.run) & (TASK_RUN.c.grp == TASK_GROUP.c.id)
            )
            .join(FLOW_RUN, FLOW_RUN.c.number == TASK_GROUP.c.run)
            .where(
                TASK_GROUP.c.task == entry.task,
                TASK_RUN.c.state == int(StateType.CACHED),
                or_(elsewhere, here),
            )
        )
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def forget(self, keys: Sequence[bytes]) -> None:
        """Delete entries; the results themselves stay with the task runs that have made them.

        Raises:
            StoreUnavailable: The database cannot be written.
        """
        for start in range(0, len(keys), ROWS):
            # Some at a time, so that others have their turn.
            some = keys[start : start + ROWS]
            with self._database.writing() as connection:
                connection.execute(delete(CACHE_ENTRY).where(CACHE_ENTRY.c.key.in_(some)))

    def _found(self, query: Select[Any], now: int) -> list[CacheEntryView]:
        with self._reading() as connection:
            rows: Sequence[Row[Any]] = connection.execute(query).all()
        drivers = {row.driver for row in rows if row.is_open and row.driver is not None}
        living = self._database.living(drivers) if drivers else set()
        return [_view(row, now, is_living=row.driver in living) for row in rows]


def _entries() -> Select[Any]:
    return select(
        CACHE_ENTRY,
        TASK_GROUP.c.first,
        FLOW_RUN.c.id.label("run_id"),
        HAS_RESULT.label("is_kept"),
        IS_OPEN.label("is_open"),
        _ENDED.label("ended"),
        TASK_RUN.c.size,
        DRIVER.c.id.label("driver"),
    ).select_from(
        _MAKERS.outerjoin(
            TASK_GROUP,
            and_(TASK_GROUP.c.run == CACHE_ENTRY.c.run, TASK_GROUP.c.id == CACHE_ENTRY.c.grp),
        )
    )


def _view(row: Row[Any], now: int, *, is_living: bool) -> CacheEntryView:
    if row.is_kept:
        expires = row.ended + row.lifetime if row.lifetime else now + 1
        state = EntryState.KEPT if now < expires else EntryState.EXPIRED
    else:
        state = EntryState.MAKING if row.is_open and is_living else EntryState.NONE
    return CacheEntryView(
        row.key,
        row.task,
        row.run_id or "",
        "" if row.first is None else task_run_key(row.task, row.first + row.idx),
        state,
        row.created,
        row.ended if row.is_kept else 0,
        row.lifetime,
        row.size or 0 if row.is_kept else 0,
        row.parts,
    )
