"""The words: a case has sides, a side has turns, and aims turn the pairs of turns into rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from statistics import median

from benchmarks.metrics import Aim, Of, Turn


@dataclass(frozen=True, slots=True)
class Told:
    """What a turn returns that takes the time itself, or checks its results itself.

    Attributes:
        total: Sum of the results.
        seconds: What counts as its time (seconds).
        figures: What else it has counted (see `metrics.counted`).
    """

    total: int
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared; it has a driver process of its own.

    Attributes:
        name: What people call it.
        module: Where its functions are, imported by its driver only. If it has a `warm_up`, that is
            called before each turn, not measured, so that a turn finds workers running, and if
            it has a `cool_down`, that after the last one.
        turn: Name of the function that runs so many tasks, its last argument, and returns the sum
            of their results, which are 0, 1, 2 and so on.
        arguments: What that function is called with before the number.
        prepare: Name of a function that is called like it before each turn, not measured, or "".
        postgresql: Whether states are kept there instead of in SQLite.
        environment: Environment variables of its driver.
        sample: Most tasks that a turn runs, for a peer that needs the same time for each task
            however many there are: what is read a task then stands for all of them.
        share: The part of a case's tasks that a turn runs.
        needs: Packages that are imported, beside those that the benchmarks always need.
    """

    name: str
    module: str
    turn: str
    arguments: tuple[float, ...] = ()
    prepare: str = ""
    postgresql: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    sample: int | None = None
    share: float = 1.0
    needs: tuple[str, ...] = ()

    def tasks(self, size: int) -> int:
        """Return how many tasks a turn of a case of `size` tasks runs."""
        return min(max(1, round(size * self.share)), self.sample or size)

    def missing(self) -> str:
        """Return the name of a package that is not installed, or ""."""
        return next((name for name in self.needs if find_spec(name) is None), "")


def itself(size: int) -> int:
    """Return `size`: a case of so many tasks has so many task runs."""
    return size


@dataclass(frozen=True, slots=True)
class Case:
    """A piece of work that two sides do in turn.

    Attributes:
        name: For `--case`.
        work: For people; `{size}` is how many tasks it runs.
        size: How many tasks, at scale 1.
        ours: raysched.
        peer: Whom it is compared with, or None.
        aims: What is measured.
        on_ray: Whether both sides share a local Ray that is running already.
        quick: The part of `size` that is run unless everything is asked for.
        repeats: How many pairs of turns, unless the command says.
        task_runs: From the size to how many task runs that makes.
    """

    name: str
    work: str
    size: int
    ours: Side
    peer: Side | None
    aims: tuple[Aim, ...]
    on_ray: bool = True
    quick: float = 1.0
    repeats: int = 3
    task_runs: Callable[[int], int] = itself

    @property
    def sides(self) -> tuple[Side, ...]:
        """Ours, then the peer if there is one."""
        return (self.ours,) if self.peer is None else (self.ours, self.peer)

    @property
    def postgresql(self) -> bool:
        """Whether a side keeps its states there."""
        return any(side.postgresql for side in self.sides)

    def scaled(self, scale: float, *, full: bool) -> int:
        """Return how many tasks it runs at this scale."""
        if self.size == 1:
            return 1
        return max(2, round(self.size * scale * (1 if full else self.quick)))

    def described(self, size: int) -> str:
        """Return the work for people."""
        return self.work.format(size=f"{size:,}")


@dataclass(frozen=True, slots=True)
class Row:
    """What an aim says about a case.

    Attributes:
        aim: The metric with its aim.
        ours: raysched's value.
        peer: The peer's value, or None.
        pairs: Ours and the peer's value of each pair of turns; empty without peer.
    """

    aim: Aim
    ours: float
    peer: float | None
    pairs: tuple[tuple[float, float], ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours to the peer's of each pair; empty where the peer's is 0."""
        if not all(peer for _, peer in self.pairs):
            return ()
        return tuple(ours / peer for ours, peer in self.pairs)

    @property
    def ratio(self) -> float | None:
        """The median ratio."""
        return median(self.ratios) if self.ratios else None

    @property
    def difference(self) -> float | None:
        """The median of ours less the peer's."""
        return median(ours - peer for ours, peer in self.pairs) if self.pairs else None

    @property
    def met(self) -> bool | None:
        """Whether the aim is met, None if nothing is aimed at."""
        value = {Of.RATIO: self.ratio, Of.DIFFERENCE: self.difference, Of.OURS: self.ours}
        measured = value[self.aim.of]
        return None if measured is None else self.aim.met(measured)


@dataclass(frozen=True, slots=True)
class Measured:
    """A case with all its turns.

    Attributes:
        case: The case.
        size: How many tasks a turn ran, at least of ours.
        ours: Turns of raysched.
        peer: Turns of the peer, each beside the one of the same position; empty without peer.
    """

    case: Case
    size: int
    ours: Sequence[Turn]
    peer: Sequence[Turn] = ()

    def rows(self) -> list[Row]:
        """Return what each aim of the case says."""
        return [self._row(aim) for aim in self.case.aims]

    def _row(self, aim: Aim) -> Row:
        metric = aim.metric
        ours = [metric.value(turn) for turn in self.ours]
        peer = [metric.value(turn) for turn in self.peer]
        return Row(
            aim,
            metric.typical(ours),
            metric.typical(peer) if any(peer) else None,
            tuple(zip(ours, peer, strict=False)),
        )
