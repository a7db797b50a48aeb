"""What travels between the engine and the code beside the user's function.

A unit goes out as one *frame* and comes back as one *report*, both opaque bytes for the backend
that carries them. Reports and channel messages are msgpack: nothing that a worker sends is
unpickled before a person asks for the value. `VERSION` is the first field of both.
"""

import math
import pickle
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import msgpack

from raysched.errors import InternalError
from raysched.model.values import ErrorInfo, FailureClass

VERSION = 1

INLINE = 0
LARGE = 1
LIST = 2
FAILURE = 3
LOCAL = 4
SUCCESSES = 5
STORED = 6
RECORDED = 7


class RunHeader(NamedTuple):
    """What every unit of a flow run knows about it.

    Attributes:
        run_id: The flow run's id.
        run_name: Its name.
        flow_name: The flow's name.
        parameters: Pickled parameters of the flow run, or b"" where they are too large to travel
            with every unit.
        tags: Tags of the flow run.
        storage: URL of a directory of the result storage into which the unit writes its large
            values, or "" for not keeping them.
        kept_max_bytes: Values over this encoded size (bytes) are not written there.
        script: What the module of the driver's `__main__` is called (see `results.scripts`).
        traceparent: The flow run's `flow` span (`model.traces.TraceParent`), or "" if nothing is
            traced.
        tracestate: What goes with it, or "".
        execution: Number of the flow run's execution, from 1: ids of spans derive from it.
        extension: What takes part in each item (see `worker.extensions`), or "".
        within: Of what an attempt calls itself: that attempt, as task, index and number. The items
            take part as it, since they get their own places among the flow run's task runs only
            when they come home.
    """

    run_id: str
    run_name: str
    flow_name: str
    parameters: bytes = b""
    tags: tuple[str, ...] = ()
    storage: str = ""
    kept_max_bytes: int = 0
    script: str = ""
    traceparent: str = ""
    tracestate: str = ""
    execution: int = 1
    extension: str = ""
    within: tuple[str, int, int] | None = None


SlotValue: TypeAlias = tuple[int, Any]
"""What a slot stands for: `(INLINE, envelope)`, `(LARGE, (argument, position))` for a large value
in the backend's n-th argument, `(LIST, [SlotValue, …])`, `(FAILURE, envelope of an exception)`,
`(LOCAL, position)` for the value of an earlier item of the same unit, `(STORED, location)` for one
that is read from the result storage (`model.values.StoredValue`), `(RECORDED, (name, envelope))`
for a small one that an earlier execution has left, or `(SUCCESSES, ([SlotValue, …], [envelope of an
exception, …]))` for the successes of a map beside its failures.
"""


class Stage(NamedTuple):
    """Task runs of one group in a unit, in columns.

    Attributes:
        task_name: Name of the task.
        mapped: Whether they are rows of a map: then `shared` is the pickled
            `(names, static arguments)`, and the arguments of each are a tuple of elements in that
            order. Otherwise they are `(args, kwargs)`.
        shared: See `mapped`.
        tags: Tags of these task runs.
        numbers: Their positions among the task runs of their name.
        attempts: Numbers of their attempts, from 1.
        payloads: Their pickled arguments (see `graph.payload`), unless there are `columns`.
        columns: For rows of immutable elements, the elements by mapped parameter.
        slots: Values of the payloads' slots, by number, for each; empty where there are none.
    """

    task_name: str
    mapped: bool
    shared: bytes
    tags: tuple[str, ...]
    numbers: Sequence[int]
    attempts: Sequence[int]
    payloads: Sequence[bytes] = ()
    columns: tuple[Sequence[Any], ...] = ()
    slots: Sequence[tuple[SlotValue, ...]] = ()


class Unit(NamedTuple):
    """One call of a worker: task runs of one group, or of several that were fused.

    Its *items* are numbered from 0, in the order in which they begin.

    Attributes:
        id: The unit's number, unique in its driver.
        header: The encoded `RunHeader`.
        stages: The task runs by group.
        order: For each item its stage, its place there, and the item that it needs, or -1; None
            where there is one stage, in its own order.
        lease_seconds: When the worker hands back the items that it has not begun (seconds).
        stored: Whether there are STORED or RECORDED values in the slots.
    """

    id: int
    header: bytes
    stages: tuple[Stage, ...]
    order: Sequence[tuple[int, int, int]] | None = None
    lease_seconds: float = math.inf
    stored: bool = False

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self.stages[0].numbers) if self.order is None else len(self.order)

    def place(self, item: int) -> tuple[int, int]:
        """Return the number of an item's stage, and its place there."""
        return (0, item) if self.order is None else self.order[item][:2]

    def parent(self, item: int) -> int:
        """Return the item that has to complete before this one, or -1."""
        return -1 if self.order is None else self.order[item][2]

    def needed(self) -> frozenset[int]:
        """Return the items that others need."""
        return frozenset(parent for *_, parent in self.order or () if parent >= 0)

    def continues(self, item: int) -> bool:
        """Whether an item is what the next task does with the value of the item before it."""
        order = self.order
        return (
            order is not None
            and item > 0
            and order[item][2] == item - 1
            and order[item][0] != order[item - 1][0]
        )


class NestedRun(NamedTuple):
    """A task run, or flow run, that ran inside an attempt: evidence, not a resume point.

    Attributes:
        position: The item of the unit in which it ran.
        rows: Plain data for the store: see `engine.nested`.
    """

    position: int
    rows: Mapping[str, Any]


@dataclass(slots=True)
class Report:
    """What became of items of a unit, in columns of equal length.

    Attributes:
        unit: The unit's number.
        positions: Which items.
        states: Terminal state codes, a byte each.
        started: Start times (ns since the epoch).
        ended: End times (ns).
        values: The envelope of a small value; of a large one its position (int) among the unit's
            large values, its size, and its location in the result storage or ""; or None.
        missing: Of values that its items need, and that are not in the result storage any more,
            damaged, or of no use here: the location (STORED) or name (RECORDED), and what is wrong.
            If there are any, nothing of the unit was begun, and nothing of it is in its one report.
        unkept: Why large values that were to be kept could not be written into the result storage,
            or "".
        errors: Of those that did not succeed, by position.
        names: Rendered task run names, by position.
        logs: Log records not yet sent by the channel, see `LogRecord`.
        worker: Node id, worker id, process id, host name.
        nested: What ran inside the items.
        handed_back: Items that were not begun, for others to run.
        first_log: Number of the first of `logs` among all log records of the unit, from 0: whoever
            has seen more of them leaves the repeats out (`fresh_logs`).
        spans: Spans of user code, as encoded OTLP `ScopeSpans`, each of some that ended together.
        first_span: Number of the first of `spans` among all those of the unit, from 0, as of
            `first_log` (`fresh_spans`).
        dropped_spans: How many of the unit were left out so far, because there were too many.
    """

    unit: int
    positions: Sequence[int] = ()
    states: bytes = b""
    started: Sequence[int] = ()
    ended: Sequence[int] = ()
    values: Sequence[bytes | tuple[int, int, str] | None] = ()
    errors: dict[int, ErrorInfo] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    logs: list["LogRecord"] = field(default_factory=list)
    worker: tuple[str, str, int, str] = ("", "", 0, "")
    nested: list[NestedRun] = field(default_factory=list)
    first_log: int = 0
    handed_back: list[int] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    unkept: str = ""
    spans: Sequence[bytes] = ()
    first_span: int = 0
    dropped_spans: int = 0

    def fresh_logs(self, seen: int) -> list["LogRecord"]:
        """Return the log records that are new to whoever has seen the first `seen` of the unit."""
        return self.logs[max(0, seen - self.first_log) :]

    def fresh_spans(self, seen: int) -> Sequence[bytes]:
        """Return those of `spans` that are new to whoever has seen the first `seen` of the unit."""
        return self.spans[max(0, seen - self.first_span) :]


class LogRecord(NamedTuple):
    """One log record of a task run.

    Attributes:
        position: Item of the unit.
        attempt: Number of the attempt.
        at: When (ns since the epoch).
        level: `logging` level number.
        logger: Name of the logger.
        message: The formatted message, with the exception's traceback if it had one.
    """

    position: int
    attempt: int
    at: int
    level: int
    logger: str
    message: str


def encode_header(header: RunHeader) -> bytes:
    """Encode a header once for all units of its flow run."""
    return pickle.dumps(header, pickle.HIGHEST_PROTOCOL)


def decode_header(data: bytes) -> RunHeader:
    """Decode a header."""
    header: RunHeader = pickle.loads(data)
    return header


def encode_unit(unit: Unit) -> bytes:
    """Encode a unit as a frame."""
    return pickle.dumps((VERSION, unit), pickle.HIGHEST_PROTOCOL)


def decode_unit(frame: bytes) -> Unit:
    """Decode a frame.

    Raises:
        InternalError: The driver speaks another version of the protocol.
    """
    version, unit = pickle.loads(frame)
    _check_version(version)
    return unit  # type: ignore[no-any-return]


def encode_report(report: Report) -> bytes:
    """Encode a report."""
    errors = {
        position: (
            error.type,
            error.message,
            error.traceback,
            error.failure_class.value,
            error.kind,
            error.exception,
            error.fingerprint,
            error.evidence,
        )
        for position, error in report.errors.items()
    }
    logs = [
        (log.position, log.attempt, log.at, log.level, log.logger, log.message)
        for log in report.logs
    ]
    nested = [(run.position, run.rows) for run in report.nested]
    data: bytes = msgpack.packb(
        (
            VERSION,
            report.unit,
            _encode_positions(report.positions),
            report.states,
            array("q", report.started).tobytes(),
            array("q", report.ended).tobytes(),
            report.values,
            errors,
            report.names,
            logs,
            report.worker,
            nested,
            report.first_log,
            report.handed_back,
            report.missing,
            report.unkept,
            report.spans,
            report.first_span,
            report.dropped_spans,
        ),
        unicode_errors="surrogatepass",
    )
    return data


def decode_report(data: bytes) -> Report:
    """Decode a report.

    Raises:
        InternalError: The worker speaks another version of the protocol.
    """
    version, *fields = msgpack.unpackb(
        data, use_list=False, strict_map_key=False, unicode_errors="surrogatepass"
    )
    _check_version(version)
    (
        unit,
        positions,
        states,
        started,
        ended,
        values,
        errors,
        names,
        logs,
        worker,
        nested,
        first_log,
        handed_back,
        missing,
        unkept,
        spans,
        first_span,
        dropped_spans,
    ) = fields
    return Report(
        unit,
        _decode_positions(positions),
        states,
        array("q", started),
        array("q", ended),
        values,
        {position: _error(error) for position, error in errors.items()},
        names,
        [LogRecord(*log) for log in logs],
        worker,
        [NestedRun(*run) for run in nested],
        first_log,
        list(handed_back),
        missing,
        unkept,
        spans,
        first_span,
        dropped_spans,
    )


def _encode_positions(positions: Sequence[int]) -> Sequence[int] | tuple[None, int, int]:
    """Return positions as msgpack takes them: adjacent ones, as they mostly are, by their ends."""
    if positions and list(positions) == list(range(positions[0], positions[-1] + 1)):
        return None, positions[0], positions[-1] + 1
    return positions


def _decode_positions(fields: Sequence[Any]) -> Sequence[int]:
    if fields and fields[0] is None:
        return range(fields[1], fields[2])
    return fields


def _error(fields: Sequence[Any]) -> ErrorInfo:
    kind, message, traceback, failure_class, *rest = fields
    return ErrorInfo(kind, message, traceback, FailureClass(failure_class), *rest)


def _check_version(version: int) -> None:
    if version != VERSION:
        message = (
            f"driver and worker speak versions {VERSION} and {version} of the worker protocol: "
            "install the same raysched on every node"
        )
        raise InternalError(message)
