"""Tasks that count what they execute, and that fail until they are mended."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from raysched import get_run
from raysched.model.states import StateType

ran: list[str] = []
"""What was executed, in order: the tasks are in this process."""

broken: set[Any] = set()
"""What fails as long as it is in here."""


def run(name: str, value: Any = "") -> None:
    """Note an execution; fail if that is broken.

    Raises:
        ValueError: It is broken.
    """
    ran.append(f"{name} {value}".strip())
    if name in broken or (name, value) in broken:
        raise ValueError(f"{name} {value} is broken".replace("  ", " "))


def begin() -> None:
    """Forget everything."""
    ran.clear()
    broken.clear()


def executed() -> Counter[str]:
    """Return what was executed since the last time."""
    counted = Counter(ran)
    ran.clear()
    return counted


def fails(flow: Callable[..., Any], *args: Any) -> None:
    """Call a flow that fails."""
    with pytest.raises(Exception, match=r"broken|failed"):
        flow(*args)


class Shown(NamedTuple):
    """What people see of a task run."""

    state: StateType
    attempts: int


def shown() -> dict[str, Shown]:
    """Return what people see of the last run, by key; each key once, and nothing open."""
    run = get_run("last")
    views = list(run.task_runs())
    keys = [view.key for view in views]
    assert len(set(keys)) == len(keys), keys
    assert run.state.is_final()
    assert all(view.state.type.is_terminal for view in views)
    return {view.key: Shown(view.state.type, view.attempts) for view in views}


def said() -> list[str]:
    """Return what the engine says in the last run."""
    return [row.message for row in get_run("last").logs() if not row.key]
