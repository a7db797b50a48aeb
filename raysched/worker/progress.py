"""What is known of a unit while it runs: written by its items, read by the reporter."""

import math
import os
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from raysched.model.ids import task_run_key
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, Evidence
from raysched.results.envelope import Encoded, Parts
from raysched.worker.failures import add_evidence
from raysched.worker.protocol import LogRecord, NestedRun, Report, Unit, encode_report

UNACKNOWLEDGED_LOGS_MAX = 50_000
"""Log records of one unit beyond this number are dropped until the driver has taken some."""

UNACKNOWLEDGED_SPANS_MAX_BYTES = 4 * 1024**2
"""So large spans of one unit may be together before they wait for the driver to have taken some:
where they come from, which has a bound of its own."""

T = TypeVar("T")

WorkerIdentity = tuple[str, str, int, str]
"""Node id, worker id, process id, host name."""


class Outcome(NamedTuple):
    """How one item ended, with its value (`protocol.Report.values`) or its error."""

    position: int
    state: StateType
    started: int
    ended: int
    value: bytes | tuple[int, int, str] | None = None
    error: ErrorInfo | None = None
    name: str = ""


class _Outcomes:
    """Outcomes in the columns of a report, in the order in which they came."""

    __slots__ = ("ended", "errors", "names", "positions", "started", "states", "values")

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.states = bytearray()
        self.started = array("q")
        self.ended = array("q")
        self.values: list[bytes | tuple[int, int, str] | None] = []
        self.errors: dict[int, ErrorInfo] = {}
        self.names: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.positions)

    def add(self, outcome: Outcome) -> None:
        """Append an outcome."""
        self.positions.append(outcome.position)
        self.states.append(outcome.state)
        self.started.append(outcome.started)
        self.ended.append(outcome.ended)
        self.values.append(outcome.value)
        if outcome.error is not None:
            self.errors[outcome.position] = outcome.error
        if outcome.name:
            self.names[outcome.position] = outcome.name

    def forget(self, number: int) -> None:
        """Remove the first ones."""
        for position in self.positions[:number]:
            self.errors.pop(position, None)
            self.names.pop(position, None)
        for column in (self.positions, self.states, self.started, self.ended, self.values):
            del column[:number]

    def fill(self, report: Report, first: int = 0) -> None:
        """Put the outcomes from the `first` on into a report."""
        report.positions = self.positions[first:]
        report.states = bytes(self.states[first:])
        report.started, report.ended = self.started[first:], self.ended[first:]
        report.values = self.values[first:]
        report.errors = _at(report.positions, self.errors)
        report.names = _at(report.positions, self.names)


def _at(positions: Sequence[int], there: dict[int, T]) -> dict[int, T]:
    return (
        {position: there[position] for position in positions if position in there} if there else {}
    )


def _whereabouts(worker: WorkerIdentity) -> Evidence:
    """Return where a failure happened, as evidence."""
    node_id, worker_id, pid, host = worker
    evidence = Evidence(pid=pid, host=host)
    if node_id:
        evidence["node_id"] = node_id
    if worker_id:
        evidence["worker_id"] = worker_id
    return evidence


class UnitProgress:
    """Collects what became of a unit's items. Thread-safe.

    Outcomes, log records and users' spans are numbered in the order in which they came. A channel
    sends them once, in that order; what the driver acknowledged is forgotten, and the final report
    has the rest. So each is delivered at least once, and its number tells repeats apart.

    Its locks are reentrant: Python may call finalizers and handlers of signals anywhere, and these
    may log.

    Args:
        unit: The unit.
        worker: Where it runs.
    """

    def __init__(self, unit: Unit, worker: WorkerIdentity) -> None:
        self.unit = unit
        self.running: dict[int, int] = {}
        """Start (ns) by position."""
        self.large: list[Parts] = []
        """Large values by their position in the unit's second return."""
        self.locations: dict[int, str] = {}
        """Where the result storage has them, by the same position."""
        self.unkept = ""
        """Why some of them could not be written there; see `protocol.Report`."""
        self.missing: dict[str, str] = {}
        """What is wrong with values that the items need; see `protocol.Report`."""
        self.interrupted_since = math.inf
        """When the first of those items began (ns) that were interrupted, and whose processes are
        yet to be ended; infinite if there are none."""
        self.on_log: Callable[[], None] | None = None
        """Called after each log record, in the thread that logged."""
        self.on_change: Callable[[], None] | None = None
        """Called when an item begins or ends, in its thread."""
        self.collect: Callable[[], tuple[Sequence[bytes], int]] | None = None
        """Returns what takes part in the items has to report (see `extensions.Extension`)."""
        self.announced: set[int] = set()
        """The items of which the driver was told that they run."""
        self.process = os.getpid()
        """Where it is. A fork has a copy, of which nobody is told."""
        self._worker = worker
        self._whereabouts = _whereabouts(worker)
        self._lock = threading.RLock()
        self._outcomes = _Outcomes()
        self._held: list[Outcome] = []
        self._logs: list[LogRecord] = []
        self._spans: list[bytes] = []
        self._nested: list[NestedRun] = []
        self._ended: set[int] = set()
        self._handed_back: list[int] = []
        self._sent_handed_back = 0
        self._sent_outcomes = 0
        self._sent_logs = 0
        self._sent_spans = 0
        self._first_outcome = 0
        self._first_log = 0
        self._first_span = 0
        self._dropped_logs = 0
        self._dropped_spans = 0
        self._told_dropped_spans = 0
        self._collecting = threading.RLock()

    def begin(self, position: int, at: int) -> None:
        """Take note that an item runs since `at` (ns)."""
        self.running[position] = at
        if self.on_change is not None:
            self.on_change()

    def key(self, position: int) -> str:
        """Return the key of an item's task run."""
        number, place = self.unit.place(position)
        stage = self.unit.stages[number]
        return task_run_key(stage.task_name, stage.numbers[place])

    def complete(self, position: int, started: int, ended: int, value: bytes, name: str) -> None:
        """Do as `end`, for an item that has returned a small value: what most items do."""
        with self._lock:
            self.running.pop(position, None)
            outcomes = self._outcomes
            if position not in self._ended and not self._held and not self._nested:
                self._ended.add(position)
                outcomes.positions.append(position)
                outcomes.states.append(StateType.COMPLETED)
                outcomes.started.append(started)
                outcomes.ended.append(ended)
                outcomes.values.append(value)
                if name:
                    outcomes.names[position] = name
                return
        self.end(Outcome(position, StateType.COMPLETED, started, ended, value, name=name))

    def end(self, outcome: Outcome, large: Encoded | None = None) -> bool:
        """Take note of an outcome; return whether it counts: the first one of an item does.

        Args:
            outcome: How the item ended; without value if `large` is given.
            large: The value, where it is too large for the report.
        """
        if outcome.error is not None:
            outcome = outcome._replace(error=add_evidence(outcome.error, self._whereabouts))
        with self._lock:
            self.running.pop(outcome.position, None)
            if outcome.position in self._ended:
                return False
            self._ended.add(outcome.position)
            if large is not None:
                value = (len(self.large), large.size, "")
                self._held.append(outcome._replace(value=value))
                # A later item of the unit may change what the buffers still belong to.
                self.large.append(large.parts() if self.unit.size == 1 else large.settled())
            elif self._waits_for_the_end(outcome.position):
                self._held.append(outcome)
            else:
                self._outcomes.add(outcome)
        if self.on_change is not None:
            self.on_change()
        return True

    def large_values(self) -> list[tuple[int, int]]:
        """Return for each large value the item that has returned it, and its size (bytes)."""
        with self._lock:
            return [
                (outcome.position, outcome.value[1])
                for outcome in self._held
                if isinstance(outcome.value, tuple)
            ]

    def _waits_for_the_end(self, position: int) -> bool:
        """Whether an outcome is only told by the final report.

        With what ran inside it, which comes no earlier; or after that of an item that it may need.
        """
        if self._held and self.unit.order is not None:
            return True
        return any(run.position == position for run in self._nested)

    def log(self, record: LogRecord) -> None:
        """Take note of a log record."""
        with self._lock:
            if len(self._logs) >= UNACKNOWLEDGED_LOGS_MAX:
                self._dropped_logs += 1
                return
            self._logs.append(record)
        if self.on_log is not None:
            self.on_log()

    def add_nested(self, position: int, rows: Mapping[str, Any]) -> None:
        """Take note of what ran inside an item."""
        with self._lock:
            self._nested.append(NestedRun(position, rows))

    def hand_back(self, positions: Sequence[int]) -> None:
        """Take note that items will not be begun here."""
        with self._lock:
            self._handed_back += positions
            self._ended.update(positions)

    def open_positions(self) -> list[int]:
        """Return the items that have neither ended nor been handed back."""
        with self._lock:
            return [i for i in range(self.unit.size) if i not in self._ended]

    def has_unsent(self) -> bool:
        """Whether `take_unsent` has something."""
        return (
            self._sent_outcomes < len(self._outcomes)
            or self._sent_logs < len(self._logs)
            or self._sent_handed_back < len(self._handed_back)
        )

    def take_unsent(self) -> tuple[bytes, int, int, int] | None:
        """Return a partial report of what no partial report had before, or None.

        With it, what `acknowledge` is to be told once the driver has it. One thread at a time.
        """
        if sum(map(len, self._spans)) < UNACKNOWLEDGED_SPANS_MAX_BYTES:
            self._collect_spans()
        with self._lock:
            outcomes = len(self._outcomes) - self._sent_outcomes
            logs = self._logs[self._sent_logs :]
            spans = self._spans[self._sent_spans :]
            handed_back = self._handed_back[self._sent_handed_back :]
            has_dropped = self._dropped_spans > self._told_dropped_spans
            if not (outcomes or logs or handed_back or spans or has_dropped):
                return None
            report = self._report(logs, self._first_log + self._sent_logs, handed_back)
            report.spans, report.first_span = spans, self._first_span + self._sent_spans
            report.dropped_spans = self._dropped_spans
            self._outcomes.fill(report, self._sent_outcomes)
            self._sent_outcomes += outcomes
            self._sent_logs += len(logs)
            self._sent_spans += len(spans)
            self._sent_handed_back += len(handed_back)
            self._told_dropped_spans = self._dropped_spans
            reached = (
                self._first_outcome + self._sent_outcomes,
                self._first_log + self._sent_logs,
                self._first_span + self._sent_spans,
            )
        return encode_report(report), *reached

    def send_again(self) -> None:
        """Have everything sent once more that the driver has not acknowledged.

        Where it is not known what has arrived: the channel is another one.
        """
        with self._lock:
            self._sent_outcomes = self._sent_logs = self._sent_spans = 0
            self._sent_handed_back = self._told_dropped_spans = 0
            self.announced.clear()

    def acknowledge(self, outcomes: int, logs: int, spans: int) -> None:
        """Forget what the driver has.

        Args:
            outcomes: How many outcomes of the unit it has.
            logs: How many log records of the unit it has.
            spans: How many of `protocol.Report.spans` of the unit it has.
        """
        with self._lock:
            more = max(0, outcomes - self._first_outcome)
            self._outcomes.forget(more)
            self._sent_outcomes = max(0, self._sent_outcomes - more)
            self._first_outcome += more
            more = max(0, logs - self._first_log)
            del self._logs[:more]
            self._sent_logs = max(0, self._sent_logs - more)
            self._first_log += more
            more = max(0, spans - self._first_span)
            del self._spans[:more]
            self._sent_spans = max(0, self._sent_spans - more)
            self._first_span += more

    def final(self) -> bytes:
        """Return the report of everything that the driver has not acknowledged."""
        with self._collecting:
            self._collect_spans()
            # What ends from now on is of the next unit, also if another thread still reports this.
            self.collect = None
        with self._lock:
            if self.missing:
                report = Report(self.unit.id, worker=self._worker, missing=self.missing)
            else:
                if self._dropped_logs:
                    self._logs.append(self._dropped_notice())
                for outcome in self._held:
                    self._outcomes.add(self._located(outcome))
                report = self._report(self._logs, self._first_log, self._handed_back)
                report.nested, report.unkept = self._nested, self.unkept
                self._outcomes.fill(report)
            report.spans, report.first_span = self._spans, self._first_span
            report.dropped_spans = self._dropped_spans
        return encode_report(report)

    def _collect_spans(self) -> None:
        """Take over what there is to report of what takes part."""
        # What one thread has been given, no other report may go without.
        with self._collecting:
            if self.collect is None:
                return
            spans, dropped = self.collect()
            with self._lock:
                self._spans += spans
                self._dropped_spans += dropped

    def _located(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome.value, tuple):
            return outcome
        number, size, _ = outcome.value
        return outcome._replace(value=(number, size, self.locations.get(number, "")))

    def _dropped_notice(self) -> LogRecord:
        last = self._logs[-1]
        message = f"{self._dropped_logs} log records were dropped: more than the driver could take"
        return last._replace(level=30, logger="raysched.worker", message=message)

    def _report(
        self, logs: Sequence[LogRecord], first_log: int, handed_back: Sequence[int]
    ) -> Report:
        return Report(
            self.unit.id,
            logs=list(logs),
            worker=self._worker,
            first_log=first_log,
            handed_back=list(handed_back),
        )
