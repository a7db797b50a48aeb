"""Named points at which tests break a process; `raysched.testing.FaultPoints` says how.

A point is one line where something is about to happen, or has: `faults.reach("before commit")`.
Nothing happens there unless a fault was armed, and then the point costs one global read. The model
is DBOS's `_debug_trigger.py`, but a fault here works in whatever process reaches the point, so
what was told to happen is plain text, and the times that a point was reached are counted in files.
"""

import json
import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

from raysched.errors import UsageError

Point: TypeAlias = Literal[
    "before commit",
    "after commit",
    "before dispatch",
    "worker: item begins",
    "worker: item ended",
    "worker: before report",
    "compensation: before",
    "compensation: after",
    "flow: before end",
]
"""Where a fault can happen:

- `before commit`, `after commit`: the driver writes what changed, and then lets the flow see it.
  (What tasks call themselves is committed in their worker.)
- `before dispatch`: a unit is about to be given to Ray.
- `worker: item begins`, `worker: item ended`: before the user's function, and when it has returned
  but nobody was told. An exception there is the task run's own.
- `worker: before report`: all items of a unit have ended, and the call is about to return.
- `compensation: before`, `compensation: after`: the driver is about to undo what completed in a
  flow run that has failed for good, and has undone it. (Each such task is an item of a worker.)
- `flow: before end`: the outcome of a flow run is known, but not committed.
"""

POINTS: tuple[Point, ...] = get_args(Point)

Action: TypeAlias = Literal["kill", "exit", "raise", "sleep"]


class Keyed(Protocol):
    """Who reaches a point."""

    @property
    def key(self) -> str:
        """Key of the task run: `parse[17]`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a point.

    Attributes:
        point: Where.
        action: What: SIGKILL for this process, its exit without clean-up, an exception, or a sleep.
        nth: At which reaching of the point it happens first, from 1; over all processes that count
            in the same directory.
        times: At how many in a row.
        on: Only for this task (`parse`) or task run (`parse[17]`), at points of task runs; "" for
            all. Others are not counted.
        code: Exit code.
        error: `module:qualname` of the exception, which is called with a message.
        seconds: How long it sleeps.
    """

    point: Point
    action: Action
    nth: int = 1
    times: int = 1
    on: str = ""
    code: int = 1
    error: str = "builtins:RuntimeError"
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Armed:
    """A fault, and the file that is as long (bytes) as its point was reached often."""

    fault: Fault
    counter: Path


_text = ""
_armed: Mapping[str, tuple[_Armed, ...]] = {}


def reach(point: Point, by: Keyed | None = None) -> None:
    """Let happen what was armed for this point.

    Args:
        point: The point.
        by: The task run that reaches it, at points of task runs.
    """
    if _armed:
        _act(point, by)


def to_text(faults: Iterable[Fault], directory: Path) -> str:
    """Return the value of `RAYSCHED_FAULT_POINTS`.

    Args:
        faults: What happens where.
        directory: Where processes count together.
    """
    return json.dumps({"directory": str(directory), "faults": [asdict(each) for each in faults]})


def arm(text: str) -> None:
    """Let faults happen in this process from now on, instead of those before; "" for none.

    Args:
        text: What `to_text` has returned.

    Raises:
        UsageError: It is something else.
    """
    global _text, _armed
    if text == _text:
        return
    armed: dict[str, tuple[_Armed, ...]] = {}
    try:
        told: dict[str, Any] = json.loads(text) if text else {"directory": "", "faults": []}
        for number, each in enumerate(told["faults"]):
            fault = Fault(**each)
            counter = counter_of(Path(told["directory"]), number)
            armed[fault.point] = (*armed.get(fault.point, ()), _Armed(fault, counter))
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"RAYSCHED_FAULT_POINTS is not what FaultPoints writes ({error}): "
            "set it by raysched.testing.FaultPoints, or unset it"
        ) from error
    _text, _armed = text, armed


def counter_of(directory: Path, number: int) -> Path:
    """Return the file in which the reachings are counted that concern a fault, by its position."""
    return directory / f"fault-{number}"


def _act(point: Point, by: Keyed | None) -> None:
    for armed in _armed.get(point, ()):
        fault = armed.fault
        if fault.on and (by is None or fault.on not in {by.key, by.key.partition("[")[0]}):
            continue
        if 0 <= _count(armed.counter) - fault.nth < fault.times:
            _perform(fault)


def _count(counter: Path) -> int:
    """Count one more; return which one it is, from 1."""
    # Appending is atomic, and leaves this descriptor's position behind what it wrote itself.
    descriptor = os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, b".")
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    finally:
        os.close(descriptor)


def _perform(fault: Fault) -> None:
    match fault.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(fault.code)
        case "sleep":
            time.sleep(fault.seconds)
        case "raise":
            module, _, name = fault.error.partition(":")
            error: type[BaseException] = getattr(import_module(module), name)
            raise error(f"fault point {fault.point!r}")
