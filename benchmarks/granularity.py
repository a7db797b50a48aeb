"""Throughput against the duration of tasks, and the smallest tasks that are worth their price.

The minimum effective task granularity METG(50 %) is Task Bench's measure (Slaughter et al., "Task
Bench: A Parameterized Benchmark for Evaluating Parallel Runtime Performance", SC20): the smallest
granularity, wall time x cores / tasks, at which a system still does half of the work that the
machine can do. The work here is CPU time of independent tasks.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from benchmarks.case import Side
from benchmarks.harness import Driver, Order, driver
from benchmarks.load import CORES
from benchmarks.suite.sides import DASK, JOBLIB, bare_ray, raysched

DURATIONS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of a task (seconds of CPU)."""

ENOUGH_SECONDS = 1.0
"""How long a turn takes at least, so that what a turn costs by itself does not count (seconds)."""

STEP = 8
"""How many times as many tasks a turn has when the one before was too short."""

EFFECTIVE = 0.5
"""The efficiency that METG asks for."""

SYSTEMS = (
    raysched("computing"),
    replace(bare_ray("computing"), sample=20_000),
    replace(JOBLIB, turn="computing"),
    replace(DASK, turn="computing", sample=20_000),
)


@dataclass(frozen=True, slots=True)
class Point:
    """What a system does with tasks of one duration.

    Attributes:
        seconds: CPU time of a task (seconds).
        rate: Tasks a second, median of the turns.
        tasks: How many a turn ran.
    """

    seconds: float
    rate: float
    tasks: int

    @property
    def efficiency(self) -> float:
        """The part of the machine's CPU time that went into the tasks' own work."""
        return self.rate * self.seconds / CORES

    @property
    def granularity(self) -> float:
        """Task Bench's granularity: wall time x cores / tasks (seconds)."""
        return CORES / self.rate


@dataclass(frozen=True, slots=True)
class Curve:
    """A system's throughput.

    Attributes:
        system: Its name.
        points: By growing duration.
    """

    system: str
    points: Sequence[Point]

    def metg(self) -> float | None:
        """Return METG(50 %) (seconds), or None if no duration measured is effective."""
        return metg([(point.granularity, point.efficiency) for point in self.points])

    def plain(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        points = [
            {**asdict(point), "efficiency": point.efficiency, "granularity": point.granularity}
            for point in self.points
        ]
        return {"system": self.system, "metg": self.metg(), "points": points}

    def __str__(self) -> str:
        smallest = self.metg()
        told = f"{1e6 * smallest:,.0f} µs" if smallest else "not reached"
        rates = ", ".join(f"{point.seconds:g} s: {point.rate:,.1f}/s" for point in self.points)
        return f"{self.system}: METG(50 %) {told}; {rates}"


def metg(points: Iterable[tuple[float, float]]) -> float | None:
    """Return the smallest granularity at which a curve is effective.

    Between two points it is read from the straight line between them over the logarithm of the
    granularity. A larger one that is not effective changes nothing: other work on the machine can
    only make a point worse.

    Args:
        points: Granularity (seconds) and efficiency (0 to 1).

    Returns:
        Seconds; None if no point is effective. Where all are, the first one's.
    """
    below: tuple[float, float] | None = None
    for point in sorted(points):
        if point[1] >= EFFECTIVE:
            return point[0] if below is None else _crossing(below, point)
        below = point
    return None


def _crossing(below: tuple[float, float], above: tuple[float, float]) -> float:
    low, high = math.log(below[0]), math.log(above[0])
    part = (EFFECTIVE - below[1]) / (above[1] - below[1])
    return math.exp(low + part * (high - low))


def measure_curves(
    order: Order, say: Callable[[str], None], systems: Sequence[Side] = SYSTEMS
) -> list[Curve]:
    """Measure each system that is installed, turn by turn on one Ray.

    Args:
        order: With the address of a Ray. Its scale shortens the turns.
        say: Told what is measured next.
        systems: Which ones.
    """
    shared = {
        "RAYSCHED_HOME": str(order.scratch),
        "RAY_ADDRESS": order.address,
    }
    database = order.database("granularity")
    with ExitStack() as stack:
        drivers = [
            stack.enter_context(driver(side, shared, database))
            for side in systems
            if not side.missing()
        ]
        points: dict[str, list[Point]] = {each.side.name: [] for each in drivers}
        for seconds in DURATIONS:
            say(f"granularity: tasks of {seconds:g} s …")
            for name, point in _points(drivers, seconds, order).items():
                points[name].append(point)
    return [Curve(name, measured) for name, measured in points.items()]


def _points(drivers: Sequence[Driver], seconds: float, order: Order) -> dict[str, Point]:
    enough = ENOUGH_SECONDS * order.scale
    sizes = {each.side.name: _size(each, seconds, enough) for each in drivers}
    rates: dict[str, list[float]] = {each.side.name: [] for each in drivers}
    turns = list(drivers)
    for _ in range(order.repeats or 3):
        for each in turns:
            size = sizes[each.side.name]
            rates[each.side.name].append(size / each.take_turn(size, size, seconds).seconds)
        # As in the cases, so that nobody gains by the place.
        turns.reverse()
    return {name: Point(seconds, median(rates[name]), size) for name, size in sizes.items()}


def _size(measured: Driver, seconds: float, enough: float) -> int:
    """Return how many tasks take a turn long enough."""
    size = max(2 * CORES, int(CORES * enough / max(seconds, 1e-3)))
    while True:
        size = measured.side.tasks(size)
        if seconds * size / CORES >= enough:
            # Nobody is faster than that.
            return size
        taken = measured.take_turn(size, size, seconds).seconds
        if taken >= enough or size == measured.side.sample:
            return size
        size *= STEP
