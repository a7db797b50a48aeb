"""Which process keeps others from writing a SQLite file, as far as the kernel tells.

Linux lists all locks in `/proc/locks`. To ask for one by `fcntl` would be wrong: a process that
closes any descriptor of a file loses all of its own locks on it, SQLite's among them.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LOCKS = Path("/proc/locks")

WRITE_LOCK = 120
"""The byte of the `-shm` file whose lock is the right to write (sqlite.org/walformat.html)."""

COMMAND_LENGTH = 80
"""Characters shown of a command line."""


def describe_holders(database: Path) -> str:
    """Return who has locked a database: `process 4242 (sqlite3 raysched.db)`; "" if nobody knows.

    Args:
        database: Path of the database, in WAL mode.
    """
    holders: dict[int, str] = {}
    with suppress(OSError):
        for process in _holders(database):
            holders.setdefault(process, _describe(process))
    return " and ".join(holders.values())


def _holders(database: Path) -> Iterator[int]:
    file = _identify(database)
    index = _identify(database.with_name(f"{database.name}-shm"))
    for line in LOCKS.read_text(encoding="ascii").splitlines():
        # `1: POSIX ADVISORY WRITE 4242 fe:00:131092 120 120`; those who wait have an arrow.
        words = line.split()
        if words[1] != "POSIX" or words[3] != "WRITE":
            continue
        process, held, first, last = words[4:]
        is_writer = held == index and _includes(first, last, WRITE_LOCK)
        if (is_writer or held == file) and int(process) not in {0, os.getpid()}:
            yield int(process)


def _identify(path: Path) -> str:
    status = path.stat()
    major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    return f"{major:02x}:{minor:02x}:{status.st_ino}"


def _includes(first: str, last: str, position: int) -> bool:
    return int(first) <= position and (last == "EOF" or position <= int(last))


def _describe(process: int) -> str:
    import psutil

    command = ""
    with suppress(psutil.Error):
        command = " ".join(psutil.Process(process).cmdline())
    if len(command) > COMMAND_LENGTH:
        command = f"{command[: COMMAND_LENGTH - 1]}…"
    return f"process {process} ({command})" if command else f"process {process}"
