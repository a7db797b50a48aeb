"""Drives a backend as the engine does, and decodes what it tells."""

from __future__ import annotations

import itertools
import queue
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raysched.engine.ports import (
    Backend,
    Began,
    Happened,
    Lost,
    Message,
    Progressed,
    Reported,
    UnitCall,
)
from raysched.graph.payload import dump_call
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, LargeValue
from raysched.results.envelope import decode
from raysched.worker.protocol import (
    LogRecord,
    Report,
    RunHeader,
    SlotValue,
    Stage,
    Unit,
    decode_report,
    encode_header,
    encode_unit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raysched.model.events import ClusterEvent, EventKind

PATIENCE_SECONDS = 60
HEADER = encode_header(RunHeader("0" * 32, "calm-heron", "nightly", b"", ("blue",)))


@dataclass
class Ended:
    """What became of a unit, as the engine would add it up."""

    states: dict[int, StateType] = field(default_factory=dict)
    values: dict[int, bytes | LargeValue | None] = field(default_factory=dict)
    errors: dict[int, ErrorInfo] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    logs: list[LogRecord] = field(default_factory=list)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    began: list[int] = field(default_factory=list)
    live: int = 0
    lost: ErrorInfo | None = None
    process: int = 0
    is_over: bool = False
    missing: dict[str, str] = field(default_factory=dict)
    unkept: str = ""

    def add(self, report: Report, handle: Any = None) -> None:
        fresh = report.fresh_logs(len(self.logs))
        self.logs += fresh
        self.process = report.worker[2]
        self.missing |= report.missing
        self.unkept = self.unkept or report.unkept
        columns = zip(
            report.positions,
            report.states,
            report.values,
            report.started,
            report.ended,
            strict=True,
        )
        for position, state, value, started, ended in columns:
            if position in self.states:
                continue
            self.states[position] = StateType(state)
            self.spans[position] = (started, ended)
            self.values[position] = (
                LargeValue(handle, *value) if isinstance(value, tuple) else value
            )
            if position in report.errors:
                self.errors[position] = report.errors[position]
            if position in report.names:
                self.names[position] = report.names[position]

    @property
    def error(self) -> ErrorInfo:
        (error,) = self.errors.values()
        return error

    @property
    def messages(self) -> list[str]:
        return [record.message for record in self.logs]


class Harness:
    """A started backend, and the messages that it sent."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._open: dict[int, Ended] = {}
        self.events: list[ClusterEvent] = []
        """What has happened to the cluster so far."""
        backend.start(self._take_in)

    def _take_in(self, message: Message) -> None:
        self._inbox.put(message)

    def submit(
        self,
        spec: TaskSpec,
        calls: Sequence[tuple[Any, ...]],
        slots: tuple[SlotValue, ...] = (),
        handles: tuple[Any, ...] = (),
    ) -> int:
        """Submit a unit with one item for each tuple of arguments."""
        size = len(calls)
        stage = Stage(
            spec.name,
            mapped=False,
            shared=b"",
            tags=spec.tags,
            numbers=range(size),
            attempts=[1] * size,
            payloads=[dump_call((args, {}))[0] for args in calls],
            slots=[slots] * size,
        )
        return self.submit_unit(spec, Unit(0, HEADER, (stage,)), handles)

    def submit_unit(self, spec: TaskSpec, unit: Unit, handles: tuple[Any, ...] = ()) -> int:
        number = next(self._numbers)
        self._open[number] = Ended()
        frame = encode_unit(unit._replace(id=number))
        self.backend.submit(UnitCall(number, (spec,), frame, handles))
        return number

    def finish(self, number: int) -> Ended:
        """Wait for the end of a unit."""
        while self.take(number):
            pass
        return self._open.pop(number)

    def peek(self, number: int) -> Ended:
        """Return what is known of a unit so far; it goes on changing."""
        return self._open[number]

    def take(self, number: int) -> bool:
        """Take the next message, of whichever unit; return whether this one goes on."""
        if self._open[number].is_over:
            return False
        if self._inbox.empty():
            # As the engine does: quick units come by this, others by themselves.
            self.backend.attend(None)
            self.backend.pump()
        message = self._next()
        ended = self._open.get(message.unit, Ended())
        match message:
            case Began():
                ended.began += message.positions
            case Progressed():
                ended.add(decode_report(message.report))
                ended.live += 1
            case Reported():
                ended.add(decode_report(message.report), message.handle)
            case Lost():
                ended.lost = message.error
        ended.is_over = isinstance(message, Reported | Lost)
        return not self._open[number].is_over

    def _next(self) -> Began | Progressed | Reported | Lost:
        message = self._inbox.get(timeout=PATIENCE_SECONDS)
        while isinstance(message, Happened):
            self.events.append(message.event)
            message = self._inbox.get(timeout=PATIENCE_SECONDS)
        return message

    def happened(self, kind: EventKind, **attributes: str | int) -> list[ClusterEvent]:
        """Return the events of a kind, with these attributes, that were told so far."""
        return [
            event
            for event in self.events
            if event.kind is kind and attributes.items() <= event.attributes.items()
        ]

    def until_happened(self, kind: EventKind, **attributes: str | int) -> ClusterEvent:
        """Wait for an event of a kind, with these attributes, while no unit is on its way."""
        while not (found := self.happened(kind, **attributes)):
            self._hear(PATIENCE_SECONDS)
        return found[0]

    def listen(self, seconds: float) -> None:
        """Take what happens to the cluster in this time, while no unit is on its way."""
        deadline = time.monotonic() + seconds
        with suppress(queue.Empty):
            while True:
                self._hear(max(0.0, deadline - time.monotonic()))

    def _hear(self, seconds: float) -> None:
        message = self._inbox.get(timeout=seconds)
        assert isinstance(message, Happened)
        self.events.append(message.event)

    def until_began(self, number: int) -> None:
        """Wait until the worker has told that an item of the unit runs."""
        while not self._open[number].began:
            assert self.take(number), "it ended before"

    def run(self, function: Callable[..., Any], *calls: tuple[Any, ...], **options: Any) -> Ended:
        """Run a unit of one task with these options of `TaskSpec`."""
        spec = TaskSpec(options.pop("name", "job"), function, **options)
        return self.finish(self.submit(spec, calls or [()]))

    def value(self, ended: Ended, position: int = 0) -> Any:
        """Return the value of an item."""
        value = ended.values[position]
        if isinstance(value, LargeValue):
            return self.backend.fetch(value)
        assert value is not None
        return decode(value)

    def values(self, ended: Ended) -> list[Any]:
        return [self.value(ended, position) for position in sorted(ended.values)]


def spread(ended: Ended) -> float:
    """Return how long the items of a unit took together (seconds)."""
    first = min(started for started, _ in ended.spans.values())
    last = max(end for _, end in ended.spans.values())
    return (last - first) / 1e9


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition on the outside world holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
