"""The one store: batches into tables, for SQLite and PostgreSQL alike."""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

from sqlalchemy import Connection, CursorResult, Table, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from raysched.errors import RunExists, RunTakenOver, StoreError
from raysched.model.records import CacheAnswer, CacheClaim, Records, Takeover
from raysched.model.rows import Batch, Execution, FlowRunChange, FlowRunRow, RequestRow
from raysched.store import rows, schema
from raysched.store.claims import NEW, Claims, new_rows, take_new
from raysched.store.counts import count_states
from raysched.store.database import Database, Execute
from raysched.store.records import find_run, read_records
from raysched.store.requests import read_requests
from raysched.store.restarts import clear
from raysched.store.tables import (
    ATTEMPT,
    DELIVERY,
    DRIVER,
    EVENT,
    FLOW_RUN,
    LOG,
    PLACE,
    TASK_GROUP,
    TASK_INPUT,
    TASK_RUN,
)
from raysched.store.takeover import Taker
from raysched.store.task_runs import read_values


@dataclass(slots=True)
class _Counter:
    """Numbers the rows of one run in a table that has no other key.

    A batch that is committed again brings the same objects, and so gets the same ids. Ids are given
    out before a commit, because one that failed may yet have arrived.

    Attributes:
        next: Id of the next new row.
        last: What tells the rows of the last batch that had any from others: an object of theirs.
        last_id: Id of the first of them.
    """

    next: int
    last: object = None
    last_id: int = 0

    def number(self, mark: object, count: int) -> int:
        """Return the id of the first of so many rows; the others follow."""
        if mark is not self.last:
            self.last, self.last_id = mark, self.next
        self.next = max(self.next, self.last_id + count)
        return self.last_id


class SqlStore:
    """A `Store` in a SQL database. Threads may share it; they write one after the other."""

    def __init__(self, database: Database) -> None:
        self._database = database
        of = database.placeholder
        # Only our own names go into these.
        self._epoch = f"SELECT epoch FROM {FLOW_RUN} WHERE number = {of}{database.locking}"  # noqa: S608
        self._units = f"UPDATE {TASK_GROUP} SET units = {of} WHERE run = {of} AND id = {of}"  # noqa: S608
        self._lock = Lock()
        self._held = ExitStack()
        self._driver: int | None = None
        self._working: set[int] = set()
        self._counters: dict[tuple[str, int], _Counter] = {}
        try:
            database.prepare()
            schema.upgrade(database)
        except BaseException:
            database.close()
            raise

    def open_run(self, row: FlowRunRow) -> int:
        """Insert a flow run, owned by this store; return its number (the key of all its rows).

        Idempotent: opening the same run again returns the same number.

        Raises:
            RunExists: There is one already with its key.
            StoreUnavailable: The database cannot be written.
        """
        with self._lock:
            driver = self._own_driver()
            with self._database.writing() as connection:
                known = select(FLOW_RUN.c.number).where(
                    FLOW_RUN.c.id == row.id, FLOW_RUN.c.driver == driver
                )
                number: int | None = connection.execute(known).scalar()
                if number is None:
                    number = self._insert_run(connection, row, driver)
            self._working.add(number)
            return number

    def take_over(
        self, run_id: str, execution: Callable[[Sequence[Execution]], Execution]
    ) -> Takeover:
        """Own a flow run that another process has left, or that has ended.

        What `engine.ports.Store` says, and idempotent: where the answer got lost, the same store
        may ask again.

        Raises:
            RunOwned: It is open, and its driver lives; says which process that is.
            RunNotFound: There is no such run.
            StoreUnavailable: The database cannot be written.
        """
        with self._lock:
            driver = self._own_driver()
            with self._database.writing() as connection:
                taker = Taker(self._database, connection, driver, self._working)
                takeover = taker.take(run_id, execution)
            self._working.add(takeover.number)
            return takeover

    def records(self, run: int) -> Records:
        """Return what there is of a flow run (see `engine.ports.Store`).

        Raises:
            StoreUnavailable: The database cannot be read.
        """
        with self._database.reading() as connection:
            return read_records(connection, run)

    def number_of(self, run_id: str) -> int:
        """Return the number of a flow run, whoever owns it.

        Raises:
            RunNotFound: There is no such run.
            StoreUnavailable: The database cannot be read.
        """
        with self._database.reading() as connection:
            return int(find_run(connection, run_id)["number"])

    def claim(self, run: int, claims: Sequence[CacheClaim], now: int = 0) -> list[CacheAnswer]:
        """Return for each cache key its result, or who makes it (see `engine.ports.Store`).

        Idempotent: a task run that asks again for what it is to make is told so again. A result
        may be used as long as who made it and who asks for it say; what a fallback returned is
        none.

        Raises:
            StoreUnavailable: The database cannot be written.
        """
        now = now or time.time_ns()
        entries = new_rows(run, claims, now)
        with self._lock:
            if entries and take_new(self._database, entries):
                return [NEW] * len(claims)
            with self._database.writing() as connection:
                return Claims(self._database, connection, run, now).answer(claims)

    def commit(self, batch: Batch) -> None:
        """Write a batch in one transaction: all of it is durable when this returns.

        Idempotent: the same batch may be committed again. Columns of task runs that are None in
        the batch (value, location, name, roots, reason), a size of 0 and what is not marked as
        handled or rolled back leave what an earlier batch has written; a place of 0 leaves the one
        of the same attempt. Spans of the user's are not kept.

        Raises:
            StoreUnavailable: Nothing was written, or it is not known; the same batch may be
                tried again.
            RunTakenOver: Another process has taken the run over: stop.
        """
        with self._lock:
            if batch.logs:
                self._counter(LOG, batch.run)
            if batch.events:
                self._counter(EVENT, batch.run)
            if batch.deliveries:
                self._counter(DELIVERY, batch.run)
            if batch.flow_run is None:
                with self._database.committing() as execute:
                    self._write(execute, batch)
                return
            with self._database.writing() as connection:
                self._write(connection.exec_driver_sql, batch)
                self._change(connection, batch.run, batch.flow_run)
            if batch.flow_run.state.is_terminal:
                self._working.discard(batch.run)

    def values(self, run: int, group: int, start: int, stop: int) -> dict[int, bytes]:
        """Return the kept values of members of a group, by position (see `engine.ports.Store`).

        Raises:
            StoreUnavailable: The database cannot be read.
        """
        with self._database.reading() as connection:
            return read_values(connection, run, group, start, stop)

    def requests(self, run: int, after: int) -> Sequence[RequestRow]:
        """Return what other processes have asked of a run (see `engine.ports.Store`).

        Raises:
            StoreUnavailable: The database cannot be read.
        """
        with self._database.reading() as connection:
            return read_requests(connection, run, after)

    def close(self) -> None:
        """Give up ownership of this process's runs and close. Idempotent."""
        with self._lock:
            self._held.close()
            self._driver = None
            self._database.close()

    def _own_driver(self) -> int:
        if self._driver is None:
            driver = secrets.token_hex(8)
            values = {
                "id": driver,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": time.time_ns(),
            }
            with self._database.writing() as connection:
                result = connection.execute(insert(DRIVER).values(values))
                number = _inserted_number(result)
            # Nobody asks for this driver before the first run names it.
            self._held.enter_context(self._database.hold(driver))
            self._driver = number
        return self._driver

    def _check_epoch(self, execute: Execute, batch: Batch) -> None:
        found = execute(self._epoch, (batch.run,)).fetchone()
        if found is None:
            raise StoreError(f"{self._database.name}: there is no run with the number {batch.run}")
        epoch = found[0]
        if epoch != batch.epoch:
            raise RunTakenOver(
                f"{self._database.name}: another process has taken this run over "
                f"(epoch {epoch}, ours is {batch.epoch}); this process must stop working on it"
            )

    def _write(self, execute: Execute, batch: Batch) -> None:
        self._check_epoch(execute, batch)
        clear(execute, self._database.placeholder, batch)
        self._upsert(execute, TASK_GROUP, rows.task_groups(batch))
        for group, units in batch.units.items():
            execute(self._units, (units, batch.run, group))
        for columns, task_runs in rows.task_runs(batch):
            conflict = _conflict(TASK_RUN, columns)
            self._database.insert(execute, TASK_RUN, columns, task_runs, conflict)
        self._upsert(execute, PLACE, rows.places(batch))
        self._upsert(execute, ATTEMPT, rows.attempts(batch))
        self._upsert(execute, TASK_INPUT, rows.inputs(batch))
        if batch.logs:
            # Not the list: what could not be committed may come again in another one.
            first = self._counter(LOG, batch.run).number(batch.logs[0], len(batch.logs))
            self._upsert(execute, LOG, rows.logs(batch, first))
        if batch.events:
            first = self._counter(EVENT, batch.run).number(batch.events[0], len(batch.events))
            self._upsert(execute, EVENT, rows.events(batch, first))
        if batch.deliveries:
            # Not the first one: it may be given to the flow more than once.
            given = self._counter(DELIVERY, batch.run)
            first = given.number(batch.deliveries, len(batch.deliveries))
            self._upsert(execute, DELIVERY, rows.deliveries(batch, first))

    def _counter(self, table: Table, run: int) -> _Counter:
        if (table.name, run) not in self._counters:
            with self._database.reading() as connection:
                query = select(func.max(table.c.id)).where(table.c.run == run)
                last = connection.execute(query).scalar() or 0
            self._counters[table.name, run] = _Counter(last + 1)
        return self._counters[table.name, run]

    def _insert_run(self, connection: Connection, row: FlowRunRow, driver: int) -> int:
        values = rows.flow_run(row) | {"driver": driver}
        try:
            # What is refused ends no more than this, so that it can be asked why.
            with connection.begin_nested():
                return _inserted_number(connection.execute(insert(FLOW_RUN).values(values)))
        except IntegrityError:
            of_key = select(FLOW_RUN.c.id).where(FLOW_RUN.c.key == (row.key or None))
            other = connection.execute(of_key).scalar()
            if other is None:
                raise
        raise RunExists(
            f"key {row.key!r}: flow run {other} has it, and a key starts a run once only; look at "
            f"that run, or use another key",
            run_id=other,
        )

    def _upsert(self, execute: Execute, table: Table, values: Sequence[tuple[object, ...]]) -> None:
        if values:
            columns = tuple(table.columns.keys())
            self._database.insert(execute, table, columns, values, _conflict(table, columns))

    def _change(self, connection: Connection, run: int, change: FlowRunChange) -> None:
        values = rows.flow_run_change(change)
        if change.state.is_terminal:
            values["counts"] = json.dumps(count_states(connection, [run]).get(run, {}))
        connection.execute(update(FLOW_RUN).where(FLOW_RUN.c.number == run).values(values))


def _inserted_number(result: CursorResult[Any]) -> int:
    # Typed as optional, for statements that insert several rows.
    return int(result.inserted_primary_key[0])  # type: ignore[index]


@lru_cache(maxsize=256)
def _conflict(table: Table, columns: tuple[str, ...]) -> str:
    """Return what follows ON CONFLICT: new values win, but NULL leaves what is there."""
    key = table.primary_key.columns.keys()
    changes = {
        name: f"COALESCE(excluded.{name}, {table.name}.{name})"
        if name in rows.KEPT
        else f"excluded.{name}"
        for name in columns
        if name not in key
    }
    if table is TASK_RUN:
        # Of another attempt, it is not known by the one before.
        changes["place"] = (
            "CASE WHEN excluded.attempts = task_run.attempts "
            "THEN COALESCE(excluded.place, task_run.place) ELSE excluded.place END"
        )
    assignments = ", ".join(f"{name} = {value}" for name, value in changes.items())
    return f"({', '.join(key)}) DO UPDATE SET {assignments}"
