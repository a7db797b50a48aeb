"""The words: a case has sides, a side has turns, and metrics turn a pair of turns into a row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of one side took.

    Attributes:
        task_runs: How many tasks it ran.
        seconds: From the call until every result was there.
            driver_cpu: CPU time of the driver, all its threads (seconds).
        driver_peak: Most memory that the driver has held so far (bytes).
        database: What the database grew by (bytes).
    """

    task_runs: int
    seconds: float
    driver_cpu: float
    driver_peak: int
    database: int


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


RATE = Metric("tasks/s", lambda turn: turn.task_runs / turn.seconds, higher_is_better=True)
DURATION = Metric("seconds", lambda turn: turn.seconds, decimals=2)
DRIVER_CPU = Metric("driver CPU, µs a task", lambda turn: 1e6 * turn.driver_cpu / turn.task_runs)
DRIVER_PEAK = Metric("driver peak, MB", lambda turn: turn.driver_peak / 1e6, typical=max)
DATABASE = Metric("database, bytes a task run", lambda turn: turn.database / turn.task_runs)


def efficiency(ideal: float) -> Metric:
    """Return what part of the time was needed if no scheduler can beat `ideal` (seconds)."""
    return Metric(
        f"% of the ideal {ideal:g} s",
        lambda turn: 100 * ideal / turn.seconds,
        higher_is_better=True,
    )


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to be reached.

    Attributes:
        metric: What is measured.
        bound: Floor or ceiling, or None where the metric is only told.
        of_ratio: Whether the bound is one for the ratio of ours to the peer's, or for ours.
    """

    metric: Metric
    bound: float | None = None
    of_ratio: bool = True

    def met(self, value: float) -> bool | None:
        """Return whether `value` is within the bound, None if there is none."""
        if self.bound is None:
            return None
        return value >= self.bound if self.metric.higher_is_better else value <= self.bound

    def __str__(self) -> str:
        if self.bound is None:
            return ""
        sign = "≥" if self.metric.higher_is_better else "≤"
        return f"{sign} {self.bound:g}{f' {TIMES}' if self.of_ratio else ''}"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared; it has a driver process of its own.

    Attributes:
        name: What people call it.
        turn: Runs so many tasks and returns the sum of their results, which are 0, 1, 2 and so on.
        warm_up: Called before each turn, not measured, so that a turn finds workers running.
        environment: Environment variables of its driver.
    """

    name: str
    turn: Callable[[int], int]
    warm_up: Callable[[], object] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A piece of work that two sides do in turn.

    Attributes:
        name: For `--case`.
        work: For people; `{size}` is how many tasks it runs.
        size: How many tasks at scale 1.
        ours: raysched.
        peer: Whom it is compared with, or None.
        aims: What is measured, the first one for the plot.
        on_ray: Whether both sides share a local Ray that is running already.
        repeats: How many pairs of turns, unless the command says.
    """

    name: str
    work: str
    size: int
    ours: Side
    peer: Side | None
    aims: tuple[Aim, ...]
    on_ray: bool = True
    repeats: int = 5

    @property
    def sides(self) -> tuple[Side, ...]:
        """Ours, then the peer if there is one."""
        return (self.ours,) if self.peer is None else (self.ours, self.peer)

    def scaled(self, scale: float) -> int:
        """Return how many tasks it runs at this scale."""
        return self.size if self.size == 1 else max(2, round(self.size * scale))

    def described(self, size: int) -> str:
        """Return the work for people."""
        return self.work.format(size=f"{size:,}")


@dataclass(frozen=True, slots=True)
class Row:
    """What a metric says about a case.

    Attributes:
        aim: The metric with its aim.
        ours: raysched's value.
        peer: The peer's value, or None.
        ratios: Ours to the peer's of each pair of turns; empty where that has no meaning.
    """

    aim: Aim
    ours: float
    peer: float | None
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float | None:
        """The median ratio."""
        return median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the aim is met, None if nothing is aimed at."""
        value = self.ratio if self.aim.of_ratio else self.ours
        return None if value is None else self.aim.met(value)


@dataclass(frozen=True, slots=True)
class Measured:
    """A case with all its turns.

    Attributes:
        case: The case.
        size: How many tasks a turn ran.
        ours: Turns of raysched.
        peer: Turns of the peer, each beside the one of the same position; empty without peer.
    """

    case: Case
    size: int
    ours: Sequence[Turn]
    peer: Sequence[Turn] = ()

    def rows(self) -> list[Row]:
        """Return what each metric of the case says."""
        return [self._row(aim) for aim in self.case.aims]

    def _row(self, aim: Aim) -> Row:
        ours = [aim.metric.value(turn) for turn in self.ours]
        peer = [aim.metric.value(turn) for turn in self.peer]
        comparable = all(peer)
        return Row(
            aim,
            aim.metric.typical(ours),
            aim.metric.typical(peer) if peer and comparable else None,
            tuple(o / p for o, p in zip(ours, peer, strict=False)) if comparable else (),
        )
