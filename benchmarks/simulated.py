"""A cluster in virtual time: how busy one driver keeps a thousand cores.

The engine, the tracker and the store are the real ones; the backend and the clock are not. The
clock shows the CPU time that this process really used, plus what the backend charges for each call
of Ray, plus the time in which the driver had nothing to do, which is skipped. Other work on the
machine is not in it, nor are waits for the disk.
"""

import time
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from benchmarks.case import Told
from benchmarks.load import CLUSTER_SLOTS, CLUSTER_TASK_SECONDS
from raysched import flow, task
from raysched.compiler.plan import SchedulingClass
from raysched.engine.loop import GATHER_SECONDS
from raysched.engine.ports import Capacity, Lost, Reported, Sink, UnitCall
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, FailureClass, LargeValue
from raysched.results.envelope import encode
from raysched.wiring import Configuration, configure, disconnect
from raysched.worker.protocol import Report, Unit, decode_unit, encode_report

CALL_SECONDS = 0.0004
"""What a call of Ray costs the driver (seconds of CPU), as measured on a real one."""

SECOND_NS = 1_000_000_000


class VirtualClock:
    """The CPU time of this process, plus what was skipped."""

    def __init__(self) -> None:
        self._skipped = time.time_ns() - time.process_time_ns()

    def now(self) -> int:
        """Return nanoseconds since the epoch."""
        return self._skipped + time.process_time_ns()

    def seconds_until(self, at: int) -> float:
        """Return 0: whoever waits has the cluster go on, which skips the time."""
        del at
        return 0.0

    def skip(self, nanoseconds: int) -> None:
        """Let time pass."""
        self._skipped += nanoseconds


class SimulatedCluster:
    """Implements `Backend`: units take the slots in order, and all tasks the same time.

    A unit hands back what it has not begun when its lease is over, as real workers do.

    Args:
        clock: Its time.
        slots: Units at once.
        task_seconds: How long a task takes (seconds).
        call_seconds: What each call of Ray takes the driver (seconds).
    """

    name = "simulated"
    pumped = True

    def __init__(
        self, clock: VirtualClock, slots: int, task_seconds: float, call_seconds: float
    ) -> None:
        self._clock = clock
        self._slots = slots
        self._free = slots
        self._task_ns = round(task_seconds * SECOND_NS)
        self._call_ns = round(call_seconds * SECOND_NS)
        self._queue: deque[UnitCall] = deque()
        # Ends (ns) of what runs, with the number of the unit, and its report.
        self._running: list[tuple[int, int, bytes]] = []
        self._delivered = False
        self._sink: Sink | None = None

    def start(self, sink: Sink) -> None:
        """See `Backend.start`."""
        self._sink = sink

    def capacity(self, spec: TaskSpec, scheduling_class: SchedulingClass) -> Capacity:
        """See `Backend.capacity`."""
        del spec, scheduling_class
        return Capacity(self._slots)

    def submit(self, call: UnitCall) -> None:
        """See `Backend.submit`; here the driver pays."""
        self._clock.skip(self._call_ns)
        # What has ended meanwhile has made room for what waits, at the time of its end.
        self._queue.append(call)
        self._fill(self._clock.now())

    def cancel(
        self, unit: int, positions: Sequence[int] | None = None, *, force: bool = False
    ) -> None:
        """See `Backend.cancel`; running units, and parts of units, end by themselves."""
        del force
        if positions is not None:
            return
        for call in tuple(self._queue):
            if call.id == unit:
                self._queue.remove(call)
                self._tell(Lost(unit, _CANCELLED))

    def attend(self, seconds: float | None) -> None:
        """See `Backend.attend`: nothing comes by itself here."""

    def pump(self) -> bool:
        """Report what has ended; if nothing has, after the driver's turn, let time pass."""
        if self._deliver():
            self._delivered = True
            return True
        if self._delivered or not self._running:
            self._delivered = False
            return False
        # Messages gather for a moment, as those of a real backend do.
        until = self._running[0][0] + round(GATHER_SECONDS * SECOND_NS)
        self._clock.skip(max(0, until - self._clock.now()))
        self._delivered = self._deliver()
        return self._delivered

    def fetch(self, value: LargeValue) -> object:
        """See `Backend.fetch`: here no value is large."""
        raise NotImplementedError(value)

    def are_lost(self, values: Sequence[LargeValue]) -> Sequence[bool]:
        """See `Backend.are_lost`."""
        return [False for _ in values]

    def shares_files(self) -> bool:
        """See `Backend.shares_files`."""
        return True

    def describe(self) -> str:
        """See `Backend.describe`."""
        return f"simulated, {self._slots} slots"

    def stop(self) -> None:
        """See `Backend.stop`."""
        self._sink = None

    def _deliver(self) -> bool:
        """Report all units that have ended; return whether there were any."""
        now = self._clock.now()
        worked = False
        while self._running and self._running[0][0] <= now:
            ended, number, report = heappop(self._running)
            self._free += 1
            # A worker does not wait for the driver: its next unit begins when this one ends.
            self._fill(ended)
            self._tell(Reported(number, report))
            worked = True
        return worked

    def _fill(self, now: int) -> None:
        while self._free and self._queue:
            call = self._queue.popleft()
            report = self._run(decode_unit(call.frame), now)
            heappush(self._running, (report.ended[-1], call.id, encode_report(report)))
            self._free -= 1

    def _run(self, unit: Unit, now: int) -> Report:
        lease = round(unit.lease_seconds * SECOND_NS)
        # The first one is begun in any case.
        begun = max(1, min(unit.size, -(-lease // self._task_ns)))
        starts = [now + position * self._task_ns for position in range(begun)]
        places = map(unit.place, range(begun))
        numbers = [unit.stages[stage].numbers[place] for stage, place in places]
        return Report(
            unit.id,
            positions=range(begun),
            states=bytes([StateType.COMPLETED] * begun),
            started=starts,
            ended=[start + self._task_ns for start in starts],
            values=[encode(number).join() for number in numbers],
            handed_back=list(range(begun, unit.size)),
        )

    def _tell(self, message: Reported | Lost) -> None:
        if self._sink is not None:
            self._sink(message)


_CANCELLED = ErrorInfo(
    "raysched.errors.TaskRunCancelled",
    "the task run was cancelled before it began",
    failure_class=FailureClass.CANCELLED,
)


@task
def simulated(number: int) -> int:
    return number


@flow
def simulated_map(size: int) -> int:
    return sum(simulated.map(range(size)).result())


def cluster(size: int) -> Told:
    """Map so many tasks over a simulated cluster; what is told is virtual time."""
    clock = VirtualClock()
    backend = SimulatedCluster(clock, CLUSTER_SLOTS, CLUSTER_TASK_SECONDS, CALL_SECONDS)
    before = configure(Configuration(backend=backend, clock=clock))
    try:
        began = clock.now()
        total = simulated_map(size)
        return Told(total, (clock.now() - began) / SECOND_NS)
    finally:
        disconnect()
        configure(before)
