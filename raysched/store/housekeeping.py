"""Removing runs that have ended, a little at a time, while others write theirs."""

import json
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, RowMapping, Select, Table, delete, func, select, tuple_, update

from raysched.model.states import FIRST_TERMINAL, StateType
from raysched.store import room, schema
from raysched.store.database import Database
from raysched.store.tables import (
    ATTEMPT,
    CACHE_ENTRY,
    DELIVERY,
    DRIVER,
    EVENT,
    FLOW_RUN,
    LOG,
    PLACE,
    REQUEST,
    TASK_GROUP,
    TASK_INPUT,
    TASK_RUN,
)

ROWS = 2000
"""Rows that one transaction deletes: some 10 ms, after which others have their turn."""

RUNS = 100
"""Runs, with all that they called, that one transaction hides."""

T = TypeVar("T")

_OF_RUNS = (TASK_RUN, ATTEMPT, PLACE, LOG, EVENT, TASK_INPUT, DELIVERY, REQUEST, TASK_GROUP)
"""Tables whose rows go with their run, those that others refer to last."""


@dataclass(frozen=True, slots=True)
class ExpiredRun:
    """A flow run that is old enough to be removed, with all runs that it called.

    Attributes:
        id: Its id.
        flow: Name of its flow.
        ended: When it ended (ns).
        members: Its own number and id, and those of the runs that it called.
        task_runs: How many task runs they have.
    """

    id: str
    flow: str
    ended: int
    members: tuple[tuple[int, str], ...]
    task_runs: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What a database holds.

    Attributes:
        schema: Its revision.
        bytes: What it takes.
        free: How much of that is free for later rows (bytes); 0 where that is not known.
        runs: Flow runs by state, as recorded, without those that others called.
        subflows: Flow runs that others called.
        task_runs: Task runs that have a row.
        rows: Rows by table.
        tables: Bytes by table with its indexes; empty where that is not known.
    """

    schema: str
    bytes: int
    free: int
    runs: Mapping[StateType, int]
    subflows: int
    task_runs: int
    rows: Mapping[str, int]
    tables: Mapping[str, int]


class Housekeeping:
    """Looks after a database that others are working with.

    Args:
        database: The database, with the schema of this raysched.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def name(self) -> str:
        """What people know the database by."""
        return self._database.name

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def stats(self) -> Stats:
        """Return what there is; reads all of a SQLite file."""
        with self._database.reading() as connection:
            rows = {
                name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in _TABLES.items()
            }
            is_root = FLOW_RUN.c.parent == ""
            by_state = (
                select(FLOW_RUN.c.state, is_root, func.count())
                .where(FLOW_RUN.c.removed.is_(None))
                .group_by(FLOW_RUN.c.state, is_root)
            )
            runs: dict[StateType, int] = {}
            subflows = 0
            for state, of_nobody, count in connection.execute(by_state):
                if of_nobody:
                    runs[StateType(state)] = count
                else:
                    subflows += count
            size, free = room.database_bytes(connection)
            tables = room.table_bytes(connection)
        return Stats(schema.HEAD, size, free, runs, subflows, rows[TASK_RUN.name], rows, tables)

    def expired(self, before: int) -> list[ExpiredRun]:
        """Return the runs that ended before a moment (ns), the oldest first.

        None of which anything goes on: not those of which a run that they called is open, and not
        those whose results an open run reuses. Those whose removal was interrupted are among them.
        """
        with self._database.reading() as connection:
            rows = connection.execute(_select_runs()).mappings().all()
        children: dict[str, list[RowMapping]] = defaultdict(list)
        for row in rows:
            children[row["parent"]].append(row)
        known = {row["id"] for row in rows}
        needed = {row["rerun_of"] for row in rows if row["state"] < FIRST_TERMINAL}
        found = []
        for row in rows:
            if row["parent"] in known or not (row["removed"] or _has_ended(row, before)):
                continue
            members = list(_tree(row, children))
            if row["removed"] or not any(
                each["state"] < FIRST_TERMINAL or each["id"] in needed for each in members
            ):
                found.append(_expired(row, members))
        return sorted(found, key=lambda run: run.ended)

    def hide(self, runs: Sequence[ExpiredRun], before: int) -> list[ExpiredRun]:
        """Begin to remove runs: nobody sees them any more, and no cache key leads to them.

        Returns:
            Those that are, without those that somebody has resumed in the meantime.
        """
        hidden = []
        for some in _parts(runs, RUNS):
            with self._writing() as connection:
                mine = [run for run in some if self._may_hide(connection, run, before)]
                # A new epoch: whoever wrote them last cannot go on.
                gone = {"removed": True, "key": None, "epoch": FLOW_RUN.c.epoch + 1}
                for numbers in _numbers(mine):
                    of_runs = FLOW_RUN.c.number.in_(numbers)
                    connection.execute(update(FLOW_RUN).where(of_runs).values(gone))
                    connection.execute(delete(CACHE_ENTRY).where(CACHE_ENTRY.c.run.in_(numbers)))
            hidden += mine
        return hidden

    def _may_hide(self, connection: Connection, run: ExpiredRun, before: int) -> bool:
        rows: list[RowMapping] = []
        for numbers in _numbers([run]):
            query = _select_runs().where(FLOW_RUN.c.number.in_(numbers)).with_for_update()
            rows += connection.execute(query).mappings()
        if all(row["removed"] for row in rows):
            return bool(rows)
        reused = select(FLOW_RUN.c.rerun_of).where(FLOW_RUN.c.state < FIRST_TERMINAL)
        needed = set(connection.execute(reused.distinct()).scalars())
        return len(rows) == len(run.members) and all(
            row["id"] not in needed
            and row["state"] >= FIRST_TERMINAL
            and (row["id"] != run.id or row["ended"] < before)
            for row in rows
        )

    def locations(self, run: ExpiredRun) -> Iterator[str]:
        """Yield where the result storage has values of a run's task runs."""
        for numbers in _numbers([run]):
            query = select(TASK_RUN.c.location).where(
                TASK_RUN.c.run.in_(numbers), TASK_RUN.c.location.is_not(None)
            )
            with self._database.reading() as connection:
                yield from connection.execute(query).scalars()

    def known(self, run_ids: Sequence[str]) -> set[str]:
        """Return those of these ids of flow runs that are still there, if only to be removed."""
        with self._database.reading() as connection:
            return {
                run_id
                for some in _parts(run_ids, ROWS)
                for run_id in connection.execute(
                    select(FLOW_RUN.c.id).where(FLOW_RUN.c.id.in_(some))
                ).scalars()
            }

    def borrowed(self, *, but: Sequence[ExpiredRun]) -> Iterator[str]:
        """Yield where values are that task runs of other runs have made.

        Args:
            but: What these runs have borrowed does not count.
        """
        gone = {number for run in but for number, _ in run.members}
        cached = int(StateType.CACHED)
        runs = select(FLOW_RUN.c.number, FLOW_RUN.c.counts).where(FLOW_RUN.c.removed.is_(None))
        with self._database.reading() as connection:
            borrowers = [
                number
                for number, counts in connection.execute(runs)
                # Of a run that goes on, nobody has counted them.
                if number not in gone and (counts is None or str(cached) in json.loads(counts))
            ]
        for number in borrowers:
            query = select(TASK_RUN.c.location).where(
                TASK_RUN.c.run == number,
                TASK_RUN.c.state == cached,
                TASK_RUN.c.location.is_not(None),
            )
            with self._database.reading() as connection:
                yield from connection.execute(query).scalars()

    def delete(self, runs: Sequence[ExpiredRun]) -> None:
        """Delete hidden runs with everything of theirs."""
        for numbers in _numbers(runs):
            for table in _OF_RUNS:
                left: _Left = deque((number, ()) for number in numbers)
                while left:
                    with self._writing() as connection:
                        _delete_some(connection, table, left)
            with self._writing() as connection:
                connection.execute(delete(FLOW_RUN).where(FLOW_RUN.c.number.in_(numbers)))

    def forget_drivers(self, before: int) -> None:
        """Delete dead drivers that began before a moment (ns) and own no run any more."""
        used = select(FLOW_RUN.c.driver)
        unused = select(DRIVER.c.id).where(DRIVER.c.started < before, DRIVER.c.number.not_in(used))
        with self._writing() as connection:
            drivers = set(connection.execute(unused).scalars())
            dead = sorted(drivers - self._database.living(drivers)) if drivers else []
            for some in _parts(dead, ROWS):
                connection.execute(delete(DRIVER).where(DRIVER.c.id.in_(some)))

    def give_back(self) -> int:
        """Give room back to the operating system; return how much (bytes)."""
        return room.give_back(self._database, alone=self._is_alone)

    def _is_alone(self) -> bool:
        with self._database.reading() as connection:
            drivers = set(connection.execute(select(DRIVER.c.id)).scalars())
        return not self._database.living(drivers)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Run a block in one transaction, and then give others as much time as it took."""
        begun = time.monotonic()
        with self._database.writing() as connection:
            yield connection
        time.sleep(time.monotonic() - begun)


_TABLES = {table.name: table for table in (FLOW_RUN, *_OF_RUNS, CACHE_ENTRY, DRIVER)}


_Left: TypeAlias = deque[tuple[int, tuple[int, ...]]]
"""Numbers of runs, and the rest of the key of the first row that each still has, () for any."""


def _delete_some(connection: Connection, table: Table, left: _Left) -> None:
    """Delete the first rows of runs, and take those runs from the queue that have no more."""
    first, *rest = table.primary_key.columns
    key = tuple_(*rest)
    rows = ROWS
    while left and rows > 0:
        run, start = left.popleft()
        some = [first == run]
        if start:
            # PostgreSQL has all those that were deleted before it still in its index.
            some.append(key >= start)
        after = select(*rest).where(*some).order_by(*rest).offset(rows).limit(1)
        stop = connection.execute(after).first()
        if stop is not None:
            some.append(key < tuple(stop))
            left.appendleft((run, tuple(stop)))
        rows -= connection.execute(delete(table).where(*some)).rowcount


def _select_runs() -> Select[Any]:
    return select(
        FLOW_RUN.c.number,
        FLOW_RUN.c.id,
        FLOW_RUN.c.flow,
        FLOW_RUN.c.parent,
        FLOW_RUN.c.state,
        FLOW_RUN.c.ended,
        FLOW_RUN.c.counts,
        FLOW_RUN.c.rerun_of,
        FLOW_RUN.c.removed,
    )


def _has_ended(row: RowMapping, before: int) -> bool:
    return bool(row["state"] >= FIRST_TERMINAL and row["ended"] < before)


def _tree(root: RowMapping, children: Mapping[str, Sequence[RowMapping]]) -> Iterator[RowMapping]:
    left = [root]
    while left:
        row = left.pop()
        yield row
        left.extend(children.get(row["id"], ()))


def _expired(root: RowMapping, members: Sequence[RowMapping]) -> ExpiredRun:
    counts = [json.loads(row["counts"] or "{}") for row in members]
    return ExpiredRun(
        root["id"],
        root["flow"],
        root["ended"],
        tuple((row["number"], row["id"]) for row in members),
        sum(sum(each.values()) for each in counts),
    )


def _numbers(runs: Sequence[ExpiredRun]) -> Iterator[Sequence[int]]:
    """Yield the numbers of runs, and of those that they called, as many as a statement takes."""
    yield from _parts([number for run in runs for number, _ in run.members], ROWS)


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
