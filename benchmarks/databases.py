"""What a database holds: bytes, and rows of all its tables."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

SQLITE = "sqlite:///"
TESTS = Path(__file__).parents[1] / "tests"


class Kept(NamedTuple):
    """What a database holds."""

    bytes: int
    rows: int


def kept_in(url: str) -> Kept:
    """Return what the database of this URL holds; nothing where there is none yet."""
    return _in_sqlite(Path(url.removeprefix(SQLITE))) if url.startswith(SQLITE) else _in_server(url)


def _in_sqlite(database: Path) -> Kept:
    """Look at all pages in use, also at those that are still in the log."""
    if not database.exists():
        return Kept(0, 0)
    with closing(sqlite3.connect(database)) as connection:
        size, count, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "freelist_count")
        )
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        rows = sum(
            connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 - ours
            for (name,) in tables.fetchall()
        )
    return Kept(int(size * (count - free)), rows)


def _in_server(url: str) -> Kept:
    """Look at the tables of the current schema with their indices."""
    import psycopg

    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT relname, pg_total_relation_size(oid) FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
        ).fetchall()
        rows = 0
        for name, _ in tables:
            counted = connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()  # noqa: S608
            rows += counted[0] if counted else 0
    return Kept(sum(size for _, size in tables), rows)


@contextmanager
def private_server() -> Iterator[str]:
    """Run a PostgreSQL server as the tests do, but durably; give the URL, "" if it is missing."""
    sys.path.append(str(TESTS))
    try:
        from servers import is_installed, server
    finally:
        sys.path.remove(str(TESTS))
    if not is_installed():
        yield ""
        return
    with server(durable=True) as running:
        yield running.url
