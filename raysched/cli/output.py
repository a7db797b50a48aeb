"""What every command prints with: the console, words for times and counts, JSON."""

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from rich.console import Console
from rich.text import Text

from raysched.model.states import StateType

STYLES: Mapping[StateType, str] = {
    StateType.SCHEDULED: "dim",
    StateType.PENDING: "dim",
    StateType.RUNNING: "blue",
    StateType.AWAITING_RETRY: "yellow",
    StateType.PAUSED: "yellow",
    StateType.CANCELLING: "yellow",
    StateType.COMPLETED: "green",
    StateType.CACHED: "cyan",
    StateType.SKIPPED: "dim",
    StateType.FAILED: "red",
    StateType.TIMED_OUT: "red",
    StateType.CRASHED: "bold red",
    StateType.UPSTREAM_FAILED: "magenta",
    StateType.CANCELLED: "yellow",
}

LEVEL_STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}

DEFAULT_LIMIT = 20
"""Rows of a list that people see without --limit."""

NANOSECOND = 1e-9

EPSILON = 1e-6
"""So that 0.29 s, which is a little less in binary, does not become 0.28 s."""

_MINUTE, _HOUR = 60, 3600
_THOUSAND, _MILLION, _BILLION = 10**3, 10**6, 10**9
_LONGEST_EXACT = 99_999
"""Counts up to here are written out."""


@cache
def console(*, stderr: bool = False) -> Console:
    """Return the console of this process: users' text is printed as it is, never as markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(*parts: str | Text | tuple[str, str], stderr: bool = False) -> None:
    """Print one line of text, styled by (text, style) pairs, without breaking it."""
    console(stderr=stderr).print(Text.assemble(*parts), soft_wrap=True)


def state_text(state: StateType) -> Text:
    """Return the state's name in its colour."""
    return Text(state.name, STYLES[state])


def duration(seconds: float) -> str:
    """Return a time span for people: `0.42 s`, `12.3 s`, `2 min 05 s`, `1 h 03 min`."""
    # Rounded down, so that there are never 60 seconds or minutes.
    hundredths = int(max(seconds, 0) * 100 + EPSILON)
    whole = hundredths // 100
    if whole == 0:
        return f"{hundredths / 100:.2f} s"
    if whole < _MINUTE:
        return f"{hundredths // 10 / 10:.1f} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"


def count(number: int) -> str:
    """Return a count in few characters: `99,999`, `412k`, `1.25M`."""
    if number <= _LONGEST_EXACT:
        return f"{number:,}"
    if number < _MILLION:
        return f"{number // _THOUSAND}k"
    if number < _BILLION:
        # Rounded down, so that nothing looks done before it is.
        return f"{number // (_MILLION // 100) / 100:.2f}M"
    return f"{number // (_BILLION // 100) / 100:.2f}G"


def noun(number: int, word: str) -> str:
    """Return `1 task run` or `3 task runs`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def local_time(moment: datetime | None) -> str:
    """Return a moment in the machine's time zone, to the second, or a dash."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}" if moment else "-"


def log_text(at: int, level: int, source: str, message: str, *, date: bool = False) -> Text:
    """Return a log record as a line.

    Args:
        at: When (ns since the epoch).
        level: `logging` level number.
        source: The task run, or the flow.
        message: The message.
        date: Whether the day is told, too.
    """
    moment = datetime.fromtimestamp(at * NANOSECOND, UTC).astimezone()
    name = logging.getLevelName(level)
    style = LEVEL_STYLES.get(name, "")
    return Text.assemble(
        (f"{moment:%Y-%m-%d %H:%M:%S} " if date else f"{moment:%H:%M:%S} ", "dim"),
        (f"{name:7} ", style),
        (f"{source} ", "cyan"),
        (message, style),
    )


def short_time(moment: datetime | None) -> str:
    """Return a moment in the machine's time zone for a list: with the time, or with the year."""
    if moment is None:
        return "-"
    local = moment.astimezone()
    return (
        f"{local:%b %d %H:%M:%S}" if local.year == datetime.now(UTC).year else f"{local:%Y-%m-%d}"
    )


def print_json(value: Any) -> None:
    """Print one JSON document."""
    _write(_json(value, indent=2) + "\n")


def print_json_lines(items: Iterable[Any]) -> None:
    """Print each item as a line of JSON, at once."""
    for item in items:
        _write(_json(item) + "\n")


def print_json_list(items: Iterable[Any], head: Mapping[str, Any] | None = None) -> None:
    """Print a JSON list, one item a line, as the items come: it may be longer than memory.

    Args:
        items: The items.
        head: The rest of an object in which the list stands as `task_runs`.
    """
    before, after = "[", "]\n"
    if head is not None:
        before, after = _json(head, indent=2)[: -len("\n}")] + ',\n  "task_runs": [', "]\n}\n"
    _write(before)
    separator = "\n"
    for item in items:
        _write(f"{separator}  {_json(item)}")
        separator = ",\n"
    _write(after if separator == "\n" else f"\n{after}")


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, default=str)


def _write(text: str) -> None:
    # Not by the console: programs read it, and it must not be folded.
    sys.stdout.write(text)
    sys.stdout.flush()
