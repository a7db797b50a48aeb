"""Noticing the silence of workers that owe signs of life."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Whereabouts(NamedTuple):
    """Where a worker is.

    Attributes:
        node_id: Ray's id of its node.
        worker_id: Ray's id of the worker.
        pid: Its process.
        host: Name of its machine.
        traces: File there of what it leaves behind when it dies, see `traces`.
    """

    node_id: str
    worker_id: str
    pid: int
    host: str
    traces: str


class Silence(NamedTuple):
    """A worker that did not give a sign of life in time.

    Attributes:
        unit: The unit that it runs.
        key: A task run of it that has begun.
        seconds: How long the worker may be silent.
        worker: Where it is.
    """

    unit: int
    key: str
    seconds: float
    worker: Whereabouts


@dataclass(slots=True)
class _Heart:
    owner: Whereabouts
    key: str
    seconds: float
    left: float


class Hearts:
    """The workers that may not be silent for long, by the unit that each runs.

    Only the time that somebody was listening counts: the driver's own pauses, while a flow holds
    the GIL or the machine sleeps, are no silence of its workers.

    Args:
        on_silence: Called once for each that was silent for too long.
    """

    def __init__(self, on_silence: Callable[[Silence], None]) -> None:
        self._on_silence = on_silence
        self._hearts: dict[int, _Heart] = {}

    @property
    def patience(self) -> float | None:
        """How long to listen before `tell` may have something (seconds); None for ever."""
        # A copy at once: other threads forget units.
        hearts = tuple(self._hearts.values())
        return min((max(heart.left, 0.0) for heart in hearts), default=None)

    def watch(self, unit: int, owner: Whereabouts, key: str, seconds: float) -> None:
        """Expect signs of life from a unit's worker at least every `seconds`; 0 for no more."""
        if seconds:
            self._hearts[unit] = _Heart(owner, key, seconds, seconds)
        else:
            self.forget(unit)

    def forget(self, unit: int) -> None:
        """Expect nothing of a unit's worker any more; from any thread."""
        self._hearts.pop(unit, None)

    def hear(self, owner: Whereabouts | None) -> None:
        """Take note that a worker has said something."""
        for heart in tuple(self._hearts.values()):
            if heart.owner == owner:
                heart.left = heart.seconds

    def pass_time(self, seconds: float) -> None:
        """Take note that nothing but listening was done for a time."""
        for heart in tuple(self._hearts.values()):
            heart.left -= seconds

    def tell(self) -> None:
        """Tell of those that have been silent for too long."""
        for unit, heart in tuple(self._hearts.items()):
            if heart.left <= 0 and self._hearts.pop(unit, None) is not None:
                self._on_silence(Silence(unit, heart.key, heart.seconds, heart.owner))
