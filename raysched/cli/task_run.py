"""`raysched show RUN --task KEY`: one task run, with its attempts."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from raysched.cli.output import duration, local_time, say
from raysched.cli.records import error_record, task_run_record
from raysched.cli.summary import print_task_run
from raysched.cli.why_records import attempt_record
from raysched.cli.why_text import print_attempts, print_facts
from raysched.cli.why_words import plain
from raysched.client import Run, TaskRun
from raysched.client.why_details import evidence_of, try_of
from raysched.model.ids import SHORT_ID
from raysched.model.records import Kept
from raysched.model.rows import AttemptRow
from raysched.model.states import SUCCESSES
from raysched.model.values import Evidence

MOST_TRACEBACKS = 3
"""Tracebacks that people see: of attempts that failed in different ways, the last ones."""

MOST_TRACEBACK_LINES = 30


def history_record(task_run: TaskRun) -> dict[str, Any]:
    """Return a task run with its attempts, each with its error."""
    history = [
        attempt_record(try_of(row)) | {"error": error_record(row.error)} for row in task_run.history
    ]
    return task_run_record(task_run) | {"history": history}


def show_task_run(run: Run, task_run: TaskRun) -> None:
    """Print how a task run ended, its attempts with what is known of them, and tracebacks."""
    print_task_run(run, task_run)
    history = task_run.history
    facts = list(_facts(task_run, history))
    if facts:
        say()
        print_facts(facts)
    print_attempts([try_of(row) for row in history])
    _print_tracebacks(history)
    if task_run.error is not None:
        say()
        command = f"raysched why {run.id[:SHORT_ID]} {shlex.quote(task_run.key)}"
        say(("why   ", "dim"), command)


def _facts(task_run: TaskRun, history: Sequence[AttemptRow]) -> Iterator[tuple[str, str]]:
    """Yield what is known of a task run beside its attempts, each with its name."""
    # What stopped the retries stands in the table already.
    stopped = {row.stop_reason for row in history}
    evidence = task_run.error.evidence if task_run.error is not None else Evidence()
    for each in evidence_of(evidence):
        if each.text not in stopped:
            yield each.name, each.text
    if inputs := evidence.get("inputs"):
        lines = [f"{each.get('name', '')} = {each.get('preview', '')}" for each in inputs]
        yield "inputs", "\n".join(lines)
    if not history and task_run.started is not None:
        yield "started", local_time(task_run.started)
        if task_run.seconds is not None:
            yield "took", duration(task_run.seconds)
    if task_run.kept is Kept.STORED:
        yield "value", task_run.location
    elif task_run.state.type in SUCCESSES and task_run.kept is Kept.NOTHING:
        yield "value", "not kept"
    if task_run.tags:
        yield "tags", ", ".join(task_run.tags)


def _print_tracebacks(history: Sequence[AttemptRow]) -> None:
    """Print the traceback of the last one of the attempts that failed alike."""
    last: dict[tuple[str, str], tuple[int, str]] = {}
    for row in history:
        if row.error is not None and row.error.traceback:
            alike = row.error.type, row.error.fingerprint
            last.pop(alike, None)
            last[alike] = row.attempt, row.error.traceback
    for attempt, traceback in list(last.values())[-MOST_TRACEBACKS:]:
        lines = plain(traceback).splitlines()
        if len(lines) > MOST_TRACEBACK_LINES:
            half = MOST_TRACEBACK_LINES // 2
            left_out = len(lines) - 2 * half
            lines = [*lines[:half], f"  … {left_out} lines left out …", *lines[-half:]]
        say()
        say((f"traceback of attempt {attempt}", "bold"))
        for line in lines:
            say((line, "dim"))
