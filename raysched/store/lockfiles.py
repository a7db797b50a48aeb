"""Life and death of drivers on one machine: a locked file for each living one.

The kernel holds the locks (`fcntl`, POSIX record locks) and lets go of them when a process ends, in
whatever way; no timer is involved, so a process that is only busy never looks dead. A child that
was forked does not inherit them. One trap: a process loses a lock as soon as it closes *any* file
descriptor of that file, so locks of this process are looked up and never opened again.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_held: dict[tuple[int, int], int] = {}
"""Locked files of this process by device and inode, as a path may have several spellings.

With its process id: a forked child has a copy of this dict, but not the locks.
"""


class LockFiles:
    """The locked files of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold the lock of that name, which nobody else holds.

        Raises:
            OSError: The directory cannot be written.
        """
        self._directory.mkdir(exist_ok=True)
        path = self._directory / name
        descriptor = _create_locked(path)
        file = _identify(os.fstat(descriptor))
        _held[file] = os.getpid()
        try:
            yield
        finally:
            if _held.pop(file, None) == os.getpid():
                path.unlink(missing_ok=True)
            os.close(descriptor)

    def is_held(self, name: str) -> bool:
        """Whether a living process holds the lock of that name."""
        path = self._directory / name
        try:
            if _is_own(path):
                return True
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except PermissionError:
            # Without evidence nobody is declared dead.
            return True
        try:
            # Shared, so that two who look at once do not take each other for the driver.
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def clean(self) -> None:
        """Remove the files of dead processes."""
        if not self._directory.is_dir():
            return
        for path in self._directory.iterdir():
            _remove_if_free(path)


def _identify(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_own(path: Path) -> bool:
    return _held.get(_identify(path.stat())) == os.getpid()


def _create_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        # Someone who cleans may have removed it between its creation and its lock.
        with suppress(FileNotFoundError):
            if _identify(path.stat()) == _identify(os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def _remove_if_free(path: Path) -> None:
    try:
        if _is_own(path):
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:
        return
    finally:
        os.close(descriptor)
