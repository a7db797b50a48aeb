"""PostgreSQL by psycopg 3."""

import os
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

import psutil
from sqlalchemy import Connection, Dialect, Engine, Table, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from raysched.errors import StoreError, StoreUnavailable
from raysched.store.database import LOCK_SECONDS, PATIENCE_SECONDS, Database, Execute

SCHEMA_LOCK = int.from_bytes(b"raysched")
"""Key of the advisory lock on the schema; those of drivers are their ids."""

CONNECT_SECONDS = 10
"""How long a server that does not answer is waited for (seconds)."""

RECONNECT_SECONDS = 0.5
"""Pause between a driver's attempts to get its session back (seconds)."""

LISTEN_SECONDS = 5.0
"""How soon a driver finds that its session is gone where no word of it arrives (seconds)."""

RESTART_SECONDS = 15.0
"""How long after its start the server takes nobody for dead whom it has not met yet (seconds)."""

_SESSION = {
    "application_name": "raysched",
    "lock_timeout": f"{LOCK_SECONDS}s",
    # The server misses a driver whose machine is gone after 20 s, and then lets go of its locks.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
}

_CONNECTION = {
    "connect_timeout": CONNECT_SECONDS,
    # A driver misses a server whose machine is gone as soon, instead of after a quarter of an hour.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,  # ms
}
"""Parameters of libpq, where the URL says nothing else."""


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
        self._process = os.getpid()

    def exists(self) -> bool:
        """Return True: only the server can tell."""
        return True

    def prepare(self) -> None:
        """Do nothing: the server is there or the first statement says that it is not."""

    def close(self) -> None:
        """Close all connections, but not those of the process that this one is a fork of."""
        if not self._is_fork():
            super().close()

    def _is_fork(self) -> bool:
        return os.getpid() != self._process

    def lock_schema(self, connection: Connection) -> None:
        """Take an advisory lock, as there is no table yet that could be locked."""
        connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})

    def insert(
        self,
        execute: Execute,
        table: Table,
        columns: tuple[str, ...],
        rows: Sequence[tuple[object, ...]],
        conflict: str,
    ) -> int:
        """Insert by one statement, an array for each column."""
        values = tuple(map(list, zip(*rows, strict=True)))
        written: int = execute(
            _insert(self.engine.dialect, table, columns, conflict), values
        ).rowcount
        return written

    @contextmanager
    def hold(self, driver: str) -> Iterator[None]:
        """Hold an advisory lock in the session of every connection that writes.

        So nothing is written without it: a connection that is made after the server was away
        brings the lock back. One of them does nothing but listen, and is made again at once when
        it ends, so that a driver with nothing to write does not look dead for longer than that.
        """
        key = _lock_key(driver)
        self._held.add(key)
        self.engine.dispose()
        told, stop = socket.socketpair()
        with closing(told), closing(stop):
            try:
                with self.explained():
                    self.engine.connect().close()
                keeper = Thread(
                    target=self._keep, args=(told,), name="raysched-driver-lock", daemon=True
                )
                keeper.start()
                try:
                    yield
                finally:
                    if not self._is_fork():
                        stop.send(b".")
                        keeper.join()
            finally:
                self._held.discard(key)
                self.close()

    def _keep(self, told: socket.socket) -> None:
        """Keep a session until this is told to stop."""
        from psycopg import Error

        while not wait([told], 0):
            try:
                with self.engine.connect() as connection:
                    server: Any = connection.connection.driver_connection
                    while not (ready := wait([told, server], LISTEN_SECONDS)) or told not in ready:
                        # Of a connection that has ended, there is its end to read.
                        connection.exec_driver_sql("SELECT")
                        connection.rollback()
                    return
            except (DBAPIError, Error, OSError):
                # Who writes says so.
                if wait([told], RECONNECT_SECONDS):
                    return

    def living(self, drivers: Collection[str]) -> set[str]:
        """Ask the server for the advisory locks of living sessions.

        A server that has just started gives those who were there before the time to come back, but
        not processes of this machine that are gone.
        """
        with self.reading() as connection:
            held = set(connection.execute(_HELD_LOCKS).scalars())
            living = {driver for driver in drivers if _lock_key(driver) in held}
            missed = [driver for driver in drivers if driver not in living]
            if missed:
                returning = {"drivers": missed, "seconds": RESTART_SECONDS}
                for driver, host, pid in connection.execute(_RETURNING, returning):
                    if host != socket.gethostname() or psutil.pid_exists(pid):
                        living.add(driver)
        return living

    def explain(self, error: DBAPIError) -> StoreError:
        """Tell apart by PostgreSQL's error codes; who cannot connect has none."""
        reason = str(error.orig).strip()
        code = getattr(error.orig, "sqlstate", None) or ""
        advice = _ADVICE.get(code) or _ADVICE.get(code[:2])
        if advice is None and isinstance(error, OperationalError | InterfaceError):
            advice = _UNREACHABLE
        if advice is None:
            return StoreError(f"{self.name}: {reason}")
        return StoreUnavailable(f"{self.name}: {advice} ({reason})")

    def _open_engine(self) -> Engine:
        engine = create_engine(
            self._url,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args=self._connect_arguments(),
        )
        event.listen(engine, "connect", self._prepare_session)
        event.listen(engine, "close", _let_go)
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
        query = self._url.query
        missing = {name: value for name, value in _CONNECTION.items() if name not in query}
        return {**missing, "options": f"{own} {self._users_options()}"}

    def _prepare_session(self, connection: Any, _record: object) -> None:
        if "synchronous_commit" not in self._users_options():
            connection.execute(_SYNCHRONOUS)
        for key in self._held:
            # Shared, because several connections of this process hold it.
            connection.execute("SELECT pg_advisory_lock_shared(%s)", (key,))
        connection.commit()

    def _users_options(self) -> str:
        options = self._url.query.get("options", "")
        return options if isinstance(options, str) else " ".join(options)


def _let_go(connection: Any, _record: object) -> None:
    """Give a session's locks back before it ends: a server takes its time to notice the end."""
    from psycopg import Error

    with suppress(Error):
        connection.execute("SELECT pg_advisory_unlock_all()")


_SYNCHRONOUS = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') = 'off'"
)
"""Where a server does not wait for its disk, a crash of it would take what flows have seen."""

_HELD_LOCKS = text(
    "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks "
    "WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

_RETURNING = text(
    "SELECT id, host, pid FROM driver WHERE id = ANY(:drivers) "
    "AND started < extract(epoch FROM pg_postmaster_start_time()) * 1e9 "
    "AND clock_timestamp() < pg_postmaster_start_time() + :seconds * interval '1 second'"
)

_UNREACHABLE = (
    "the server cannot be reached or refuses to work; look at the server, and at host, port, user, "
    "password and database of the URL"
)

_REFUSED = (
    "it may not be written; give the user of the URL the right to create tables and to write them, "
    "on a server that is not read-only"
)

_LOCKED = (
    f"another session has locked what is to be written for more than {LOCK_SECONDS} s; find it in "
    "pg_stat_activity and end it, perhaps a backup or an open transaction of a database tool"
)

_ADVICE = {
    "25006": _REFUSED,  # read_only_sql_transaction
    "3F000": "the schema that its search_path names is not there, or this user may not use it; "
    "create it, grant its use, or name another one in the URL",  # invalid_schema_name
    "42501": _REFUSED,  # insufficient_privilege
    "40": "its transaction was undone in favour of another one",  # transaction rollback
    "53100": "the disk of the server is full; free some space there",
    "53200": "the server is out of memory; give it more, or less to do",
    "55P03": _LOCKED,  # lock_not_available
}
"""By error code, or class of codes (PostgreSQL's appendix A)."""


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
