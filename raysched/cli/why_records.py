"""Why a run ended as it did, as JSON: the shapes that docs/json.md promises."""

import logging
from typing import Any

from raysched.cli.records import error_record, iso
from raysched.client.why_driver import Loss
from raysched.client.why_facts import Cause, Comparison, Line, Part, Seen, Source, Try, Why
from raysched.client.why_held import STOPPED
from raysched.client.why_waiting import Waiting


def why_record(why: Why) -> dict[str, Any]:
    """Return why a run ended as it did."""
    return {
        "id": why.run,
        "flow": why.flow,
        "name": why.name,
        "key": why.key or None,
        "state": why.state.name,
        "message": why.message,
        "started": iso(why.started),
        "ended": iso(why.ended),
        "target": why.target or None,
        "backend": why.backend or None,
        "verdict": why.verdict,
        "cache": why.cache or None,
        "tasks": {state.name: count for state, count in why.counts.items()},
        "failures": why.failures,
        "handled": why.handled,
        "not_run": why.not_run,
        "skipped": why.skipped,
        "rolled_back": why.rolled_back,
        "kept": why.kept,
        "reasons": dict(why.reasons),
        "shortfalls": [
            {
                "name": each.task,
                "size": each.size,
                "needed": each.needed,
                "succeeded": each.succeeded,
            }
            for each in why.shortfalls
        ],
        "causes": [_cause(cause) for cause in why.causes],
        "more_causes": why.more_causes,
        "graph": _graph(why.part),
        "last_success": None if why.comparison is None else _comparison(why.comparison),
        "driver": None if why.loss is None else _loss(why.loss),
        "when_stopped": None if why.state not in STOPPED else _stopped(why),
        "next": [{"command": step.command, "purpose": step.purpose} for step in why.steps],
        "subflows": [why_record(subflow) for subflow in why.subflows],
    }


def waiting_record(waiting: Waiting) -> dict[str, Any]:
    """Return what a run waits for."""
    return {
        "id": waiting.run,
        "flow": waiting.flow,
        "state": waiting.state.name,
        "verdict": waiting.verdict,
        "waits": [
            {
                "name": wait.task,
                "key": wait.key or None,
                "count": wait.count,
                "state": wait.state.name,
                "reason": wait.reason,
                "seconds": wait.seconds,
                "ready": wait.ready,
            }
            for wait in waiting.waits
        ],
        "subflows": [waiting_record(subflow) for subflow in waiting.subflows],
    }


def _loss(loss: Loss) -> dict[str, Any]:
    return {
        "host": loss.driver.host,
        "pid": loss.driver.pid,
        "alive": iso(loss.driver.alive),
        "under_way": loss.under_way,
        "between": loss.between,
    }


def _stopped(why: Why) -> dict[str, Any]:
    return {
        "place": why.place,
        "task_runs": [
            {
                "name": each.task,
                "begun": each.begun,
                "waited": each.waited,
                "sent": each.sent,
                "between": each.between,
                "said": each.said,
                "key": each.key or None,
                "seconds": each.seconds,
                "place": each.place,
            }
            for each in why.held
        ],
    }


def _cause(cause: Cause) -> dict[str, Any]:
    return {
        "number": cause.number,
        "name": cause.task or None,
        "key": cause.key or None,
        "task_run_name": cause.name,
        "map_index": cause.map_index,
        "map_size": cause.map_size,
        "count": cause.count,
        "tasks": dict(cause.by_task),
        "keys": list(cause.keys),
        "handled": cause.handled,
        "teardown": cause.teardown,
        "not_run": dict(cause.victims),
        "state": cause.state.name,
        "error": error_record(cause.error),
        "source": None if cause.source is None else _source(cause.source),
        "attempts": [attempt_record(each) for each in cause.attempts],
        "attempts_begun": cause.attempts_begun,
        "stopped": cause.stopped,
        "stops": [
            {"reason": each.reason, "count": each.count, "key": each.key} for each in cause.stops
        ],
        "before_fallback": None
        if cause.before_fallback is None
        else attempt_record(cause.before_fallback),
        "logs": [_log(line) for line in cause.logs],
        "before": [
            {
                "time": iso(each.at),
                "run": each.run,
                "flow": each.flow,
                "key": each.key or None,
                "text": each.text,
            }
            for each in cause.before
        ],
        "seen": None if cause.seen is None else _seen(cause.seen),
        "owner": cause.owner or None,
        "runbook": cause.runbook or None,
        "advice": [
            {"rule": each.rule, "text": each.text, "code": each.code} for each in cause.advice
        ],
    }


def _seen(seen: Seen) -> dict[str, Any]:
    return {
        "first": iso(seen.first),
        "first_run": seen.first_run,
        "last": iso(seen.last),
        "attempts": seen.attempts,
        "runs": seen.runs,
    }


def _source(source: Source) -> dict[str, Any]:
    return {
        "file": source.file,
        "line": source.line,
        "function": source.function,
        "lines": [{"number": number, "text": text} for number, text in source.lines],
        "remark": source.remark,
    }


def attempt_record(each: Try) -> dict[str, Any]:
    """Return an attempt of a task run."""
    return {
        "number": each.number,
        "state": each.state.name,
        "class": None if each.failure_class is None else each.failure_class.value,
        "kind": each.kind,
        "started": iso(each.started),
        "seconds": each.seconds,
        "host": each.where.host or None,
        "pid": each.where.pid or None,
        "node_id": each.where.node_id or None,
        "worker_id": each.where.worker_id or None,
        "said": each.said,
        "decision": each.decision,
        "asked": dict(each.asked),
    }


def _log(line: Line) -> dict[str, Any]:
    return {
        "time": iso(line.at),
        "level": logging.getLevelName(line.level),
        "logger": line.logger,
        "message": line.message,
    }


def _graph(part: Part) -> dict[str, Any]:
    return {
        "groups": [
            {
                "id": node.id,
                "name": node.task,
                "first": node.first,
                "size": node.size,
                "failed": node.failed,
                "not_run": node.not_run,
            }
            for node in part.nodes
        ],
        "needs": [
            {"id": link.child, "parent": link.parent, "how": list(link.words)}
            for link in part.links
        ],
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "run": comparison.run,
        "ended": iso(comparison.ended),
        "changes": [
            {"what": change.what, "before": change.before, "now": change.now}
            for change in comparison.changes
        ],
        "unknown": list(comparison.unknown),
    }
