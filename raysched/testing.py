"""Helpers for tests of your flows: run them in this process, or break processes on purpose.

```python
import pytest
from raysched.testing import inline


@pytest.fixture(autouse=True, scope="session")
def flows_run_inline():
    with inline():
        yield
```
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from raysched import faults
from raysched.define.context import current_scope
from raysched.engine.ports import Clock
from raysched.errors import UsageError
from raysched.faults import POINTS, Fault, Point
from raysched.settings import settings
from raysched.wiring import Configuration, SystemClock, configure, disconnect

__all__ = ["FakeClock", "FaultPoints", "Point", "inline"]

_VARIABLE = "RAYSCHED_FAULT_POINTS"


class FakeClock:
    """The time of this machine, but waiting for a retry takes none: the clock jumps there.

    Only what raysched itself waits for is skipped. A task's own `time.sleep` and all timeouts
    (`timeout_seconds`, `.result(timeout=…)`) take real time.
    """

    def __init__(self) -> None:
        self._skipped = 0

    @property
    def skipped(self) -> float:
        """How much time was skipped so far (seconds)."""
        return self._skipped / 1e9

    def now(self) -> int:
        """Return nanoseconds since the epoch, the skipped time included."""
        return time.time_ns() + self._skipped

    def seconds_until(self, at: int) -> float:
        """Jump to a time (ns since the epoch) for which somebody would wait; return 0."""
        self._skipped += max(0, at - self.now())
        return 0.0


class FaultPoints:
    """Faults at named points of raysched, to see what becomes of a flow when they happen.

    In a `with` block they happen in this process and in the workers of the flows that it calls; in
    others by `environment`. What is told of `nth` and `times` holds over all of these processes
    together: a worker that is killed at the first item is not killed again in its second attempt.

    ```python
    with FaultPoints(tmp_path).kill("worker: item begins", on="parse[3]"):
        nightly(day)
    ```

    Args:
        directory: Where the processes count together: a directory that they all reach, with nothing
            else in it that is called `fault-…`.
    """

    def __init__(self, directory: Path | str) -> None:
        self._directory = Path(directory).absolute()
        self._faults: list[Fault] = []
        self._before: str | None = None

    def kill(self, point: Point, *, nth: int = 1, times: int = 1, on: str = "") -> Self:
        """Have the process that reaches a point killed by SIGKILL: no `finally`, no last word.

        Args:
            point: Where (see `raysched.testing.Point`).
            nth: At which reaching, from 1.
            times: At how many in a row.
            on: Only for this task (`parse`) or task run (`parse[17]`), at the points `worker: item
                …`; the reachings of others are not counted.

        Raises:
            UsageError: There is no such point, or a number is impossible.
        """
        return self._add(Fault(_known(point), "kill", nth, times, on))

    def exit(
        self, point: Point, *, code: int = 1, nth: int = 1, times: int = 1, on: str = ""
    ) -> Self:
        """Have the process end there by `os._exit` with a code; for the rest see `kill`."""
        return self._add(Fault(_known(point), "exit", nth, times, on, code=code))

    def raises(
        self,
        point: Point,
        error: type[BaseException] = RuntimeError,
        *,
        nth: int = 1,
        times: int = 1,
        on: str = "",
    ) -> Self:
        """Have an exception raised there; for the rest see `kill`.

        At a point of a worker's item it is the task run's own failure, in the driver a bug that
        ends it, but for `StoreUnavailable` at the commit, which is tried again.

        Args:
            point: Where.
            error: Its class, which can be imported by its name and takes a message alone.
            nth: See `kill`.
            times: See `kill`.
            on: See `kill`.

        Raises:
            UsageError: As for `kill`; or the class cannot be imported by its name.
        """
        if "<locals>" in error.__qualname__:
            raise UsageError(
                f"error={error.__qualname__}: other processes cannot import it; define the "
                "exception at the top of a module"
            )
        name = f"{error.__module__}:{error.__qualname__}"
        return self._add(Fault(_known(point), "raise", nth, times, on, error=name))

    def sleep(
        self, point: Point, *, seconds: float, nth: int = 1, times: int = 1, on: str = ""
    ) -> Self:
        """Have the thread sleep there (seconds); for the rest see `kill`."""
        return self._add(Fault(_known(point), "sleep", nth, times, on, seconds=seconds))

    def reached(self, point: Point, on: str = "") -> int:
        """Return how often a point was reached, by all processes together.

        Args:
            point: A point that a fault was told for.
            on: As it was told.

        Raises:
            UsageError: No fault was told for it.
        """
        for number, fault in enumerate(self._faults):
            if (fault.point, fault.on) == (point, on):
                counter = faults.counter_of(self._directory, number)
                return counter.stat().st_size if counter.exists() else 0
        raise UsageError(
            f"no fault was told for {point!r} with on={on!r}, so nobody counts there: "
            "to count only, use sleep(point, seconds=0)"
        )

    def environment(self) -> dict[str, str]:
        """Return the variable that lets the faults happen in a process which you start yourself."""
        return {_VARIABLE: faults.to_text(self._faults, self._directory)}

    def __enter__(self) -> Self:
        self._before = os.environ.get(_VARIABLE)
        _set_faults(self.environment()[_VARIABLE])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _set_faults(self._before)

    def _add(self, fault: Fault) -> Self:
        if fault.nth < 1 or fault.times < 1:
            raise UsageError(
                f"nth={fault.nth}, times={fault.times} at {fault.point!r}: both are counted from 1"
            )
        self._faults.append(fault)
        return self


def _known(point: Point) -> Point:
    if point not in POINTS:
        raise UsageError(f"there is no fault point {point!r}; there are {', '.join(POINTS)}")
    return point


def _set_faults(text: str | None) -> None:
    """Arm this process, and let its next flow tell its workers."""
    if text is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = text
    settings.cache_clear()
    # Workers hear of it from the engine, which has read the settings.
    disconnect()
    faults.arm(text or "")


@contextmanager
def inline(clock: Clock | None = None) -> Iterator[None]:
    """Run the flows that are called in the block in this process, one task run after the other.

    They run as they would on Ray, with pickled arguments and every state kept, in a database that
    ends with the block: `get_run("last")` works within it. Whatever this process was connected to
    before is let go of, and connected to again by the next flow after the block.

    Args:
        clock: A `FakeClock` lets retries with long delays follow at once.

    Raises:
        UsageError: The block is inside a flow or a task.
    """
    if current_scope() is not None:
        raise UsageError(
            "inline() was called in a flow or task: put it around the call of the flow"
        )
    with TemporaryDirectory(prefix="raysched-") as home, _environment(Path(home)):
        before = configure(Configuration(backend="inline", clock=clock or SystemClock()))
        try:
            yield
        finally:
            # First the database is let go of, then its directory goes.
            configure(before)


@contextmanager
def _environment(home: Path) -> Iterator[None]:
    """Let `settings()` be the defaults with another home; faults around it stay."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("RAYSCHED_") and name != _VARIABLE
    }
    for name in ours:
        del os.environ[name]
    os.environ["RAYSCHED_HOME"] = str(home)
    settings.cache_clear()
    try:
        yield
    finally:
        del os.environ["RAYSCHED_HOME"]
        os.environ.update(ours)
        settings.cache_clear()
