"""SQLite: one file, one machine, many processes."""

import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path

from sqlalchemy import Connection, Engine, NullPool, QueuePool, Table, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from raysched.errors import StoreError, StoreUnavailable
from raysched.store.database import LOCK_SECONDS, PATIENCE_SECONDS, Database, Execute
from raysched.store.lockfiles import LockFiles
from raysched.store.lockholders import describe_holders

CHUNKS = (512, 64, 8, 1)
"""Rows of one statement. Few sizes, so that the statements stay prepared; with at most 18 columns
the largest stays below SQLite's limit of 32,766 variables."""

NETWORK_FILE_SYSTEMS = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "davfs",
        "fuse.blobfuse2",
        "fuse.ceph",
        "fuse.davfs2",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.mount-s3",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "smb3",
        "smbfs",
        "wekafs",
    }
)


class SQLite(Database):
    """A SQLite file in WAL mode."""

    placeholder = "?"
    # BEGIN IMMEDIATE has locked everything.
    locking = ""

    def __init__(self, url: URL, synchronous: str) -> None:
        if not url.database or url.database == ":memory:":
            raise StoreError(
                f"database URL {url}: names no file, and a database in memory would keep nothing; "
                "use sqlite:///path/of/file.db"
            )
        # As SQLite does: links lead to the same database, and to the same files beside it.
        self.path = Path(url.database).expanduser().resolve()
        self.name = str(self.path)
        self._synchronous = synchronous
        self._locks = LockFiles(self._beside(".drivers"))

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def prepare(self) -> None:
        """Make the directory, refuse one on a network, remove dead drivers' locks, use WAL."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._refuse_network_file_system()
            self._locks.clean()
        except OSError as error:
            raise self._unusable(error) from error
        with self.explained(), self.engine.connect() as connection:
            driver = connection.connection.driver_connection
            if driver is not None:
                self._use_wal(driver)
                self._await_lock(driver)

    def _refuse_network_file_system(self) -> None:
        mount, kind = _mount(self.path.parent)
        if kind in NETWORK_FILE_SYSTEMS:
            raise StoreUnavailable(
                f"{self.name}: {mount} is a network file system ({kind}), where SQLite's locks do "
                "not hold; set RAYSCHED_HOME to a directory on a local disk, or "
                "RAYSCHED_DATABASE_URL to a PostgreSQL database"
            )

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # For a new file: so its pages can be given back (see `store.room`), at no cost until then.
        self._insisting(connection, "PRAGMA auto_vacuum = INCREMENTAL")
        # SQLite does not wait for others that change the mode at the same moment.
        (mode,) = self._insisting(connection, "PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnavailable(
                f"{self.name}: its file system cannot hold a database that several processes use "
                f"(journal_mode stays {mode}); {_ELSEWHERE}"
            )

    def _await_lock(self, connection: sqlite3.Connection) -> None:
        self._insisting(connection, "BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")

    def _insisting(self, connection: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return connection.execute(statement)
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise self.explain_code(error) from error
                time.sleep(0.01)

    @contextmanager
    def committing(self) -> Iterator[Execute]:
        """Use a connection without SQLAlchemy, which takes several times as long as SQLite.

        For one thread at a time.
        """
        try:
            execute = self._committer.execute
            execute("BEGIN IMMEDIATE")
            try:
                yield execute
                execute("COMMIT")
            except BaseException:
                # Where SQLite has rolled back by itself, there is nothing left to end.
                with suppress(sqlite3.Error):
                    execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self.explain_code(error) from error

    def close(self) -> None:
        """Close all connections."""
        if "_committer" in self.__dict__:
            self.__dict__.pop("_committer").close()
        super().close()

    def lock_schema(self, connection: Connection) -> None:
        """Do nothing: BEGIN IMMEDIATE has locked everything."""

    def insert(
        self,
        execute: Execute,
        table: Table,
        columns: tuple[str, ...],
        rows: Sequence[tuple[object, ...]],
        conflict: str,
    ) -> int:
        """Insert by multi-row statements of a few sizes."""
        width = len(columns)
        values = tuple(chain.from_iterable(rows))
        written, start, left = 0, 0, len(rows)
        for size in CHUNKS:
            while left >= size:
                stop = start + size * width
                statement = _insert(table.name, columns, size, conflict)
                written += execute(statement, values[start:stop]).rowcount
                start, left = stop, left - size
        return written

    @contextmanager
    def hold(self, driver: str) -> Iterator[None]:
        """Hold the driver's lock file."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._locks.hold(driver))
            except OSError as error:
                raise self._unusable(error) from error
            yield

    def living(self, drivers: Collection[str]) -> set[str]:
        """Look at the drivers' lock files."""
        return {driver for driver in drivers if self._locks.is_held(driver)}

    def explain(self, error: DBAPIError) -> StoreError:
        """Tell apart by SQLite's error codes."""
        return self.explain_code(error.orig)

    def explain_code(self, error: BaseException | None) -> StoreError:
        """Return our error for one of SQLite's."""
        code = _primary_code(error)
        advice = _ADVICE.get(code)
        if code == sqlite3.SQLITE_BUSY:
            # Who has let go of it in the meantime is not known any more.
            holders = describe_holders(self.path) or "another process"
            advice = f"{holders} {_LOCKED}"
        if advice is None:
            return StoreError(f"{self.name}: {error}")
        return StoreUnavailable(f"{self.name}: {advice} ({error})")

    def _unusable(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.name}: its directory cannot be used ({error.strerror}: {error.filename}); "
            f"{_ELSEWHERE}"
        )

    def _open_engine(self) -> Engine:
        engine = create_engine(
            "sqlite://", creator=self._connect, poolclass=QueuePool, hide_parameters=True
        )
        event.listen(engine, "begin", _begin_immediate)
        return engine

    def _open_reading_engine(self) -> Engine:
        # A fresh connection each time finds out anew whether there is a writer.
        engine = create_engine(
            "sqlite://", creator=self._connect_to_read, poolclass=NullPool, hide_parameters=True
        )
        event.listen(engine, "begin", _begin)
        return engine

    @cached_property
    def _committer(self) -> sqlite3.Connection:
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = _connect(str(self.path), uri=False)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        # Cache keys are random: with the default of 2 MB each of them would read pages again (KiB).
        connection.execute(f"PRAGMA cache_size = -{64 * 1024}")
        # A long reader lets the WAL grow; afterwards its file shrinks to this size (bytes).
        connection.execute(f"PRAGMA journal_size_limit = {64 * 1024**2}")
        return connection

    def _connect_to_read(self) -> sqlite3.Connection:
        uri = f"{self.path.as_uri()}?mode=ro"
        connection = _connect(uri, uri=True)
        try:
            connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            # A database in WAL mode needs its index beside it, also for reading; without a WAL
            # there is no writer, and it can be read as it stands in a directory that is read-only.
            if _primary_code(error) not in _NO_INDEX or self._beside("-wal").exists():
                raise
            return _connect(f"{uri}&immutable=1", uri=True)
        return connection

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


_NO_INDEX = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})

_ELSEWHERE = (
    "set RAYSCHED_HOME to a directory on a local disk that you may write to, "
    "or RAYSCHED_DATABASE_URL to another database"
)

_LOCKED = (
    f"has locked it for more than {LOCK_SECONDS} s; end it, or what it does there: perhaps a "
    "backup, or an open transaction of a database tool"
)

_ADVICE = {
    sqlite3.SQLITE_READONLY: "it is read-only; give this user the right to write the file and "
    f"its directory, or {_ELSEWHERE}",
    sqlite3.SQLITE_FULL: "its disk is full; free some space, or " + _ELSEWHERE,
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; give this user the right to write the file "
    f"and its directory, or {_ELSEWHERE}",
    sqlite3.SQLITE_IOERR: "its disk cannot be read or written; look for a full or failing disk",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; move the file away, or " + _ELSEWHERE,
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore a copy, or move the file away",
}


def _primary_code(error: BaseException | None) -> int:
    # The low byte; the rest tells variants apart.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _connect(database: str, *, uri: bool) -> sqlite3.Connection:
    return sqlite3.connect(
        database,
        timeout=LOCK_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        uri=uri,
    )


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


@lru_cache(maxsize=256)
def _insert(table: str, columns: tuple[str, ...], rows: int, conflict: str) -> str:
    row = f"({', '.join('?' * len(columns))})"
    values = ", ".join([row] * rows)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values} "  # noqa: S608  # our own names
        f"ON CONFLICT {conflict}"
    )


def _mount(directory: Path) -> tuple[str, str]:
    """Return mount point and type of the file system that holds a directory."""
    from psutil import disk_partitions

    mounts = {partition.mountpoint: partition.fstype for partition in disk_partitions(all=True)}
    for ancestor in _with_parents(directory):
        if str(ancestor) in mounts:
            return str(ancestor), mounts[str(ancestor)]
    return os.sep, ""


def _with_parents(directory: Path) -> Iterator[Path]:
    yield directory
    yield from directory.parents
