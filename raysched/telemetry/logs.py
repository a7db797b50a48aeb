"""Log records of flow runs and task runs as OTLP, with the spans in which they were made.

Source: OpenTelemetry Protocol, logs/v1, and the logs data model. Records of runs that are not
sampled are exported too, with their ids and without the flag: what a sampler leaves out are spans,
and a line that says what went wrong is wanted just then.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs, SeverityNumber

from raysched.model.ids import task_run_key
from raysched.model.rows import ENGINE_LOGGER, Batch, FlowRunRow, GroupRow, LogRow
from raysched.model.traces import TraceParent, attempt_span_id, flow_span_id, task_span_id
from raysched.telemetry.building.members import OpenRun
from raysched.telemetry.earlier import Replay, earlier_batches, nothing_kept
from raysched.telemetry.otlp import SAMPLED
from raysched.telemetry.ports import Signal, Transport
from raysched.telemetry.sending.environment import destination
from raysched.telemetry.sending.sender import Sender
from raysched.telemetry.sending.transports import open_transport
from raysched.telemetry.unsent import Unsent

_STEPS = 4
"""Severities within a range: `WARN`, `WARN2`, …"""


@dataclass(frozen=True, slots=True)
class _Piece:
    scope: str
    record: LogRecord


@dataclass(slots=True)
class _Run:
    """An open flow run.

    Attributes:
        known: Where it stands.
        groups: Its groups, by id.
    """

    known: OpenRun
    groups: dict[int, GroupRow] = field(default_factory=dict)

    def learn(self, batch: Batch) -> None:
        """Take note of groups."""
        # Identities are of no use here, and large.
        self.groups.update((group.id, replace(group, identities=b"")) for group in batch.groups)


def open_logs(resource: bytes, replay: Replay = nothing_kept) -> "Logs | None":
    """Return what exports log records, or None if nobody wants to know.

    Args:
        resource: Encoded OTLP `Resource`.
        replay: Returns what is kept of a flow run that goes on here.

    Raises:
        SettingsError: An `OTEL_*` variable has an impossible value.
    """
    target = destination(Signal.LOGS)
    return None if target is None else Logs(open_transport(target), resource, replay)


class Logs:
    """A `Consumer` that exports log records.

    Args:
        transport: Where to; closed with this.
        resource: Encoded OTLP `Resource`.
        replay: Returns what is kept of a flow run that goes on here.
    """

    def __init__(
        self, transport: Transport, resource: bytes, replay: Replay = nothing_kept
    ) -> None:
        self._replay = replay
        self._resource = resource
        self._sender = Sender[_Piece](transport, self._request)
        self._runs: dict[str, _Run] = {}

    def take(self, row: FlowRunRow, batch: Batch) -> None:
        """See `Consumer.take`."""
        run = self._runs.get(row.id)
        if run is None:
            parent = self._runs.get(row.parent)
            run = self._runs[row.id] = _Run(OpenRun(row, parent.known if parent else None))
            for earlier in earlier_batches(self._replay, row):
                run.learn(earlier)
        run.known.row = row
        run.learn(batch)
        for log in batch.logs:
            record = _record(run, log)
            self._sender.put(_Piece(_text(log.logger), record), record.ByteSize(), 1)
        if batch.flow_run is not None and batch.flow_run.state.is_terminal:
            del self._runs[row.id]

    def flush(self, seconds: float) -> None:
        """See `Consumer.flush`."""
        self._sender.flush(seconds)

    def unsent(self) -> Unsent | None:
        """Return what was not delivered; None also where the collector takes no log records."""
        number = sum(self._sender.unsent().values())
        if not number or self._sender.is_off:
            return None
        records = "log record" if number == 1 else "log records"
        return Unsent(Signal.LOGS, f"{number} {records}", self._sender.reason())

    def close(self) -> None:
        """See `Consumer.close`."""
        self._sender.close()

    def _request(self, pieces: Sequence[_Piece]) -> bytes:
        request = ExportLogsServiceRequest()
        of_resource = request.resource_logs.add()
        of_resource.resource.ParseFromString(self._resource)
        scopes: dict[str, ScopeLogs] = {}
        for piece in pieces:
            of_scope = scopes.get(piece.scope)
            if of_scope is None:
                of_scope = scopes[piece.scope] = of_resource.scope_logs.add()
                of_scope.scope.name = piece.scope
            of_scope.log_records.append(piece.record)
        return request.SerializeToString()


def severity(level: int) -> int:
    """Return the severity number of a level of `logging`.

    The five levels are the first of their ranges, and what is between two of them the next ones;
    below DEBUG is TRACE. Source: OpenTelemetry logs data model, mapping of severities.
    """
    tens = max(0, min(level // 10, logging.CRITICAL // 10))
    more = max(0, min(level - tens * 10, _STEPS - 1))
    return SeverityNumber.SEVERITY_NUMBER_TRACE + _STEPS * tens + more


def _record(run: _Run, log: LogRow) -> LogRecord:
    row = run.known.row
    execution = run.known.execution_at(log.at)
    attributes: dict[str, str | int] = {
        "raysched.flow.name": row.flow,
        "raysched.flow.run_id": row.id,
    }
    span_id = flow_span_id(row.id, execution)
    group = run.groups.get(log.group)
    if group is not None:
        index = group.first + log.index
        attributes["raysched.task.name"] = group.task
        attributes["raysched.task.key"] = task_run_key(group.task, index)
        attributes["raysched.attempt.number"] = log.attempt
        span_id = attempt_span_id(row.id, execution, group.task, index, log.attempt)
        if log.logger == ENGINE_LOGGER:
            # What is said of a task run whose attempt may never begin.
            span_id = task_span_id(row.id, execution, group.task, index)
    record = LogRecord(
        time_unix_nano=log.at,
        observed_time_unix_nano=time.time_ns(),
        severity_number=SeverityNumber.ValueType(severity(log.level)),
        severity_text=logging.getLevelName(log.level),
        body=AnyValue(string_value=_text(log.message)),
        attributes=_key_values(attributes.items()),
    )
    trace = _trace(run.known, log.at)
    if trace is not None:
        record.trace_id, record.span_id = trace.trace_id, span_id
        record.flags = SAMPLED if trace.sampled else 0
    return record


def _trace(run: OpenRun, at: int) -> TraceParent | None:
    """Return the trace in which a flow run stood at a time (ns), or None if there was none."""
    execution = run.executions[run.execution_at(at) - 1]
    if run.row.parent:
        # A subflow stands in the trace of the flow run around it.
        if run.parent is None:
            return None
        return _trace(run.parent, execution.started or run.row.started)
    return TraceParent.parse(execution.traceparent)


def _key_values(attributes: Iterable[tuple[str, str | int]]) -> list[KeyValue]:
    return [
        KeyValue(
            key=name,
            value=AnyValue(string_value=_text(value))
            if isinstance(value, str)
            else AnyValue(int_value=value),
        )
        for name, value in attributes
    ]


def _text(value: str) -> str:
    """Return text that is UTF-8: no half of a surrogate pair."""
    return value.encode(errors="replace").decode()
