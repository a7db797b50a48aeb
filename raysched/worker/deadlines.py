"""When the items of a unit have to have ended."""

import time
from collections.abc import Iterable

from raysched.worker.runner import UnitRun

GRACE_SECONDS = 5.0
"""How long user code may go on after its timeout or cancellation before its worker is ended."""

FORCE_SECONDS = 0.5
"""The same after a forced cancellation. Ray's own comes first, unless another one of that unit is
still on its way: then Ray drops it (2.60)."""


class Deadlines:
    """The last moments of a unit's items.

    Args:
        run: The unit.
    """

    def __init__(self, run: UnitRun) -> None:
        self._run = run
        self._epoch = time.time() - time.monotonic()
        self._cancelled: dict[int, float] = {}

    def cancel(self, positions: Iterable[int], *, force: bool) -> None:
        """Take note that items are cancelled from now on."""
        due = time.monotonic() + (FORCE_SECONDS if force else GRACE_SECONDS)
        for position in positions:
            self._cancelled[position] = min(due, self._cancelled.get(position, due))

    def is_cancelled(self, position: int) -> bool:
        """Whether an item is cancelled."""
        return position in self._cancelled

    def due(self) -> dict[int, float]:
        """Return when each item that runs has to be ended by force (monotonic seconds)."""
        due = {}
        for position, started in dict(self._run.progress.running).items():
            timeout = self._run.timeout_seconds(position)
            limits = []
            if timeout is not None:
                limits.append(started / 1e9 - self._epoch + timeout + GRACE_SECONDS)
            if position in self._cancelled:
                limits.append(self._cancelled[position])
            if limits:
                due[position] = min(limits)
        return due
