"""Directories and files of this user alone: records of what is kept running between runs."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysched.errors import RayschedError


@contextmanager
def locked(directory: Path, error: type[RayschedError]) -> Iterator[None]:
    """Make a directory that only this user can read, and hold its lock in the block.

    Args:
        directory: The directory, below raysched's home.
        error: What is raised where it cannot be written.
    """
    with _lock(directory, error) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def tried(directory: Path, error: type[RayschedError]) -> Iterator[int | None]:
    """Do as `locked`, but do not wait: yield the lock's descriptor, None if another one holds it.

    A child that inherits the descriptor holds the lock on, for as long as it lives.

    Args:
        directory: The directory, below raysched's home.
        error: What is raised where it cannot be written.
    """
    with _lock(directory, error) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor


@contextmanager
def _lock(directory: Path, error: type[RayschedError]) -> Iterator[int]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise error(
            f"{directory} cannot be written ({problem.strerror}): set RAYSCHED_HOME to a directory "
            "of your own"
        ) from problem
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all, that only this user can read."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
