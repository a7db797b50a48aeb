"""What the engine needs from the world. The docstrings are what the shared suites test."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from raysched.compiler.plan import SchedulingClass
from raysched.define.ports import FlowRunStart
from raysched.model.events import ClusterEvent
from raysched.model.options import TaskSpec
from raysched.model.records import CacheAnswer, CacheClaim, Records, Takeover
from raysched.model.rows import Batch, Execution, FlowRunRow, RequestRow
from raysched.model.traces import Standing, TraceParent
from raysched.model.values import ErrorInfo, LargeValue


@dataclass(frozen=True, slots=True)
class UnitCall:
    """A unit on its way to a backend.

    Attributes:
        id: Number of the unit, unique in this process.
        specs: The task with its options, of each stage of the unit: backends keep one remote
            function for them. What Ray has to know of the first holds for all.
        frame: The encoded unit, opaque.
        handles: Handles of large values (`LargeValue.handle`), passed as arguments in this order.
    """

    id: int
    specs: tuple[TaskSpec, ...]
    frame: bytes
    handles: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Reported:
    """A unit came to its end, whatever became of its task runs.

    Attributes:
        unit: The unit.
        report: The encoded report; complete: every item not reported by the channel is in it.
        handle: Handle of the unit's large values, or None if it has none.
    """

    unit: int
    report: bytes
    handle: Any = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The infrastructure under a unit broke; what was not reported is lost."""

    unit: int
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Began:
    """Items of a unit are running, told by the worker while they run.

    Attributes:
        unit: The unit.
        positions: Which items.
        at: When (ns since the epoch).
    """

    unit: int
    positions: Sequence[int]
    at: int


@dataclass(frozen=True, slots=True)
class Progressed:
    """A part of a unit's report, sent while the unit goes on: outcomes and log records.

    Attributes:
        unit: The unit.
        report: An encoded report of some items. Large values are never in it.
    """

    unit: int
    report: bytes


@dataclass(frozen=True, slots=True)
class Happened:
    """Something happened to the cluster; kept with every open flow run."""

    event: ClusterEvent


UnitMessage: TypeAlias = Reported | Lost | Began | Progressed
"""What is told of a unit."""

Message: TypeAlias = UnitMessage | Happened


class Sink(Protocol):
    """Where a backend puts what it has to tell. The engine gives it to `Backend.start`."""

    def __call__(self, message: Message) -> None:
        """Take a message; thread-safe, never blocks."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the cluster offers to a scheduling class.

    Attributes:
        slots: Task runs at once; 0 if no node can ever run one.
        lacking: For people, what is missing when `slots` is 0: `num_gpus=1; the cluster has 0`.
    """

    slots: int
    lacking: str = ""


class Backend(Protocol):
    """Where units run.

    A unit that was submitted leads to exactly one `Reported` or `Lost`, whatever happens: a user's
    exception is in the report, a killed worker is `Lost`. `Began` and `Progressed` may come before.
    Nothing is retried here.
    """

    name: str
    """`ray` or `inline`."""

    pumped: bool
    """Whether units run in the thread that calls `pump`, and only there."""

    def start(self, sink: Sink) -> None:
        """Get ready; called once, before everything else.

        Raises:
            BackendUnreachable: No cluster, or it refuses the token (said within 3 s).
        """

    def capacity(self, spec: TaskSpec, scheduling_class: SchedulingClass) -> Capacity:
        """Return what the cluster offers to units of this task now.

        Raises:
            BackendUnreachable: Nothing will ever run here again; the engine stops.
        """

    def submit(self, call: UnitCall) -> None:
        """Run a unit; returns at once."""

    def cancel(
        self, unit: int, positions: Sequence[int] | None = None, *, force: bool = False
    ) -> None:
        """Stop items of a unit, begun or not: they end CANCELLED in its report.

        An item that does not stop within the grace time loses its worker, after everything else
        that the unit knows has been reported. A unit that is not known any more is ignored.

        Args:
            unit: The unit.
            positions: Which of its items; None means all.
            force: Without time to clean up: the worker ends, and the unit may be Lost.
        """

    def attend(self, seconds: float | None) -> None:
        """Wait in this thread for a unit that is alone on its way, where that is quicker.

        Called between turns by the thread that takes them. Before that a unit that is alone tells
        nothing; afterwards, and with others on their way, its message comes by itself.

        Args:
            seconds: How long at most, None for as long as the backend likes; 0 for not at all.
        """

    def pump(self) -> bool:
        """Run one submitted unit in this thread, if there is one; return whether there was.

        Only for a `pumped` backend; others return False.
        """

    def fetch(self, value: LargeValue) -> Any:
        """Return a fresh copy of a large value.

        Raises:
            ResultLost: The object store lost it.
        """

    def are_lost(self, values: Sequence[LargeValue]) -> Sequence[bool]:
        """Return for each large value whether the object store has lost it for good."""

    def shares_files(self) -> bool:
        """Whether units see the files of this machine, wherever they run, now or later."""

    def describe(self) -> str:
        """Return one line for people: `Ray 2.60.0, 2 CPUs, started here`."""

    def stop(self) -> None:
        """Let go of everything that `start` took. Idempotent."""


class Store(Protocol):
    """Keeps runs durably. One writer at a time uses an instance; readers may be elsewhere."""

    def open_run(self, row: FlowRunRow) -> int:
        """Insert a flow run, owned by this process; return its number (the key of all its rows).

        Raises:
            StoreUnavailable: The database cannot be written.
        """

    def take_over(
        self, run_id: str, execution: Callable[[Sequence[Execution]], Execution]
    ) -> Takeover:
        """Own a flow run that another process has left, or whose flow function has ended.

        Appends to its executions what `execution` returns, given those that there are already: one
        that nobody else has the number of. It is quick, and may be asked again if the transaction
        is.
        Raises its epoch, so that the last owner cannot write any more, and makes its state RUNNING:
        its function begins once more, which its `attempts` count.
        Attempts that were running get rows of state CRASHED with the kind `driver lost`. Of several
        processes that try at once one succeeds.

        Raises:
            RunOwned: It is open, and its driver lives; says which process that is.
            RunNotFound: There is no such run.
            StoreUnavailable: The database cannot be written.
        """

    def records(self, run: int) -> Records:
        """Return what there is of a flow run; reads 100,000 task runs in well under a second.

        Raises:
            StoreUnavailable: The database cannot be read.
        """

    def number_of(self, run_id: str) -> int:
        """Return the number of a flow run, whoever owns it.

        Raises:
            RunNotFound: There is no such run.
            StoreUnavailable: The database cannot be read.
        """

    def claim(self, run: int, claims: Sequence[CacheClaim], now: int = 0) -> Sequence[CacheAnswer]:
        """Return for each cache key its result, or who makes it.

        The first to ask makes it. Who fails to, or whose driver dies, has lost the claim: the next
        to ask gets it. A result that expired, was rolled back, or of which nothing is kept, counts
        as none. Of equal keys among the claims the first is MINE, the others are BUSY.

        Args:
            run: Number of the flow run of those who claim.
            claims: What they claim.
            now: When (ns since the epoch), by the engine's clock; 0 for this machine's.

        Raises:
            StoreUnavailable: The database cannot be written.
        """

    def commit(self, batch: Batch) -> None:
        """Write a batch in one transaction: all of it is durable when this returns.

        Idempotent: committing the same batch again, after an error that left it unclear whether
        the first one arrived, changes nothing.

        Raises:
            StoreUnavailable: Nothing was written, or it is not known; the same batch may be
                tried again.
            StoreError: Another process has taken the run over: stop.
        """

    def values(self, run: int, group: int, start: int, stop: int) -> Mapping[int, bytes]:
        """Return the kept values of members of a group, by position; from any thread.

        Args:
            run: Number of the flow run.
            group: The group's id.
            start: The first member.
            stop: The end of the range.

        Raises:
            StoreUnavailable: The database cannot be read.
        """

    def requests(self, run: int, after: int) -> Sequence[RequestRow]:
        """Return what other processes have asked of a run, with an id over `after`, in order.

        Called about once a second for each open run, from any thread; cheap when there is nothing.

        Raises:
            StoreUnavailable: The database cannot be read.
        """

    def close(self) -> None:
        """Give up ownership of this process's runs and close. Idempotent."""


class Clock(Protocol):
    """Where the engine gets the time from."""

    def now(self) -> int:
        """Return nanoseconds since the epoch."""

    def seconds_until(self, at: int) -> float:
        """Return how long to wait for a time (ns since the epoch) before which nothing is due.

        The clock of a test may jump there instead, and return 0.
        """


class Observer(Protocol):
    """Looks at what was committed. Must be quick; what it raises is logged and harms nothing."""

    def __call__(self, run: FlowRunRow, batch: Batch) -> None:
        """Take note of a committed batch of one run."""


class Telemetry(Observer, Protocol):
    """Tells where flow runs stand in traces, and exports what it observes in the background.

    None of its methods waits for a collector, but `close`.
    """

    extension: str
    """What workers load to take part (see `worker.extensions`): `module:name`."""

    def begin(self, start: FlowRunStart, earlier: Sequence[Execution]) -> Standing:
        """Decide where an execution of a flow run without a parent stands.

        Below the active span of this thread, or the one that `TRACEPARENT` in the environment
        names, or at the top of a trace of its own; and whether the trace is sampled.

        Args:
            start: What is being opened.
            earlier: The executions that the flow run has had.
        """

    def place(self, row: FlowRunRow) -> TraceParent | None:
        """Return the `flow` span of an open flow run's last execution; None in no trace."""

    def around(self, row: FlowRunRow) -> AbstractContextManager[None]:
        """Let spans that are made in the block be below the flow span of an open flow run."""

    def close(self) -> None:
        """Deliver what is left, for a bounded time, and say what was not. Idempotent."""
