"""One cause in full: what its first failure left, where the line is, what helps against it."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from raysched.client.advice import advise
from raysched.client.advice_case import Case
from raysched.client.why_causes import Kind
from raysched.client.why_facts import (
    Argument,
    Cause,
    Evidence,
    Happening,
    Line,
    Seen,
    Try,
    Where,
)
from raysched.client.why_source import source_of
from raysched.client.words import describe_error, error_type, seconds_between, utc
from raysched.model.rows import ENGINE_LOGGER, FELL_BACK, AttemptRow
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, TimeoutKind
from raysched.model.values import Evidence as Kept

if TYPE_CHECKING:
    from raysched.store.reader import Reader
    from raysched.store.views import RunView, TaskRunView

MOST_LOGS = 20
"""Log records of a failed task run that are told: the last ones."""

MOST_HAPPENINGS = 20
"""What happened before a failure is told up to here: the last ones."""

MOST_ATTEMPTS = 20
"""Attempts of one task run that are told: the first half and the last half."""

BEFORE_SECONDS = 60
"""How long before a failure it is told what happened (seconds)."""

TRIED_AGAIN = "tried again"
"""What came of a failed attempt that another one followed."""

FLOW_FUNCTION = -1
"""Group of log records of the flow function itself (`model.rows.LogRow`)."""

OOM_REASON = "OOM kill reason"
"""Begins the line in which Ray's memory monitor tells why it killed a worker."""

_LIMITS = {
    "queue_timeout_seconds": TimeoutKind.QUEUED.value,
    "total_timeout_seconds": TimeoutKind.TOTAL.value,
}
"""Limits of time that may pass without an attempt, by the option that their reason begins with."""

_GIB = 1024**3


def cause_of(reader: "Reader", run: "RunView", kind: Kind, number: int) -> Cause:
    """Return what is known about failures with one innermost cause, by the first of them."""
    index = kind.group.first + kind.first
    task_run = reader.task_run(run, kind.group.task, index)
    attempts = reader.attempts(run, kind.group.id, kind.first)
    # What was lost with its driver is not told by its attempts: they had ended before.
    error = task_run.error if task_run is not None else None
    if error is None:
        error = next((row.error for row in reversed(attempts) if row.error is not None), None)
    error = error or _unbegun(kind)
    options = kind.options
    ended = _ended(reader, run, task_run)
    logs = reader.last_logs(run, kind.group.id, kind.first, MOST_LOGS)
    key = f"{kind.group.task}[{index}]"
    begun = task_run.attempts if task_run is not None else len(attempts)
    return Cause(
        number=number,
        task=kind.group.task,
        key=key,
        name=task_run.name if task_run is not None else key,
        map_index=kind.first if kind.group.mapped else None,
        map_size=kind.group.size if kind.group.mapped else 0,
        by_task=_by_task(reader, run, kind),
        keys=tuple(kind.keys) or (key,),
        handled=kind.handled,
        teardown=kind.teardown,
        victims=dict(kind.victims),
        state=kind.state,
        attempts=tuple(map(try_of, _some(attempts))),
        attempts_begun=begun,
        stopped=kind.reason
        or next((row.stop_reason for row in attempts if row.attempt == begun), ""),
        stops=tuple(kind.stops.values()) if len(kind.stops) > 1 else (),
        before_fallback=_before_fallback(attempts),
        logs=tuple(Line(utc(row.at), row.level, row.logger, row.message) for row in logs),
        before=_before(reader, run, key, ended, {_node(row.error) for row in attempts} - {""}),
        owner=options.get("owner", ""),
        runbook=options.get("runbook", ""),
        advice=advise(_case(kind, error, begun, options)),
        **_of_error(reader, run, error),
    )


def _unbegun(kind: Kind) -> ErrorInfo:
    """Return the error of task runs that ended without an attempt: why they did is all there is."""
    limit = next((limit for name, limit in _LIMITS.items() if kind.reason.startswith(name)), "")
    return ErrorInfo("", kind.reason, failure_class=kind.failure_class, kind=limit)


def flow_cause(reader: "Reader", run: "RunView", number: int) -> Cause:
    """Return what is known about what the flow function itself raised; `run.error` is not None."""
    assert run.error is not None  # noqa: S101 - as the docstring says
    said = reader.last_logs(run, FLOW_FUNCTION, 0, MOST_LOGS)
    own = [row for row in said if row.logger != ENGINE_LOGGER]
    return Cause(
        number=number,
        task="",
        key="",
        name=run.name,
        map_index=None,
        map_size=0,
        by_task={},
        keys=(),
        handled=0,
        teardown=False,
        victims={},
        state=run.state,
        attempts=(),
        attempts_begun=run.attempts,
        stopped="",
        stops=(),
        before_fallback=None,
        logs=tuple(Line(utc(row.at), row.level, row.logger, row.message) for row in own),
        before=_before(reader, run, "", run.ended, ()),
        owner="",
        runbook="",
        advice=(),
        **_of_error(reader, run, run.error),
    )


def _of_error(reader: "Reader", run: "RunView", error: ErrorInfo) -> dict[str, Any]:
    """Return the attributes of a cause that its error tells."""
    kept = error.evidence
    frames = tuple(kept.get("frames", ()))
    seen = reader.seen(error.fingerprint) if error.fingerprint else None
    return {
        "error": error,
        "failure_class": error.failure_class,
        "kind": error.kind,
        "type": error_type(error),
        "message": error.message,
        "fingerprint": error.fingerprint,
        "traceback": error.traceback,
        "frames": frames,
        "source": source_of(frames, run.started),
        "evidence": tuple(evidence_of(kept)),
        "arguments": tuple(
            Argument(
                each.get("name", ""),
                each.get("preview", ""),
                each.get("type", ""),
                tuple(each.get("sources", ())),
            )
            for each in kept.get("inputs", ())
        ),
        "seen": seen
        and Seen(utc(seen.first), seen.first_run, utc(seen.last), seen.attempts, seen.runs),
    }


def try_of(row: AttemptRow) -> Try:
    """Return what is told of an attempt."""
    error = row.error
    kept = error.evidence if error is not None else Kept()
    where = Where(
        kept.get("host", ""),
        kept.get("pid", 0),
        kept.get("node_id", ""),
        kept.get("worker_id", ""),
    )
    took = seconds_between(row.started, row.ended, row.state)
    failed = error is not None
    return Try(
        row.attempt,
        row.state,
        error.failure_class if error is not None else None,
        error.kind if error is not None else "",
        utc(row.started),
        took,
        where,
        describe_error(error) if error is not None else "",
        row.stop_reason or (TRIED_AGAIN if failed else ""),
        kept.get("asked", {}),
    )


def _before_fallback(attempts: Sequence[AttemptRow]) -> Try | None:
    """Return the attempt after which a fallback was called that failed, or None."""
    before = next((row for row in attempts if row.stop_reason.endswith(FELL_BACK)), None)
    failed = before is not None and attempts[-1] is not before and attempts[-1].error is not None
    return try_of(before) if failed and before is not None else None


def _some(attempts: Sequence[AttemptRow]) -> Sequence[AttemptRow]:
    if len(attempts) <= MOST_ATTEMPTS:
        return attempts
    half = MOST_ATTEMPTS // 2
    return [*attempts[:half], *attempts[-half:]]


def evidence_of(kept: Kept) -> Iterator[Evidence]:
    """Yield what is known beside the exception, each with its name."""
    if "exit_code" in kept:
        yield Evidence("exit code", str(kept["exit_code"]))
    if "signal" in kept:
        yield Evidence("signal", kept["signal"])
    if "used_bytes" in kept or "allowed_bytes" in kept:
        yield Evidence("memory", _memory(kept))
    if "death_reason" in kept:
        yield Evidence("death reason", _death_reason(kept["death_reason"]))
    if kept.get("node_id"):
        yield Evidence("node", kept["node_id"])
    if "fatal_error" in kept:
        yield Evidence("Python's last words", kept["fatal_error"])
    retry = kept.get("retry", {})
    if retry.get("reason"):
        yield Evidence("retry_on", retry["reason"])


def _death_reason(text: str) -> str:
    """Return the line of Ray's account of a kill for memory that tells why it chose this worker."""
    return next((line for line in text.splitlines() if OOM_REASON in line), text).strip()


def _memory(kept: Kept) -> str:
    used, allowed = kept.get("used_bytes"), kept.get("allowed_bytes")
    parts = [
        f"{used / _GIB:.2f} GiB in use" if used is not None else "",
        f"{allowed / _GIB:.2f} GiB allowed" if allowed is not None else "",
    ]
    return ", ".join(filter(None, parts))


def _case(kind: Kind, error: ErrorInfo, attempts: int, options: Any) -> Case:
    return Case(
        error.failure_class,
        error.kind,
        error_type(error),
        error.message,
        error.evidence.get("signal", ""),
        "exit_code" in error.evidence and "signal" not in error.evidence,
        attempts,
        kind.count,
        kind.group.size if kind.group.mapped else 0,
        kind.victims.total() - kind.victims[kind.group.task],
        options,
    )


def _by_task(reader: "Reader", run: "RunView", kind: Kind) -> dict[str, int]:
    if len(kind.by_group) == 1:
        return {kind.group.task: kind.count}
    tasks = {group.id: group.task for group in reader.groups(run)}
    counts: dict[str, int] = {}
    for group, number in kind.by_group.items():
        counts[tasks[group]] = counts.get(tasks[group], 0) + number
    return counts


def _ended(reader: "Reader", run: "RunView", task_run: "TaskRunView | None") -> int:
    if task_run is not None and task_run.ended:
        return task_run.ended
    return reader.last_told(run) if run.lost else run.ended


def _node(error: ErrorInfo | None) -> str:
    """Return the id of the node that an attempt failed on, or "" where it is not known."""
    return error.evidence.get("node_id", "") if error is not None else ""


def _minute(end: int) -> tuple[int, int]:
    return end - BEFORE_SECONDS * 10**9, end


def _before(
    reader: "Reader", run: "RunView", key: str, end: int, nodes: Collection[str]
) -> tuple[Happening, ...]:
    """Return what happened in the minute before: what raysched said, and crashes.

    Those of other runs are told if they were on one of these nodes.
    """
    if not end:
        return ()
    since, until = _minute(end)
    said = reader.logs_between(run, since, until, logger=ENGINE_LOGGER, limit=MOST_HAPPENINGS)
    found = [(row.at, run.id, run.flow, row.key, row.message) for row in said]
    for crash in reader.crashes(since, until, limit=MOST_HAPPENINGS):
        error = crash.attempt.error
        same = (crash.run, crash.key) == (run.id, key)
        if same or (crash.run != run.id and _node(error) not in nodes):
            continue
        text = describe_error(error) if error is not None else StateType.CRASHED.name
        found.append((crash.attempt.ended, crash.run, crash.flow, crash.key, text))
    found.sort(key=lambda each: each[0])
    return tuple(Happening(utc(at), *rest) for at, *rest in found[-MOST_HAPPENINGS:])
