"""Costly objects that tell a file of what becomes of them."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Model:
    """Something costly."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.path, self.name = path, name
        # Threads that use it count by one step, which is not divided.
        self._uses = itertools.count(1)
        self.tell("made")

    def __reduce__(self) -> Any:
        raise TypeError("it stays in its process")

    def use(self) -> int:
        """Return which use of it this is."""
        return next(self._uses)

    def tell(self, what: str) -> None:
        """Append a line."""
        with self.path.open("a") as file:
            file.write(f"{what} {self.name} {os.getpid()}\n")


class Closed(Model):
    """With a method that closes it."""

    def close(self) -> None:
        """Take note."""
        self.tell("closed")


class Entered(Model):
    """As a context manager."""

    def __enter__(self) -> str:
        return f"inside {self.name}"

    def __exit__(self, *_: object) -> None:
        self.tell("left")


def yielded(path: Path, name: str = "") -> Iterator[Model]:
    """Make it, and clean up after it."""
    model = Model(path, name)
    yield model
    model.tell("cleaned up")


managed = contextlib.contextmanager(yielded)


def broken(path: Path) -> Model:
    """Fail the first time."""
    if not path.exists():
        path.touch()
        raise ConnectionError("not yet")
    return Model(path)
