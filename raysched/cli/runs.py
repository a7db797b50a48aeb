"""`raysched runs`."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from rich.table import Table
from rich.text import Text

from raysched.cli.output import (
    DEFAULT_LIMIT,
    STYLES,
    console,
    count,
    duration,
    print_json_list,
    say,
    short_time,
    state_text,
)
from raysched.cli.records import run_record
from raysched.client import Run, get_runs
from raysched.errors import UsageError
from raysched.model.ids import SHORT_ID
from raysched.model.states import StateType

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def list_runs(
    states: tuple[StateType, ...],
    flow: str | None,
    since: str | None,
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    """Print flow runs, the newest first.

    Args:
        states: Only runs in one of these states, or of any state if empty.
        flow: Only runs of the flow of that name.
        since: Only runs that started then or later, see `parse_since`.
        limit: At most so many, 0 for all, None for a screenful (as JSON: all).
        as_json: Whether to print a JSON list.
    """
    start = None if since is None else parse_since(since, datetime.now(UTC))
    most = limit or None if limit is not None or as_json else DEFAULT_LIMIT
    # One more tells whether there are more.
    runs = get_runs(states=states, flow=flow, since=start, limit=most and most + 1)
    if as_json:
        print_json_list(run_record(run) for run in runs[:most])
        return
    if not runs:
        filtered = states or flow or since
        say("No such runs." if filtered else "No runs yet. Start one: raysched run flow.py")
        return
    console().print(_table(runs[:most]))
    if most is not None and len(runs) > most:
        say(("… and more (--limit 0 for all)", "dim"))


def parse_since(text: str, now: datetime) -> datetime:
    """Return the moment that `30m`, `12h`, `7d`, a date or a time means.

    A time without a zone is local.

    Raises:
        UsageError: It means nothing.
    """
    if match := re.fullmatch(r"(\d+)\s*([smhdw])", text.strip()):
        return now - timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise UsageError(
            f"--since {text}: give 30m, 12h, 7d, 2026-11-20 or 2026-11-20T08:00"
        ) from error


def _table(runs: list[Run]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("run", no_wrap=True)
    table.add_column("flow", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("started", no_wrap=True)
    table.add_column("took", no_wrap=True, justify="right")
    table.add_column("task runs", overflow="fold")
    for run in runs:
        ended = run.ended or (None if run.state.type.is_terminal else datetime.now(UTC))
        took = duration((ended - run.started).total_seconds()) if run.started and ended else ""
        table.add_row(
            Text(run.id[:SHORT_ID], "cyan"),
            run.flow,
            state_text(run.state.type),
            short_time(run.started),
            took,
            _counts(run.counts),
        )
    return table


def _counts(counts: Mapping[StateType, int]) -> Text:
    """Return `36` where all went well, otherwise `36: 1 failed, 3 upstream failed`."""
    text = Text(count(sum(counts.values())))
    separator = ": "
    for state, number in counts.items():
        if state is not StateType.COMPLETED:
            text.append(separator)
            text.append(f"{count(number)} {state.name.lower().replace('_', ' ')}", STYLES[state])
            separator = ", "
    return text
