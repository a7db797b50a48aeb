"""What the tests of caching share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raysched import (
    CachePolicy,
    StateType,
    TaskFuture,
    flow,
    task,
)

CACHED, COMPLETED = StateType.CACHED, StateType.COMPLETED


RAN: list[int] = []
"""Who has run in this process: captured by no task, so that it counts for no key."""


class Log:
    """Who has run, whatever the process.

    Args:
        path: A file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def taken(self) -> list[str]:
        """Return what was written since the last time."""
        try:
            lines = self.path.read_text().split()
        except FileNotFoundError:
            return []
        self.path.unlink()
        return lines


def note(log: str, word: object) -> None:
    with Path(log).open("a") as file:
        file.write(f"{word}\n")


def states(*futures: TaskFuture[Any]) -> list[StateType]:
    for future in futures:
        future.wait()
    return [future.state.type for future in futures]


def hits(policy: CachePolicy, *calls: tuple[Any, ...], **options: Any) -> list[bool]:
    """Return which of these calls, each in a run of its own, was a hit."""

    @task(cache_policy=policy, **options)
    def f(*args: Any) -> str:
        return "value"

    @flow
    def one(args: tuple[Any, ...]) -> bool:
        return states(f.submit(*args)) == [CACHED]

    return [one(args) for args in calls]


class Colour:
    def __init__(self, name: str) -> None:
        self.name = name
