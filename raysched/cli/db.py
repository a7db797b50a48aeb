"""`raysched db`: what is kept, and what is not kept any longer."""

import re
from datetime import timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from raysched.cli.output import (
    STYLES,
    console,
    count,
    noun,
    print_json,
    say,
    short_time,
)
from raysched.cli.records import iso
from raysched.cli.runs import UNITS
from raysched.cli.why_words import size_text
from raysched.client import utc
from raysched.client.housekeeping import Figures, Pruned, figures, prune, upgrade
from raysched.errors import UsageError
from raysched.model.ids import SHORT_ID

SHOWN = 10
"""Runs that a dry run names."""


def upgrade_database(*, as_json: bool) -> None:
    """Bring the schema up to date, and say what was done."""
    done = upgrade()
    if as_json:
        print_json({"database": done.database, "before": done.before or None, "after": done.after})
    elif not done.before:
        say(f"Made {done.database} (schema {done.after}).")
    elif done.before == done.after:
        say(f"Nothing to do: {done.database} has schema {done.after}.")
    else:
        say(f"Upgraded {done.database} from schema {done.before} to {done.after}.")


def show_stats(*, as_json: bool) -> None:
    """Print what is kept, and what it takes."""
    found = figures()
    if as_json:
        print_json(_stats_record(found))
        return
    stats = found.stats
    free = f", {size_text(stats.free)} of it free for later runs" if stats.free else ""
    _line("database", f"{found.database} (schema {stats.schema})")
    _line("size", f"{size_text(stats.bytes)}{free}")
    _line("runs", _runs(found))
    _line("task runs", f"{stats.task_runs:,}{_each(found)}")
    if found.problem:
        _line("results", Text(f"{found.storage} cannot be read: {found.problem}", "yellow"))
    else:
        objects = f"{noun(found.objects, 'object')}, {size_text(found.object_bytes)}"
        _line("results", f"{objects} in {found.storage}")
    say()
    console().print(_tables(found))


def prune_runs(older_than: str | None, *, dry_run: bool, as_json: bool) -> int:
    """Remove old runs, or say which; return the exit code."""
    age = None if older_than is None else parse_age(older_than)
    pruned = prune(age, dry_run=dry_run)
    if as_json:
        print_json(_pruned_record(pruned, dry_run=dry_run))
    else:
        _print_pruned(pruned, dry_run=dry_run)
    for problem in pruned.problems:
        say(("not removed: ", "bold red"), problem, stderr=True)
    return 1 if pruned.problems else 0


def parse_age(text: str) -> timedelta:
    """Return the time that `30d` means.

    Raises:
        UsageError: It means nothing.
    """
    match = re.fullmatch(r"(\d+)\s*([smhdw])", text.strip())
    if match is None:
        raise UsageError(f"--older-than {text}: give an age such as 12h, 30d or 8w")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def _line(name: str, value: str | Text) -> None:
    say((f"{name:<10} ", "dim"), value)


def _each(found: Figures) -> str:
    stats = found.stats
    if not stats.task_runs:
        return ""
    size = (stats.bytes - stats.free) / stats.task_runs
    return f", {size:,.0f} bytes each with all that is kept of them"


def _runs(found: Figures) -> Text:
    stats = found.stats
    text = Text(f"{sum(stats.runs.values()):,}")
    separator = ": "
    for state, number in sorted(stats.runs.items()):
        text.append(separator)
        text.append(f"{count(number)} {state.name.lower().replace('_', ' ')}", STYLES[state])
        separator = ", "
    if stats.subflows:
        text.append(f"; and {noun(stats.subflows, 'subflow')}")
    return text


def _tables(found: Figures) -> Table:
    stats = found.stats
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("table", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("a task run", justify="right", no_wrap=True)
    largest = sorted(stats.rows, key=lambda name: (-stats.tables.get(name, 0), name))
    for name in largest:
        size = stats.tables.get(name)
        table.add_row(
            name,
            f"{stats.rows[name]:,}",
            "" if size is None else size_text(size),
            f"{size / stats.task_runs:,.1f} bytes" if size and stats.task_runs else "",
        )
    return table


def _print_pruned(pruned: Pruned, *, dry_run: bool) -> None:
    if not pruned.runs:
        say("Nothing to remove.")
        return
    subflows = f" (and {noun(pruned.subflows, 'subflow')})" if pruned.subflows else ""
    objects = ""
    if pruned.objects:
        size = size_text(pruned.object_bytes)
        objects = f", {noun(pruned.objects, 'object')} of results ({size})"
    task_runs = noun(pruned.task_runs, "task run")
    verb = "Would remove" if dry_run else "Removed"
    say(f"{verb} {noun(len(pruned.runs), 'run')}{subflows}, {task_runs}{objects}.")
    if pruned.given_back > 0:
        say(f"The database is {size_text(pruned.given_back)} smaller.")
    if dry_run:
        for run in pruned.runs[:SHOWN]:
            say("  ", (run.id[:SHORT_ID], "cyan"), f"  {run.flow}, {short_time(utc(run.ended))}")
        if len(pruned.runs) > SHOWN:
            say((f"  … and {len(pruned.runs) - SHOWN:,} more (--json lists all)", "dim"))


def _stats_record(found: Figures) -> dict[str, Any]:
    stats = found.stats
    return {
        "database": found.database,
        "schema": stats.schema,
        "bytes": stats.bytes,
        "free_bytes": stats.free,
        "runs": {state.name: number for state, number in sorted(stats.runs.items())},
        "subflows": stats.subflows,
        "task_runs": stats.task_runs,
        "tables": {
            name: {"rows": rows, "bytes": stats.tables.get(name)}
            for name, rows in stats.rows.items()
        },
        "results": {
            "storage": found.storage,
            "objects": found.objects,
            "bytes": found.object_bytes,
            "problem": found.problem or None,
        },
    }


def _pruned_record(pruned: Pruned, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "runs": [
            {"id": run.id, "flow": run.flow, "ended": iso(utc(run.ended))} for run in pruned.runs
        ],
        "subflows": pruned.subflows,
        "task_runs": pruned.task_runs,
        "objects": pruned.objects,
        "object_bytes": pruned.object_bytes,
        "given_back_bytes": pruned.given_back,
        "problems": pruned.problems,
    }
