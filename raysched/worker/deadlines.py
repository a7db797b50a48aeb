"""When the items of a unit have to have ended, and what is said of those that have not."""

import time
from collections.abc import Iterable, Sequence
from math import inf

from raysched.errors import TaskRunCancelled
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, FailureClass, TimeoutKind
from raysched.worker.context import WorkerContext
from raysched.worker.failures import describe_error, describe_timeout
from raysched.worker.progress import UnitProgress

FORCE_SECONDS = 0.5
"""How long user code may go on after a forced cancellation before its worker is ended (seconds).
Ray's own comes first, unless another one of that unit is still on its way: then Ray drops it
(2.60)."""


class Deadlines:
    """The last moments of a unit's items.

    Args:
        progress: The unit.
        contexts: The task of each of its stages.
    """

    def __init__(self, progress: UnitProgress, contexts: Sequence[WorkerContext]) -> None:
        self._progress = progress
        self._contexts = contexts
        self._epoch = time.time() - time.monotonic()
        self._grace = contexts[0].termination_grace_seconds
        self._cancelled: dict[int, tuple[float, float]] = {}

    @property
    def has_timeout(self) -> bool:
        """Whether the attempts of some of its items are limited."""
        return any(context.timeout_seconds for context in self._contexts)

    @property
    def has_heartbeat(self) -> bool:
        """Whether the silence of this process is limited while some of its items run."""
        return any(context.heartbeat_timeout_seconds for context in self._contexts)

    def timeout_seconds(self, position: int) -> float | None:
        """Return the limit of an item's attempt (seconds), or None."""
        number, _ = self._progress.unit.place(position)
        return self._contexts[number].timeout_seconds

    def heartbeat_seconds(self, position: int) -> float | None:
        """Return how long this process may be silent while an item runs (seconds), or None."""
        number, _ = self._progress.unit.place(position)
        return self._contexts[number].heartbeat_timeout_seconds

    def cancel(self, positions: Iterable[int], *, force: bool) -> None:
        """Take note that items are cancelled from now on."""
        grace = FORCE_SECONDS if force else self._grace
        due = time.monotonic() + grace, grace
        for position in positions:
            self._cancelled[position] = min(due, self._cancelled.get(position, due))

    def verdict(self, position: int) -> tuple[StateType, ErrorInfo]:
        """Return how an item ends for which the worker is ended, and what is known about it."""
        key = self._progress.key(position)
        if position in self._cancelled:
            _, grace = self._cancelled[position]
            told = (
                f"{key} was cancelled and had not ended {grace:g} s later, so its worker was ended"
            )
            cancelled = TaskRunCancelled(told, key=key)
            return StateType.CANCELLED, describe_error(cancelled, FailureClass.CANCELLED)
        timeout = self.timeout_seconds(position) or 0.0
        how = f"and did not react within {self._grace:g} s, so its worker was ended"
        info = describe_timeout(key, TimeoutKind.ATTEMPT, timeout, reaction=how)
        return StateType.TIMED_OUT, info

    def due(self) -> dict[int, float]:
        """Return when each item that runs has to be ended by force (monotonic seconds)."""
        due = {}
        for position, started in dict(self._progress.running).items():
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
        timeout = self.timeout_seconds(position)
        return inf if timeout is None else started / 1e9 - self._epoch + timeout + self._grace
