"""`raysched trace`: a run as a waterfall, as OTLP JSON, or on its way to a collector."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from raysched.cli.output import console, noun, print_json, say
from raysched.cli.summary import print_outcome, print_trace
from raysched.cli.trace_picture import print_critical_path, print_waterfall
from raysched.client import Run, get_run, get_unsent_runs
from raysched.client.delivery import destination
from raysched.client.trace import Sent
from raysched.errors import UsageError
from raysched.model.ids import SHORT_ID

FAILURE = 1

DEFAULT_LINES = 40
"""Lines of a waterfall that people see without --limit."""


def draw(text: str, execution: int | None, limit: int | None) -> None:
    """Print what happened when in a run, and what determined its duration.

    Args:
        text: RUN.
        execution: Number of the execution, or None for the last one.
        limit: At most so many lines, 0 for all, None for a screenful.

    Raises:
        UsageError: There is no such execution.
        RunNotFound: No run, or more than one, matches.
    """
    run = get_run(text)
    drawn = run.trace.waterfall(execution)
    print_outcome(run)
    if run.parent:
        say(("part of ", "dim"), run.parent, (": this is its trace", "dim"))
    if drawn.executions > 1:
        say(("execution ", "dim"), f"{drawn.number} of {drawn.executions}")
    say()
    print_waterfall(
        drawn.lines, drawn.start, drawn.end, DEFAULT_LINES if limit is None else limit or None
    )
    say()
    print_critical_path(drawn.path)
    print_trace(drawn)


def write(text: str, output: Path | None) -> None:
    """Write a run as OTLP JSON, to a file or standard output.

    Raises:
        UsageError: The file cannot be written.
        RunNotFound: No run, or more than one, matches.
    """
    run = get_run(text)
    if output is None:
        sys.stdout.write(run.trace.otlp_json() + "\n")
        return
    try:
        output.write_text(run.trace.otlp_json(), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}") from error
    say(f"{output} written")


def send(text: str, endpoint: str, *, as_json: bool) -> int:
    """Send a run to a collector, and tell what has arrived; return the exit code.

    Args:
        text: RUN, or "" for all runs whose traces were not delivered.
        endpoint: Where to, or "" for where runs send their spans.
        as_json: Whether to print JSON.

    Raises:
        UsageError: The run goes on.
        TelemetryError: Nothing says where to.
        RunNotFound: No run, or more than one, matches.
    """
    to = destination(endpoint)
    runs: Iterable[Run] = [get_run(text)] if text else get_unsent_runs()
    sent: list[Sent] = []
    for run in runs:
        with console(stderr=True).status(f"Sending {run.flow} {run.id[:SHORT_ID]}"):
            sent.append(run.trace.send(to))
        if not as_json:
            _tell(sent[-1])
        if sent[-1].unsent:
            # It would say the same of the others.
            break
    if as_json:
        print_json([asdict(each) for each in sent])
    elif not sent:
        say("Nothing to send: the traces of all runs were delivered.")
    return FAILURE if any(each.unsent for each in sent) else 0


def _tell(sent: Sent) -> None:
    name = f"{sent.flow} {sent.run[:SHORT_ID]}"
    if sent.unsent:
        say(
            ("✘ ", "bold red"),
            f"{sent.unsent:,} of {noun(sent.spans, 'span')} of {name} were not sent: {sent.reason}",
        )
        return
    say(("✔ ", "green"), f"{noun(sent.spans, 'span')} of {name} sent to {sent.endpoint}")
    if sent.delivered:
        all_of_it = sent.delivered == sent.executions
        what = "it" if all_of_it else f"{sent.delivered} of its {sent.executions} executions"
        say(
            (f"  {what} had been delivered before: what counts spans has counted them twice", "dim")
        )
    say(("trace: ", "dim"), sent.url or sent.trace_id)
