"""When the items of a unit have to have ended, and what is said of those that have not."""

import time
from collections.abc import Iterable
from math import inf

from raysched.errors import TaskRunCancelled
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, FailureClass, TimeoutKind
from raysched.worker.failures import describe_error, describe_timeout
from raysched.worker.runner import UnitRun

FORCE_SECONDS = 0.5
"""How long user code may go on after a forced cancellation before its worker is ended (seconds).
Ray's own comes first, unless another one of that unit is still on its way: then Ray drops it
(2.60)."""


class Deadlines:
    """The last moments of a unit's items.

    Args:
        run: The unit.
    """

    def __init__(self, run: UnitRun) -> None:
        self._run = run
        self._epoch = time.time() - time.monotonic()
        self._grace = run.context.termination_grace_seconds
        self._cancelled: dict[int, tuple[float, float]] = {}

    def cancel(self, positions: Iterable[int], *, force: bool) -> None:
        """Take note that items are cancelled from now on."""
        grace = FORCE_SECONDS if force else self._grace
        due = time.monotonic() + grace, grace
        for position in positions:
            self._cancelled[position] = min(due, self._cancelled.get(position, due))

    def verdict(self, position: int) -> tuple[StateType, ErrorInfo]:
        """Return how an item ends for which the worker is ended, and what is known about it."""
        key = self._run.progress.key(position)
        if position in self._cancelled:
            _, grace = self._cancelled[position]
            told = (
                f"{key} was cancelled and had not ended {grace:g} s later, so its worker was ended"
            )
            cancelled = TaskRunCancelled(told, key=key)
            return StateType.CANCELLED, describe_error(cancelled, FailureClass.CANCELLED)
        timeout = self._run.timeout_seconds(position) or 0.0
        how = f"and did not react within {self._grace:g} s, so its worker was ended"
        info = describe_timeout(key, TimeoutKind.ATTEMPT, timeout, reaction=how)
        return StateType.TIMED_OUT, info

    def due(self) -> dict[int, float]:
        """Return when each item that runs has to be ended by force (monotonic seconds)."""
        due = {}
        for position, started in dict(self._run.progress.running).items():
            limits = [self.end_of_grace(position, started)]
            if position in self._cancelled:
                limits.append(self._cancelled[position][0])
            if (first := min(limits)) < inf:
                due[position] = first
        return due

    def end_of_grace(self, position: int, started: int) -> float:
        """Return when an item is due for its timeout (monotonic seconds); infinite without one.

        Args:
            position: The item.
            started: When it began (ns since the epoch).
        """
        timeout = self._run.timeout_seconds(position)
        return inf if timeout is None else started / 1e9 - self._epoch + timeout + self._grace
