"""Transactions that only read, also where there is no database yet."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, StaticPool, create_engine

from raysched.store import schema
from raysched.store.database import Database
from raysched.store.tables import METADATA


class Snapshots:
    """Opens transactions, each of which sees the database at one moment."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._checked = False
        self._nothing: Engine | None = None

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._database.close()
        if self._nothing is not None:
            self._nothing.dispose()
            self._nothing = None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        if self._database.exists():
            with self._database.reading() as connection:
                self._checked = self._checked or schema.check(self._database, connection)
                if self._checked:
                    yield connection
                    return
        with self._empty().connect() as connection:
            yield connection

    def _empty(self) -> Engine:
        """Return a database without runs, which answers until somebody creates the real one."""
        if self._nothing is None:
            self._nothing = create_engine(
                "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
            )
            METADATA.create_all(self._nothing)
        return self._nothing
