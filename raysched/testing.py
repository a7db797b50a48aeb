"""Helpers for tests of your flows: run them in this process, in milliseconds, without Ray.

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

from raysched.define.context import current_scope
from raysched.engine.ports import Clock
from raysched.errors import UsageError
from raysched.settings import settings
from raysched.wiring import Configuration, SystemClock, configure

__all__ = ["FakeClock", "inline"]


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
    """Let `settings()` be the defaults with another home."""
    ours = {name: value for name, value in os.environ.items() if name.startswith("RAYSCHED_")}
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
