"""PostgreSQL by psycopg 3."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from threading import Event, Thread
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, Table, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from raysched.errors import StoreError, StoreUnavailable
from raysched.store.database import PATIENCE_SECONDS, Database, Execute

SCHEMA_LOCK = int.from_bytes(b"raysched")
"""Key of the advisory lock on the schema; those of drivers are their ids."""

CONNECT_SECONDS = 10
"""How long a server that does not answer is waited for (seconds)."""

KEEPER_SECONDS = 5.0
"""How soon a driver with nothing to commit finds that the server was away (seconds)."""

_SESSION = {
    "application_name": "raysched",
    "lock_timeout": f"{PATIENCE_SECONDS}s",
    # The server misses a driver whose machine is gone after 20 s, and then lets go of its locks.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
}


class PostgreSQL(Database):
    """A PostgreSQL database; `?options=-csearch_path=…` in the URL chooses a schema in it."""

    placeholder = "%s"
    locking = " FOR UPDATE"

    def __init__(self, url: URL) -> None:
        if find_spec("psycopg") is None:
            raise StoreError(
                f"database URL {url.render_as_string(hide_password=True)}: the driver for "
                'PostgreSQL is missing; pip install "raysched[postgres]"'
            )
        self._url = url.set(drivername="postgresql+psycopg")
        self.name = url.set(query={}).render_as_string(hide_password=True)
        self._held: set[int] = set()

    def exists(self) -> bool:
        """Return True: only the server can tell."""
        return True

    def prepare(self) -> None:
        """Do nothing: the server is there or the first statement says that it is not."""

    def lock_schema(self, connection: Connection) -> None:
        """Take an advisory lock, as there is no table yet that could be locked."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})

    def insert(
        self,
        execute: Execute,
        table: Table,
        columns: tuple[str, ...],
        rows: Sequence[tuple[object, ...]],
        conflict: str,
    ) -> None:
        """Insert by one statement, an array for each column."""
        values = tuple(map(list, zip(*rows, strict=True)))
        execute(_insert(self.engine.dialect, table, columns, conflict), values)

    @contextmanager
    def hold(self, driver: str) -> Iterator[None]:
        """Hold an advisory lock in the session of every connection.

        So a connection that is made after the server was away brings the lock back.
        """
        self._held.add(_lock_key(driver))
        self.engine.dispose()
        with self.explained():
            self.engine.connect().close()
        stop = Event()
        keeper = Thread(target=self._keep, args=(stop,), name="raysched-driver-lock", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            stop.set()
            keeper.join()
            self._held.discard(_lock_key(driver))
            self.engine.dispose()

    def _keep(self, stop: Event) -> None:
        while not stop.wait(KEEPER_SECONDS):
            # The pool replaces a connection that is found dead.
            with suppress(DBAPIError):
                self.engine.connect().close()

    def living(self, drivers: Collection[str]) -> set[str]:
        """Ask the server for the advisory locks of living sessions."""
        with self.reading() as connection:
            held = set(connection.execute(_HELD_LOCKS).scalars())
        return {driver for driver in drivers if _lock_key(driver) in held}

    def explain(self, error: DBAPIError) -> StoreError:
        """Tell apart what the server, the network or its settings refuse."""
        reason = str(error.orig).strip()
        if isinstance(error, OperationalError | InterfaceError):
            return StoreUnavailable(
                f"{self.name}: the server cannot be reached or refuses to work ({reason}); look at "
                "the server, and at host, port, user, password and database of the URL"
            )
        if getattr(error.orig, "sqlstate", None) in _REFUSALS:
            return StoreUnavailable(
                f"{self.name}: it may not be written ({reason}); give the user of the URL the "
                "right to create tables and to write them"
            )
        return StoreError(f"{self.name}: {reason}")

    def _open_engine(self) -> Engine:
        engine = create_engine(
            self._url,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args=self._connect_arguments(),
        )
        event.listen(engine, "connect", self._lock_drivers)
        return engine

    def _open_reading_engine(self) -> Engine:
        return create_engine(
            self._url,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args=self._connect_arguments(),
            execution_options={"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"},
        )

    def _connect_arguments(self) -> dict[str, object]:
        own = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
        users = self._url.query.get("options", "")
        options = users if isinstance(users, str) else " ".join(users)
        return {"connect_timeout": CONNECT_SECONDS, "options": f"{own} {options}"}

    def _lock_drivers(self, connection: Any, _record: object) -> None:
        for key in self._held:
            # Shared, because several connections of this process hold it.
            connection.execute("SELECT pg_advisory_lock_shared(%s)", (key,))
        connection.commit()


_HELD_LOCKS = text(
    "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks "
    "WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

_REFUSALS = frozenset({"25006", "42501"})
"""Read-only transaction; insufficient privilege (PostgreSQL's appendix A, error codes)."""


def _lock_key(driver: str) -> int:
    # Advisory locks are named by a signed number of 64 bits.
    return int.from_bytes(bytes.fromhex(driver), signed=True)


@lru_cache(maxsize=256)
def _insert(dialect: Dialect, table: Table, columns: tuple[str, ...], conflict: str) -> str:
    types = (table.c[column].type.compile(dialect) for column in columns)
    arrays = ", ".join(f"%s::{kind}[]" for kind in types)
    names = ", ".join(columns)
    return (
        f"INSERT INTO {table.name} ({names}) "  # noqa: S608  # our own names
        f"SELECT * FROM unnest({arrays}) ON CONFLICT {conflict}"
    )
