"""Runs as JSON: the shapes that docs/json.md promises."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from raysched.client import (
    OWN_FAILURES,
    EventView,
    GroupPlan,
    LogView,
    Run,
    TaskRun,
    error_type,
    utc,
)
from raysched.model.records import Kept
from raysched.model.values import ErrorInfo

KEPT = {Kept.NOTHING: None, Kept.INLINE: "database", Kept.STORED: "storage"}

MOST_FAILURES = 100
"""Failures in the record that `raysched run --json` prints."""


def run_record(run: Run, *, failures: bool = False) -> dict[str, Any]:
    """Return a flow run; with `failures` also the first task runs that failed themselves."""
    record: dict[str, Any] = {
        "id": run.id,
        "flow": run.flow,
        "name": run.name,
        "state": run.state.type.name,
        "message": run.message,
        "started": iso(run.started),
        "ended": iso(run.ended),
        "tasks": {state.name: count for state, count in run.counts.items()},
        "parameters": run.parameters,
        "tags": list(run.tags),
        "key": run.key or None,
        "run_count": run.run_count,
        "rerun_of": run.rerun_of or None,
        "parent": run.parent or None,
        "target": run.target or None,
        "backend": run.backend or None,
        "versions": run.versions,
        "error": error_record(run.error),
        "late": run.late,
        "trace_id": run.trace.trace_id or None,
    }
    if failures:
        found = run.task_runs(states=OWN_FAILURES, limit=MOST_FAILURES)
        record["failures"] = [task_run_record(task_run) for task_run in found]
    return record


def task_run_record(task_run: TaskRun) -> dict[str, Any]:
    """Return a task run."""
    return {
        "name": task_run.task,
        "key": task_run.key,
        "index": task_run.index,
        "task_run_name": task_run.name,
        "state": task_run.state.type.name,
        "attempts": task_run.attempts,
        "started": iso(task_run.started),
        "ended": iso(task_run.ended),
        "error": error_record(task_run.error),
        "roots": list(task_run.roots),
        "handled": task_run.handled,
        "reason": task_run.reason,
        "rolled_back": task_run.rolled_back,
        "kept": KEPT[task_run.kept],
        "location": task_run.location or None,
    }


def plan_record(group: GroupPlan) -> dict[str, Any]:
    """Return how a group of task runs was planned."""
    return {
        "group": group.group,
        "name": group.task,
        "first": group.first,
        "size": group.size,
        "mapped": group.mapped,
        "parent_key": group.parent_key or None,
        "scheduling_class": dict(group.scheduling_class),
        "cut": group.cut.value,
        "unit_size": group.unit_size,
        "overlapping": group.overlapping,
        "max_parallel": group.max_parallel,
        "fused_behind": group.fused_behind,
        "units": group.units,
        "notes": list(group.notes),
    }


def log_record(run: Run, row: LogView) -> dict[str, Any]:
    """Return a log record of a run."""
    return {
        "run": run.id,
        "flow": run.flow,
        "time": iso(utc(row.at)),
        "level": logging.getLevelName(row.level),
        "logger": row.logger,
        "key": row.key or None,
        "attempt": row.attempt,
        "message": row.message,
    }


def event_record(run: Run, event: EventView) -> dict[str, Any]:
    """Return what happened to the cluster while a run was open."""
    return {
        "run": run.id,
        "time": iso(utc(event.at)),
        "kind": event.kind.value,
        "message": event.message,
        "attributes": event.attributes,
    }


def iso(moment: datetime | None) -> str | None:
    """Return a moment in UTC as ISO 8601 with microseconds, or None."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z" if moment else None


def error_record(error: ErrorInfo | None) -> Mapping[str, Any] | None:
    """Return what is known of a failure, or None where there is none."""
    if error is None:
        return None
    return {
        "type": error_type(error),
        "message": error.message,
        "traceback": error.traceback,
        "class": error.failure_class.value,
        "kind": error.kind,
        "fingerprint": error.fingerprint or None,
        "evidence": error.evidence,
    }
