"""What differs between databases, behind one face; everything else of the store is shared."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from raysched.errors import StoreError

LOCK_SECONDS = 5
"""How long a statement waits for another process's lock before it is an error. Not longer: who
writes then says what is the matter, heeds Ctrl-C, and tries again as long as its patience lasts."""

PATIENCE_SECONDS = 30
"""How long what opens a database waits for another process's lock before it is an error."""


Execute: TypeAlias = Callable[[str, tuple[object, ...]], Any]
"""Executes a statement of the driver's dialect within a transaction; returns a cursor."""


class Database(ABC):
    """One database: its connections, its bulk statement, its locks, its errors.

    Attributes:
        name: What people know it by: the path, or the URL without its password.
        placeholder: What stands for a parameter in the driver's own statements.
        locking: What follows a SELECT whose row has to stay as it is until the transaction ends.
    """

    name: str
    placeholder: ClassVar[str]
    locking: ClassVar[str]

    @cached_property
    def engine(self) -> Engine:
        """Connections for writing; a transaction of theirs has the right to write from its start.

        Raises:
            StoreUnavailable: The place cannot be used.
        """
        return self._open_engine()

    @cached_property
    def reading_engine(self) -> Engine:
        """Connections for reading only."""
        return self._open_reading_engine()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Run a block in one transaction.

        Raises:
            StoreUnavailable: Nothing was written, or it is not known.
        """
        with self.explained(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def committing(self) -> Iterator[Execute]:
        """Do as `writing`, for the driver's own statements: what a flow waits for at every call.

        Raises:
            StoreUnavailable: Nothing was written, or it is not known.
        """
        with self.writing() as connection:
            yield connection.exec_driver_sql

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run a block in one transaction that only reads, and sees the database at one moment.

        Raises:
            StoreUnavailable: It cannot be read now.
        """
        with self.explained(), self.reading_engine.begin() as connection:
            yield connection

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the errors of the driver into ours."""
        try:
            yield
        except DBAPIError as error:
            # Without SQLAlchemy's own error, whose text is the statement with all its rows.
            raise self.explain(error) from error.orig

    def close(self) -> None:
        """Close all connections."""
        for engine in ("engine", "reading_engine"):
            if engine in self.__dict__:
                self.__dict__.pop(engine).dispose()

    @abstractmethod
    def prepare(self) -> None:
        """Get ready for writing: make what must exist before the first transaction.

        Raises:
            StoreUnavailable: The place cannot be used.
        """

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is a database to read. Where a server has to tell, it is asked later."""

    @abstractmethod
    def lock_schema(self, connection: Connection) -> None:
        """Keep other processes from changing the schema until the transaction ends."""

    @abstractmethod
    def insert(
        self,
        execute: Execute,
        table: Table,
        columns: tuple[str, ...],
        rows: Sequence[tuple[object, ...]],
        conflict: str,
    ) -> int:
        """Insert rows, which differ in their primary keys, by as few statements as possible.

        Returns how many rows were written: not those that stay as they are by `DO NOTHING`.

        Args:
            execute: That of the transaction.
            table: The table.
            columns: Names of the columns of each row.
            rows: The values.
            conflict: What follows `ON CONFLICT`.
        """

    @abstractmethod
    def hold(self, driver: str) -> AbstractContextManager[None]:
        """Hold a driver's lock: the operating system lets go of it when this process dies.

        Args:
            driver: The driver's id, 16 hexadecimal digits.

        Raises:
            StoreUnavailable: The lock cannot be had now.
        """

    @abstractmethod
    def living(self, drivers: Collection[str]) -> set[str]:
        """Return the ids of those drivers whose lock is held by a living process."""

    @abstractmethod
    def explain(self, error: DBAPIError) -> StoreError:
        """Return our error for one of the driver's: what is wrong and what to do."""

    @abstractmethod
    def _open_engine(self) -> Engine: ...

    @abstractmethod
    def _open_reading_engine(self) -> Engine: ...


def database(url: str, *, synchronous: str = "FULL") -> Database:
    """Return the database of an URL, not yet connected.

    Raises:
        StoreError: The URL names no database that raysched can use.
    """
    from raysched.store.postgresql import PostgreSQL
    from raysched.store.sqlite import SQLite

    parsed = _parse(url)
    match parsed.get_backend_name():
        case "sqlite":
            return SQLite(parsed, synchronous)
        case "postgresql":
            return PostgreSQL(parsed)
        case other:
            raise StoreError(f"database URL {_shown(parsed)}: {other} is not supported; {_FORMS}")


_FORMS = "use sqlite:///path/of/file.db or postgresql://user@host/database"


def _parse(url: str) -> URL:
    # Many providers hand out the short form, which SQLAlchemy does not know.
    if url.startswith("postgres://"):
        url = "postgresql" + url.removeprefix("postgres")
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StoreError(f"database URL {url!r} cannot be understood; {_FORMS}") from error


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)
