"""The driver of a run that died before its end: which process it was, and what was open then."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from raysched.client.words import utc
from raysched.model.values import CrashKind
from raysched.store.views import BETWEEN_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from raysched.client.why_causes import Kind
    from raysched.store.reader import Reader
    from raysched.store.views import RunView


@dataclass(frozen=True, slots=True)
class LostDriver:
    """The process that drove a flow run, and died before its end.

    Attributes:
        host: Its machine.
        pid: Its number there.
        alive: The last moment of which the run tells: it was alive then.
    """

    host: str
    pid: int
    alive: datetime | None


@dataclass(frozen=True, slots=True)
class Loss:
    """A driver that died, and how many of the task runs that it had begun were open then.

    Attributes:
        driver: The process.
        under_way: How many were with a worker, or on their way to one.
        between: How many had failed, and waited for their next attempt.
    """

    driver: LostDriver
    under_way: int
    between: int


def lost_driver(reader: "Reader", run: "RunView") -> LostDriver | None:
    """Return the driver of a run if it died before the run's end."""
    if not run.lost:
        return None
    return LostDriver(run.host, run.pid, utc(reader.last_told(run)))


def loss_of(reader: "Reader", run: "RunView", kinds: "Iterable[Kind]") -> Loss | None:
    """Return what is known of the death of a run's driver, None if that lives or ended the run.

    Args:
        reader: Where the run is kept.
        run: The run.
        kinds: All its failures.
    """
    driver = lost_driver(reader, run)
    if driver is None:
        return None
    lost = [kind for kind in kinds if kind.kind == CrashKind.DRIVER_LOST]
    between = sum(kind.count for kind in lost if kind.reason == BETWEEN_ATTEMPTS)
    return Loss(driver, sum(kind.count for kind in lost) - between, between)
