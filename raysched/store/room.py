"""How much room a database takes, and how it gives back what it does not need any more."""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from raysched.store.database import Database
from raysched.store.tables import METADATA

PAGES = 1000
"""Pages that are given back in one transaction: some 10 ms."""

INCREMENTAL = 2
"""The mode of SQLite's `auto_vacuum` in which pages are given back when asked for."""


def table_bytes(connection: Connection) -> dict[str, int]:
    """Return what each table takes, with its indexes (bytes); nothing where that is not known.

    SQLite reads the whole file for that, if it was built with `dbstat`.
    """
    if connection.dialect.name != "sqlite":
        sizes = text("SELECT pg_total_relation_size(to_regclass(:table))")
        return {
            table: int(connection.execute(sizes, {"table": table}).scalar() or 0)
            for table in METADATA.tables
        }
    query = text(
        "SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name) "
        "WHERE aggregate = TRUE GROUP BY tbl_name"
    )
    try:
        found = {table: int(size) for table, size in connection.execute(query)}
    except DBAPIError:
        return {}
    return {table: found.get(table, 0) for table in METADATA.tables}


def database_bytes(connection: Connection) -> tuple[int, int]:
    """Return what the database takes, and how much of it is free for later rows (bytes).

    Of PostgreSQL the second is not known and 0.
    """
    if connection.dialect.name != "sqlite":
        size = text("SELECT pg_database_size(current_database())")
        return int(connection.execute(size).scalar() or 0), 0
    page, pages, free = (_pragma(connection, name) for name in ("page_size", "page_count", _FREE))
    return page * pages, page * free


def give_back(database: Database, *, alone: Callable[[], bool]) -> int:
    """Give room back to the operating system; return how much (bytes).

    A SQLite file does so page by page, in short transactions. One that an older raysched has made
    learns it by being copied once, which nobody else must have to wait for. PostgreSQL uses the
    room of deleted rows for new ones, once its autovacuum has passed.

    Args:
        database: The database.
        alone: Returns whether no driver uses it.

    Raises:
        StoreUnavailable: It cannot be written now.
    """
    with database.explained(), database.engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            return 0
        before, _ = database_bytes(connection)
        driver: Any = connection.connection.driver_connection
        if _pragma(connection, "auto_vacuum") == INCREMENTAL:
            while _pragma(connection, _FREE):
                begun = time.monotonic()
                # Python's `execute` would take one step only: one page.
                driver.executescript(f"PRAGMA incremental_vacuum({PAGES})")
                time.sleep(time.monotonic() - begun)
        elif alone():
            driver.executescript(f"PRAGMA auto_vacuum = {INCREMENTAL}; VACUUM")
        driver.executescript("PRAGMA wal_checkpoint(TRUNCATE)")
        after, _ = database_bytes(connection)
        return before - after


_FREE = "freelist_count"


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0)
