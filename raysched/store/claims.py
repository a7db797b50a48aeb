"""Who makes the result of a cache key: the entries of the cache, asked and taken in bulk."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Row, Select, and_, func, or_, select

from raysched.model.ids import task_run_key
from raysched.model.records import CacheAnswer, CacheClaim, CacheVerdict
from raysched.model.states import FIRST_TERMINAL, SUCCESSES
from raysched.store.database import Database, Execute
from raysched.store.tables import CACHE_ENTRY, DRIVER, FLOW_RUN, TASK_GROUP, TASK_RUN

KEYS = 10_000
"""Keys that one statement asks for: fewer than SQLite's limit of 32,766 variables."""

SAMPLE = 64
"""Keys that are looked up to see whether there are any: of so many claims or more, if none of these
is there, all are written at once, as if none were."""

_COLUMNS = tuple(CACHE_ENTRY.columns.keys())

_TAKE_NEW = "(key) DO NOTHING"
_TAKE = "(key) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in _COLUMNS if name != "key"
)

HAS_RESULT = and_(
    TASK_RUN.c.state.in_([int(state) for state in SUCCESSES]),
    TASK_RUN.c.rolled_back.is_(None),
    # What a fallback returned stood in for a result: it is none for others.
    TASK_RUN.c.handled.is_(None),
    or_(TASK_RUN.c.value.is_not(None), TASK_RUN.c.location.is_not(None)),
    FLOW_RUN.c.removed.is_(None),
)

# One that has not begun may have no row.
IS_OPEN = and_(
    FLOW_RUN.c.state < FIRST_TERMINAL,
    or_(TASK_RUN.c.state.is_(None), TASK_RUN.c.state < FIRST_TERMINAL),
)

_ENTRIES = (
    select(
        CACHE_ENTRY.c.key,
        CACHE_ENTRY.c.run,
        CACHE_ENTRY.c.grp,
        CACHE_ENTRY.c.idx,
        CACHE_ENTRY.c.task,
        CACHE_ENTRY.c.lifetime,
        FLOW_RUN.c.id,
        HAS_RESULT,
        func.coalesce(TASK_RUN.c.started + TASK_RUN.c.duration, 0),
        TASK_RUN.c.size,
        TASK_RUN.c.value,
        TASK_RUN.c.location,
        IS_OPEN,
        DRIVER.c.id,
    )
    .select_from(CACHE_ENTRY)
    .outerjoin(
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

_KEYS = select(CACHE_ENTRY.c.key)
_OWNERS = select(CACHE_ENTRY.c.key, CACHE_ENTRY.c.run, CACHE_ENTRY.c.grp, CACHE_ENTRY.c.idx)


class _Entry(NamedTuple):
    """An entry, and what there is of the task run that it points to."""

    key: bytes
    run: int
    group: int
    member: int
    task: str
    lifetime: int
    run_id: str | None
    has_result: bool | None
    ended: int
    size: int | None
    value: bytes | None
    location: str | None
    is_open: bool | None
    driver: str | None

    def expires(self, lifetime: int) -> int:
        """Return when the result is too old for one who asks with a lifetime (ns), 0 for never."""
        lifetimes = [each for each in (self.lifetime, lifetime) if each]
        return self.ended + min(lifetimes) if lifetimes else 0

    def answer(self, verdict: CacheVerdict, first: int | None) -> CacheAnswer:
        """Return an answer with what is known of the task run.

        Args:
            verdict: The answer.
            first: Index of the first member of its group, or None where that is not known.
        """
        key = "" if first is None else task_run_key(self.task, first + self.member)
        if verdict is not CacheVerdict.HIT:
            replaced = verdict is CacheVerdict.MINE and self.has_result
            return CacheAnswer(verdict, self.run_id or "", key, ended=self.ended if replaced else 0)
        return CacheAnswer(
            verdict,
            self.run_id or "",
            key,
            self.value,
            self.location or "",
            self.size or 0,
            self.ended,
        )


def new_rows(run: int, claims: Sequence[CacheClaim], now: int) -> list[tuple[object, ...]]:
    """Return the entries of claims for `take_new`; none where it is not worth while.

    Args:
        run: Number of the flow run of those who claim.
        claims: What they claim.
        now: When (ns since the epoch).
    """
    if len(claims) < SAMPLE or len({claim.key for claim in claims}) < len(claims):
        return []
    return _rows(run, claims, now)


def take_new(database: Database, rows: Sequence[tuple[object, ...]]) -> bool:
    """Take keys that are new, unless some seem to be there; return whether all of them were.

    Most often none of many is there, or each. So these are not looked for one by one before they
    are written, and where a sample tells of others nothing is. Who has taken a part of them is
    told so when all are asked for.

    Args:
        database: The database.
        rows: Of `new_rows`.
    """
    sample = [row[0] for row in rows[:: len(rows) // SAMPLE][:SAMPLE]]
    with database.committing() as execute:
        if any(True for _ in _ask(database, execute, _KEYS, sample)):
            return False
        return database.insert(execute, CACHE_ENTRY, _COLUMNS, rows, _TAKE_NEW) == len(rows)


@dataclass(slots=True)
class Claims:
    """The claims of one call, in one transaction that writes.

    Attributes:
        database: The database.
        connection: Of the transaction.
        run: Number of the flow run of those who claim.
        now: When (ns since the epoch).
        firsts: Index of the first member of a group, by flow run and group: looked up once for all
            of its members, since the identities of a group lie beside it.
    """

    database: Database
    connection: Connection
    run: int
    now: int
    firsts: dict[tuple[int, int], int | None] = field(default_factory=dict)

    def answer(self, claims: Sequence[CacheClaim]) -> list[CacheAnswer]:
        """Answer them, in order: see `engine.ports.Store.claim`."""
        entries = self._entries(list({claim.key for claim in claims}))
        answers, taken = self._decide(claims, entries)
        if self.database.locking:
            if self._lock(taken):
                return answers
            # Not all of them were new: now that nobody changes them, they are looked at again.
            entries |= self._entries(list(taken))
            answers, taken = self._decide(claims, entries)
        self._write(taken, _TAKE)
        return answers

    def _lock(self, taken: Mapping[bytes, CacheClaim]) -> bool:
        """Lock entries that shall be taken; return whether all of them were new, and are taken.

        In the order of keys, so that two who want the same ones wait in one direction only.
        """
        self._write(taken, _TAKE_NEW)
        tail = f" ORDER BY key{self.database.locking}"
        owners: dict[bytes, tuple[int, ...]] = {
            row[0]: tuple(row[1:]) for row in self._ask(_OWNERS, sorted(taken), tail)
        }
        mine = {key: (self.run, claim.group, claim.index) for key, claim in taken.items()}
        return owners == mine

    def _write(self, taken: Mapping[bytes, CacheClaim], conflict: str) -> None:
        if taken:
            execute = self.connection.exec_driver_sql
            rows = _rows(self.run, taken.values(), self.now)
            self.database.insert(execute, CACHE_ENTRY, _COLUMNS, rows, conflict)

    def _entries(self, keys: Sequence[bytes]) -> dict[bytes, _Entry]:
        """Return the entries of these keys; one of a driver that is dead is not open."""
        found = [_Entry._make(row) for row in self._ask(_ENTRIES, keys)]
        drivers = {entry.driver for entry in found if entry.is_open and entry.driver is not None}
        dead = drivers - self.database.living(drivers) if drivers else set()
        return {
            entry.key: entry._replace(is_open=False) if entry.driver in dead else entry
            for entry in found
        }

    def _decide(
        self, claims: Sequence[CacheClaim], entries: Mapping[bytes, _Entry]
    ) -> tuple[list[CacheAnswer], dict[bytes, CacheClaim]]:
        """Return the answers, and who takes the entries of which keys."""
        made: set[bytes] = set()
        taken: dict[bytes, CacheClaim] = {}
        answers = []
        for claim in claims:
            key, entry = claim.key, entries.get(claim.key)
            if entry is not None and self._is_own(entry, claim):
                made.add(key)
                answers.append(NEW)
            elif entry is not None and self._is_hit(entry, claim):
                answers.append(self._answer(entry, CacheVerdict.HIT))
            elif key in made:
                # Who makes it is among those who ask.
                answers.append(_BUSY)
            elif entry is not None and entry.is_open and not claim.refresh:
                answers.append(self._answer(entry, CacheVerdict.BUSY))
            else:
                made.add(key)
                taken[key] = claim
                answers.append(NEW if entry is None else self._answer(entry, CacheVerdict.MINE))
        return answers, taken

    def _answer(self, entry: _Entry, verdict: CacheVerdict) -> CacheAnswer:
        place = entry.run, entry.group
        if place not in self.firsts:
            of_group = (TASK_GROUP.c.run == entry.run) & (TASK_GROUP.c.id == entry.group)
            found = self.connection.execute(select(TASK_GROUP.c.first).where(of_group))
            self.firsts[place] = found.scalar()
        return entry.answer(verdict, self.firsts[place])

    def _is_own(self, entry: _Entry, claim: CacheClaim) -> bool:
        """Whether it points to the task run that claims it: then that one is to make it."""
        return entry.member == claim.index and entry.group == claim.group and entry.run == self.run

    def _is_hit(self, entry: _Entry, claim: CacheClaim) -> bool:
        if claim.refresh or not entry.has_result:
            return False
        expires = entry.expires(claim.lifetime)
        return not expires or self.now < expires

    def _ask(self, query: Select[Any], keys: Sequence[bytes], tail: str = "") -> Iterator[Row[Any]]:
        return _ask(self.database, self.connection.exec_driver_sql, query, keys, tail)


def _rows(run: int, claims: Iterable[CacheClaim], now: int) -> list[tuple[object, ...]]:
    """Return their entries in the order of keys."""
    return sorted(
        (
            claim.key,
            run,
            claim.group,
            claim.index,
            claim.task,
            now,
            claim.lifetime,
            claim.parts,
        )
        for claim in claims
    )


def _ask(
    database: Database, execute: Execute, query: Select[Any], keys: Sequence[Any], tail: str = ""
) -> Iterator[Any]:
    dialect, placeholder = database.engine.dialect, database.placeholder
    for start in range(0, len(keys), KEYS):
        some = tuple(keys[start : start + KEYS])
        yield from execute(_of_keys(dialect, query, len(some), placeholder) + tail, some)


NEW = CacheAnswer(CacheVerdict.MINE)
"""Nobody has claimed it before."""

_BUSY = CacheAnswer(CacheVerdict.BUSY)


@lru_cache(maxsize=64)
def _of_keys(dialect: Dialect, query: Select[Any], count: int, placeholder: str) -> str:
    """Return a query for so many keys in the driver's own dialect, which is prepared once."""
    text = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    return f"{text} WHERE {CACHE_ENTRY}.key IN ({', '.join([placeholder] * count)})"
