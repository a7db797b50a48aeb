"""What a turn took, what is read from it, and what is aimed at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of one side took.

    Attributes:
        task_runs: How many tasks it ran.
        seconds: From the call until every result was there, or what the work itself says.
        driver_cpu: CPU time of the driver, all its threads (seconds).
        driver_peak: Most memory that the driver has held so far (bytes).
        database: What the database grew by (bytes).
        rows: How many rows came to the database.
        figures: What else the work has counted, by name.
    """

    task_runs: int
    seconds: float
    driver_cpu: float
    driver_peak: int
    database: int
    rows: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """What is read from a turn.

    Attributes:
        name: With its unit.
        value: Reads it.
        decimals: How many are shown.
        higher_is_better: Whether an aim is a floor or a ceiling.
        typical: What stands for all turns.
    """

    name: str
    value: Callable[[Turn], float]
    decimals: int = 0
    higher_is_better: bool = False
    typical: Callable[[Sequence[float]], float] = median


def counted(name: str) -> Callable[[Turn], float]:
    """Return what reads a figure that the work has counted itself, 0 where it has not."""
    return lambda turn: turn.figures.get(name, 0)


RATE = Metric("tasks/s", lambda turn: turn.task_runs / turn.seconds, higher_is_better=True)
DURATION = Metric("seconds", lambda turn: turn.seconds, decimals=2)
FIRST = Metric("seconds to the first result", lambda turn: turn.seconds, decimals=3)
DRIVER_CPU = Metric(
    "driver CPU, µs a task", lambda turn: 1e6 * turn.driver_cpu / turn.task_runs, decimals=1
)
DRIVER_PEAK = Metric("driver peak, MB", lambda turn: turn.driver_peak / 1e6, typical=max)
FIRST_NEW = Metric("seconds to a new task run", lambda turn: turn.seconds, decimals=2)
REPEATED = Metric("kept, and run again", counted("repeated"), typical=max)
LOST = Metric("in flight, and run again", counted("lost"), typical=max)
ROWS = Metric("database, rows a task run", lambda turn: turn.rows / turn.task_runs, decimals=2)
WORKER_CPU = Metric(
    "worker CPU, µs a task",
    lambda turn: 1e6 * counted("worker_cpu")(turn) / turn.task_runs,
    decimals=1,
)
STALL = Metric("driver's threads wait, ms, p99", lambda turn: 1e3 * counted("stall")(turn), 1)
DELIVERED = Metric("seconds until all has arrived", counted("delivered"), decimals=2)
SPANS = Metric("spans", counted("spans"))
MISSING = Metric("spans that have not arrived", counted("missing"), typical=max)
TWICE = Metric("spans that have arrived twice", counted("twice"), typical=max)
WIRE = Metric("bytes a span", lambda turn: counted("bytes")(turn) / (counted("spans")(turn) or 1))
DATABASE = Metric("database, bytes a task run", lambda turn: turn.database / turn.task_runs)


def efficiency(bound: str, ideal: Callable[[int], float]) -> Metric:
    """Return what part of the time was needed if nothing can beat the ideal.

    Args:
        bound: What the ideal is, for people.
        ideal: Takes how many tasks there are, and returns the least time for them (seconds).
    """
    return Metric(
        f"% of {bound}",
        lambda turn: 100 * ideal(turn.task_runs) / turn.seconds,
        decimals=1,
        higher_is_better=True,
    )


class Of(StrEnum):
    """What a bound is one for."""

    RATIO = "ratio"
    """Ours to the peer's, of each pair of turns."""
    DIFFERENCE = "difference"
    """Ours less the peer's, of each pair of turns."""
    OURS = "ours"
    """Ours, whatever the peer does."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to be reached.

    Attributes:
        metric: What is measured.
        bound: Floor or ceiling, or None where the metric is only told.
        of: What the bound is one for.
    """

    metric: Metric
    bound: float | None = None
    of: Of = Of.RATIO

    def met(self, value: float) -> bool | None:
        """Return whether `value` is within the bound, None if there is none."""
        if self.bound is None:
            return None
        return value >= self.bound if self.metric.higher_is_better else value <= self.bound

    def __str__(self) -> str:
        if self.bound is None:
            return ""
        sign = "≥" if self.metric.higher_is_better else "≤"
        match self.of:
            case Of.RATIO:
                return f"{sign} {self.bound:g} {TIMES}"
            case Of.DIFFERENCE:
                return f"{sign} {self.bound:+g}"
            case Of.OURS:
                return f"{sign} {self.bound:,g}"
