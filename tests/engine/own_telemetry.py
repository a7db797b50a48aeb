"""A telemetry of the tests' own: it keeps what it is told, and its spans are lines of text."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raysched.model.traces import (
    Standing,
    TraceParent,
    attempt_span_id,
    flow_span_id,
    trace_id,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from raysched.define.ports import FlowRunStart
    from raysched.model.rows import Batch, Execution, FlowRunRow
    from raysched.worker.protocol import RunHeader

span_here: ContextVar[str] = ContextVar("span_here", default="")
"""The span that this code is below of, as hexadecimal text."""


@dataclass
class OwnTelemetry:
    """See `engine.ports.Telemetry`.

    Attributes:
        extension: See `engine.ports.Telemetry`.
        told: What was committed.
        rows: The rows of flow runs that it was told of, by id, the last one of each.
        begun: What `begin` was asked.
        closed: How often it was closed.
    """

    extension: str = "engine.own_telemetry:spans"
    told: list[tuple[FlowRunRow, Batch]] = field(default_factory=list)
    rows: dict[str, FlowRunRow] = field(default_factory=dict)
    begun: list[tuple[str, int]] = field(default_factory=list)
    closed: int = 0

    def __call__(self, run: FlowRunRow, batch: Batch) -> None:
        self.told.append((run, batch))
        self.rows[run.id] = run

    def begin(self, start: FlowRunStart, earlier: Sequence[Execution]) -> Standing:
        execution = len(earlier) + 1
        self.begun.append((start.run_id, execution))
        return Standing(str(TraceParent(trace_id(start.run_id, execution))), "", {})

    def place(self, row: FlowRunRow) -> TraceParent | None:
        top = row
        while top.parent:
            top = self.rows[top.parent]
        place = TraceParent.parse(top.executions[-1].traceparent)
        assert place is not None
        return place._replace(span_id=flow_span_id(row.id, len(row.executions)))

    @contextmanager
    def around(self, row: FlowRunRow) -> Iterator[None]:
        token = span_here.set(flow_span_id(row.id, len(row.executions)).hex())
        try:
            yield
        finally:
            span_here.reset(token)

    def close(self) -> None:
        self.closed += 1

    def batches(self) -> list[Batch]:
        """Return what was committed."""
        return [batch for _, batch in self.told]

    def spans(self) -> set[str]:
        """Return the spans of user code that came from workers, each once."""
        lines = [scope.decode() for batch in self.batches() for scope in batch.spans]
        assert len(lines) == len(set(lines)), lines
        return set(lines)


class Spans:
    """The extension that goes with it (see `worker.extensions.Extension`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: list[bytes] = []

    def enter(self, header: RunHeader, task: str, index: int, attempt: int) -> None:
        span_id = attempt_span_id(header.run_id, header.execution, task, index, attempt)
        span_here.set(span_id.hex())

    def collect(self) -> tuple[Sequence[bytes], int]:
        with self._lock:
            ended, self._ended = self._ended, []
        return ended, 0

    def end(self, name: str) -> None:
        """End a span of user code."""
        with self._lock:
            self._ended.append(f"{name} below {span_here.get()}".encode())


spans = Spans()
"""The one of this process."""


class Torn(Spans):
    """An extension that breaks whenever an item begins."""

    def enter(self, header: RunHeader, task: str, index: int, attempt: int) -> None:
        raise RuntimeError(f"torn at {task}[{index}] of {header.run_id}, attempt {attempt}")


torn = Torn()
