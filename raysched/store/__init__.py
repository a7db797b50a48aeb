"""Durable states; the only place with SQLModel, for SQLite and PostgreSQL alike.

Importing this package is cheap: SQLModel loads when a store or a reader is opened.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raysched.store.housekeeping import Housekeeping
    from raysched.store.reader import Reader
    from raysched.store.sql import SqlStore


def open_store(url: str, *, synchronous: str = "FULL") -> "SqlStore":
    """Open a database for writing; create or upgrade its schema where needed.

    Args:
        url: `sqlite:///path` or `postgresql://user@host/database`.
        synchronous: SQLite only: `FULL` survives a loss of power, `NORMAL` only the death of
            processes.

    Raises:
        StoreUnavailable: It cannot be reached, created or written, or stands on a network file
            system.
        StoreVersionError: Its schema is newer than this raysched.
        StoreError: The URL names no database that raysched can use.
    """
    from raysched.store.database import database
    from raysched.store.sql import SqlStore

    return SqlStore(database(url, synchronous=synchronous))


def open_reader(url: str) -> "Reader":
    """Open a database for looking: read-only, nothing is created, upgraded or unpickled.

    A database that does not exist yet has no runs; it is found as soon as somebody creates it.

    Args:
        url: As for `open_store`.

    Raises:
        StoreError: The URL names no database that raysched can use.
    """
    from raysched.store.database import database
    from raysched.store.reader import Reader

    return Reader(database(url))


def open_housekeeping(url: str) -> "Housekeeping":
    """Open a database to look after it; nothing is created or upgraded.

    Args:
        url: As for `open_store`.

    Raises:
        StoreUnavailable: It cannot be reached.
        StoreVersionError: Its schema is another than this raysched's.
        StoreError: The URL names no database that raysched can use, or there is none yet.
    """
    from raysched.errors import StoreError
    from raysched.store import schema
    from raysched.store.database import database
    from raysched.store.housekeeping import Housekeeping

    opened = database(url)
    if opened.exists():
        with opened.reading() as connection:
            if schema.check(opened, connection):
                return Housekeeping(opened)
    raise StoreError(f"{opened.name}: there is no database yet; the first `raysched run` makes it")


__all__ = ["open_housekeeping", "open_reader", "open_store"]
