"""The model's rows as tuples of the tables' columns, and back."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain, pairwise
from typing import Any

from sqlalchemy import Row, RowMapping

from raysched.model.rows import (
    AttemptRow,
    Batch,
    Execution,
    FlowRunChange,
    FlowRunRow,
    InputRow,
    RequestRow,
    TaskRunColumns,
)
from raysched.model.states import StateType
from raysched.model.traces import TraceParent
from raysched.model.values import ErrorInfo, FailureClass

Tuple = tuple[object, ...]

_KEY = ("run", "grp", "idx")
_ALWAYS = (*_KEY, "state", "attempts", "started", "duration")
_PLAIN = frozenset(field.name for field in fields(FlowRunRow)) - {"error", "pickled_parameters"}
_ERROR = (
    "error_type",
    "error_message",
    "error_traceback",
    "error_class",
    "error_kind",
    "error_exception",
    "error_fingerprint",
    "error_evidence",
)


def flow_run(row: FlowRunRow) -> dict[str, object]:
    """Return the columns of a flow run, without its number and driver."""
    plain = {field.name: getattr(row, field.name) for field in fields(FlowRunRow)}
    error = plain.pop("error")
    plain["tags"] = json.dumps(row.tags)
    plain["state"] = int(row.state)
    plain["key"], plain["identity"] = row.key or None, row.identity or None
    plain |= executions(row.executions, row.traced)
    return {name: _clean(value) for name, value in plain.items()} | error_dict(error)


def plain_flow_run(row: RowMapping) -> dict[str, Any]:
    """Return the fields of the `FlowRunRow` in a row, without its pickled parameters."""
    plain: dict[str, Any] = {name: row[name] for name in _PLAIN}
    plain["state"] = StateType(row["state"])
    plain["tags"] = tuple(json.loads(row["tags"]))
    plain["key"], plain["identity"] = row["key"] or "", row["identity"] or b""
    plain["executions"] = executions_in(row["executions"])
    plain["error"] = error_info(row)
    return plain


def executions(executions: Sequence[Execution], traced: int) -> dict[str, object]:
    """Return the columns that tell where the executions of a flow run stand in traces.

    Args:
        executions: All of them.
        traced: How many of them have been delivered, counted from the first.
    """
    return {
        "executions": _compact([_execution(each) for each in executions]),
        "traced": traced,
        "untraced": any(map(_is_sampled, executions[traced:])) or None,
    }


def _execution(execution: Execution) -> Tuple:
    """Return an execution as it is kept: what most have nothing of is left out."""
    known = (execution.started, execution.traceparent)
    if execution.attributes:
        return *known, execution.tracestate, execution.attributes
    return (*known, execution.tracestate) if execution.tracestate else known


def _is_sampled(execution: Execution) -> bool:
    stands = TraceParent.parse(execution.traceparent)
    return stands is not None and stands.sampled


def executions_in(text: str) -> tuple[Execution, ...]:
    """Return the executions in the column of a flow run."""
    return tuple(Execution(*each) for each in json.loads(text))


def flow_run_change(change: FlowRunChange) -> dict[str, object]:
    """Return the columns that a change of a flow run sets."""
    return {
        "state": int(change.state),
        "message": _clean(change.message),
        "ended": change.ended,
        "attempts": change.attempts,
        "late": change.late,
        "result": change.result,
        **error_dict(change.error),
    }


def task_groups(batch: Batch) -> list[Tuple]:
    """Return the rows of new groups, in the order of the table's columns."""
    return [
        (
            batch.run,
            group.id,
            _clean(group.task),
            group.first,
            group.size,
            group.mapped,
            _clean(group.edges),
            json.dumps(group.tags),
            _clean(group.options),
            _clean(group.parent_key),
            _clean(group.plan),
            group.units,
            group.source,
            group.created,
            group.identities or None,
        )
        for group in {group.id: group for group in batch.groups}.values()
    ]


def attempts(batch: Batch) -> list[Tuple]:
    """Return the rows of attempts, in the order of the table's columns."""
    distinct = {(row.group, row.index, row.attempt): row for row in batch.attempts}
    return [
        (
            batch.run,
            row.group,
            row.index,
            row.attempt,
            int(row.state),
            row.started,
            row.ended,
            _clean(row.stop_reason),
            *_error_columns(row.error),
            row.place or None,
        )
        for row in distinct.values()
    ]


def logs(batch: Batch, first: int) -> list[Tuple]:
    """Return the rows of log records with ids from `first`, in the order of the table's columns."""
    return [
        (
            batch.run,
            number,
            row.group,
            row.index,
            row.attempt,
            row.at,
            row.level,
            _clean(row.logger),
            _clean(row.message),
        )
        for number, row in enumerate(batch.logs, first)
    ]


def deliveries(batch: Batch, first: int) -> list[Tuple]:
    """Return the rows of deliveries with ids from `first`, in the order of the table's columns."""
    return [(batch.run, number, *member) for number, member in enumerate(batch.deliveries, first)]


def attempt(row: RowMapping) -> AttemptRow:
    """Return the attempt in a row of the table."""
    return AttemptRow(
        row["grp"],
        row["idx"],
        row["attempt"],
        StateType(row["state"]),
        row["started"],
        row["ended"],
        error_info(row),
        row["stop_reason"],
        row["place"] or 0,
    )


def places(batch: Batch) -> list[Tuple]:
    """Return the rows of places, in the order of the table's columns."""
    distinct = {row.id: row for row in batch.places}
    return [
        (batch.run, row.id, row.node_id, row.worker_id, row.pid, _clean(row.host))
        for row in distinct.values()
    ]


def events(batch: Batch, first: int) -> list[Tuple]:
    """Return the rows of events with ids from `first`, in the order of the table's columns."""
    return [
        (
            batch.run,
            number,
            row.kind.value,
            row.at,
            _clean(row.message),
            _clean(_compact(row.attributes)),
        )
        for number, row in enumerate(batch.events, first)
    ]


def inputs(batch: Batch) -> list[Tuple]:
    """Return the rows of arguments, in the order of the table's columns."""
    distinct = {(row.group, row.index): row for row in batch.inputs}
    return [(batch.run, row.group, row.index, row.payload, row.slots) for row in distinct.values()]


def task_input(row: Row[Any]) -> InputRow:
    """Return the arguments in a row of the table."""
    return InputRow(row.grp, row.idx, bytes(row.payload), row.slots)


def request(row: Row[Any]) -> RequestRow:
    """Return the request in a row of the table."""
    return RequestRow(row.id, row.kind, row.asked_by, row.at, tuple(json.loads(row.keys)))


def request_values(run: int, row: RequestRow) -> dict[str, object]:
    """Return the columns of a request."""
    return {
        "run": run,
        "id": row.id,
        "kind": row.kind,
        "asked_by": _clean(row.by),
        "at": row.at,
        "keys": _clean(json.dumps(row.keys)),
    }


def task_runs(batch: Batch) -> Iterator[tuple[tuple[str, ...], list[Tuple]]]:
    """Yield names of columns with rows of task runs, in which no task run comes twice.

    A column that no task run of the batch has a value for is left out: it costs nothing and leaves
    what is there. The second appearance of a task run comes in a later pair.
    """
    optional = tuple(
        name for name, column in OPTIONAL.items() if any(map(column.has, batch.task_runs))
    )
    waiting = list(chain.from_iterable(_tuples(batch.run, c, optional) for c in batch.task_runs))
    if waiting and _are_distinct(batch.task_runs):
        yield _ALWAYS + optional, waiting
        return
    while waiting:
        distinct: dict[Tuple, Tuple] = {}
        repeated = [row for row in waiting if distinct.setdefault(row[: len(_KEY)], row) is not row]
        yield _ALWAYS + optional, list(distinct.values())
        waiting = repeated


def _are_distinct(parts: Sequence[TaskRunColumns]) -> bool:
    """Whether these are ranges of members that do not overlap, as they mostly are."""
    if not all(isinstance(part.indices, range) for part in parts):
        return False
    ends = sorted((part.group, part.indices[0], part.indices[-1]) for part in parts)
    return all(
        group != other or last < first for (group, _, last), (other, first, _) in pairwise(ends)
    )


@dataclass(frozen=True, slots=True)
class _Optional:
    """A column that may be NULL.

    Attributes:
        has: Whether any of these task runs has a value.
        values: The values, in order.
    """

    has: Callable[[TaskRunColumns], bool]
    values: Callable[[TaskRunColumns], Sequence[object]]


def _texts(columns: TaskRunColumns, texts: Mapping[int, str]) -> list[object]:
    return [_clean(texts.get(position)) for position in range(len(columns.indices))]


def _marks(columns: TaskRunColumns, marked: frozenset[int]) -> list[object]:
    return [True if position in marked else None for position in range(len(columns.indices))]


def _roots(columns: TaskRunColumns) -> list[object]:
    roots = columns.roots
    return [json.dumps(roots[n]) if n in roots else None for n in range(len(columns.indices))]


def _places(columns: TaskRunColumns) -> list[object]:
    return [place or None for place in columns.places] or [None] * len(columns.indices)


OPTIONAL = {
    "place": _Optional(lambda columns: any(columns.places), _places),
    "size": _Optional(
        lambda columns: any(columns.sizes),
        lambda columns: [size or None for size in columns.sizes],
    ),
    "handled": _Optional(
        lambda columns: bool(columns.handled),
        lambda columns: _marks(columns, columns.handled),
    ),
    "name": _Optional(
        lambda columns: bool(columns.names),
        lambda columns: _texts(columns, columns.names),
    ),
    "roots": _Optional(lambda columns: bool(columns.roots), _roots),
    "value": _Optional(
        lambda columns: columns.values.count(None) < len(columns.values),
        lambda columns: columns.values,
    ),
    "reason": _Optional(
        lambda columns: bool(columns.reasons),
        lambda columns: _texts(columns, columns.reasons),
    ),
    "rolled_back": _Optional(
        lambda columns: bool(columns.rolled_back),
        lambda columns: _marks(columns, columns.rolled_back),
    ),
    "location": _Optional(
        lambda columns: bool(columns.locations),
        lambda columns: _texts(columns, columns.locations),
    ),
}
"""Columns that may be NULL."""


KEPT = frozenset({*OPTIONAL, "units", "identities"}) - {"place"}
"""Columns in which NULL leaves what is there; a place is that of an attempt."""


def _tuples(run: int, columns: TaskRunColumns, optional: tuple[str, ...]) -> Iterator[Tuple]:
    durations = [
        end - start if end else None
        for start, end in zip(columns.started, columns.ended, strict=True)
    ]
    parts: list[Any] = [columns.states, columns.attempts, columns.started, durations]
    parts.extend(OPTIONAL[name].values(columns) for name in optional)
    # Strict, so that columns of unequal length are found; the constants have no end.
    lines = zip(columns.indices, *parts, strict=True)
    return ((run, columns.group, *line) for line in lines)


def error_info(row: RowMapping) -> ErrorInfo | None:
    """Return the error in the columns of a row, or None."""
    if row["error_type"] is None:
        return None
    return ErrorInfo(
        row["error_type"],
        row["error_message"],
        row["error_traceback"],
        FailureClass(row["error_class"]),
        row["error_kind"],
        row["error_exception"],
        row["error_fingerprint"] or "",
        json.loads(row["error_evidence"] or "{}"),
    )


def _error_columns(error: ErrorInfo | None) -> Tuple:
    if error is None:
        return (None, "", "", "", "", None, None, None)
    return (
        _clean(error.type),
        _clean(error.message),
        _clean(error.traceback),
        error.failure_class.value,
        _clean(error.kind),
        error.exception,
        error.fingerprint or None,
        _clean(_compact(error.evidence)) if error.evidence else None,
    )


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def error_dict(error: ErrorInfo | None) -> dict[str, object]:
    """Return the columns of an error by name."""
    return dict(zip(_ERROR, _error_columns(error), strict=True))


def _clean(value: object) -> object:
    """Replace in text what a database refuses: lone surrogates and, in PostgreSQL, NUL."""
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return value
    return value.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
