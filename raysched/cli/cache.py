"""`raysched cache`: what is cached, and clearing it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from raysched.cli.db import parse_age
from raysched.cli.output import (
    DEFAULT_LIMIT,
    console,
    count,
    noun,
    print_json,
    say,
    short_time,
)
from raysched.cli.records import iso
from raysched.cli.why_words import size_text
from raysched.client import utc
from raysched.client.cache import CacheEntry, cache_entries, cached_tasks, clear, uses
from raysched.errors import UsageError
from raysched.model.ids import SHORT_ID

SHORT_KEY = 12
"""Digits of a cache key that people see; any first digits, at least four, are accepted."""

_STYLES = {"kept": "green", "expired": "yellow", "being made": "blue", "none": "dim"}


def list_tasks(*, as_json: bool) -> None:
    """Print what is cached, by task."""
    tasks = cached_tasks()
    if as_json:
        print_json(
            [
                {
                    "name": each.task,
                    "entries": each.entries,
                    "kept": each.kept,
                    "bytes": each.bytes,
                    "oldest": iso(utc(each.oldest)),
                    "newest": iso(utc(each.newest)),
                }
                for each in tasks
            ]
        )
        return
    if not tasks:
        say("Nothing is cached. Tasks with a cache_policy are: @task(cache_policy=INPUTS)")
        return
    table = _table("task", "entries", "results", "size", "oldest", "newest")
    for each in tasks:
        table.add_row(
            Text(each.task, "bold"),
            count(each.entries),
            count(each.kept),
            size_text(each.bytes),
            short_time(utc(each.oldest)),
            short_time(utc(each.newest)),
        )
    console().print(table)


def show_entries(what: str, limit: int | None, *, as_json: bool) -> None:
    """Print the entries of a task, or one by its key.

    Args:
        what: Name of the task, or the first digits of the key.
        limit: At most so many, 0 for all, None for a screenful (as JSON: all).
        as_json: Whether to print a JSON list.

    Raises:
        UsageError: There is nothing like that in the cache.
    """
    most = limit or None if limit is not None or as_json else DEFAULT_LIMIT
    # One more tells whether there are more.
    entries = cache_entries(what, most and most + 1)
    shown = entries[:most]
    if as_json:
        print_json(
            [_record(entry) | ({"uses": uses(entry)} if len(shown) == 1 else {}) for entry in shown]
        )
        return
    if len(entries) == 1:
        _print_one(entries[0])
        return
    table = _table("key", "state", "result of", "size", "made", "depends on")
    for entry in shown:
        table.add_row(
            Text(entry.key[:SHORT_KEY], "cyan"),
            Text(entry.state, _STYLES[entry.state]),
            Text(_maker(entry)),
            size_text(entry.size) if entry.size else "",
            short_time(entry.ended or entry.created),
            Text(", ".join(entry.parts), "dim"),
        )
    console().print(table)
    if len(entries) > len(shown):
        say(("… and more (--limit 0 for all)", "dim"))


def clear_entries(
    what: str,
    older_than: str | None,
    *,
    all_of_them: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete entries of the cache, after asking.

    Raises:
        UsageError: It is not said which, or there is nothing like that in the cache.
    """
    if bool(what) == all_of_them and not (older_than and not what):
        raise UsageError(
            "say what to clear: a task, a key, --older-than AGE, or --all for everything"
        )
    age = None if older_than is None else parse_age(older_than)
    number = clear(what, older_than=age, dry_run=True)
    entries = noun(number, "cached result")
    if number and not dry_run and not yes:
        question = f"Forget {entries}? What runs next makes them again. [y/N] "
        if not _is_sure(question, as_json=as_json):
            say("Nothing was cleared.", stderr=as_json)
            return
    if number and not dry_run:
        number = clear(what, older_than=age)
    if as_json:
        print_json({"dry_run": dry_run, "entries": number})
    elif dry_run or not number:
        say(f"Would forget {entries}." if number else "Nothing to clear.")
    else:
        say(f"Forgot {noun(number, 'cached result')}; runs keep their results.")


def _is_sure(question: str, *, as_json: bool) -> bool:
    if as_json or not console().is_terminal:
        raise UsageError("there is nobody to ask: give --yes to clear without a question")
    return console().input(question).strip().lower() in {"y", "yes"}


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        right = name in {"entries", "results", "size"}
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "depends on")
    return table


def _print_one(entry: CacheEntry) -> None:
    used = uses(entry)
    facts: Sequence[tuple[str, str | Text]] = (
        ("key", Text(entry.key, "cyan")),
        ("task", entry.task),
        ("state", Text(entry.state, _STYLES[entry.state])),
        ("result of", _maker(entry)),
        ("made", short_time(entry.ended or entry.created)),
        ("expires", _expiry(entry)),
        ("size", size_text(entry.size) if entry.size else ""),
        ("used by", noun(used, "task run")),
    )
    for name, value in facts:
        if value:
            say((f"{name:<10} ", "dim"), value)
    say()
    say(("depends on", "dim"))
    for name, digest in entry.parts.items():
        say(f"   {name:<24} ", (digest, "dim"))


def _maker(entry: CacheEntry) -> str:
    return f"{entry.run[:SHORT_ID]}/{entry.task_run}" if entry.run else ""


def _expiry(entry: CacheEntry) -> str:
    if entry.expires is None:
        return ""
    return short_time(entry.expires) + (" (over)" if entry.expires < datetime.now(UTC) else "")


def _record(entry: CacheEntry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "name": entry.task,
        "state": entry.state,
        "run": entry.run or None,
        "task_run": entry.task_run or None,
        "created": iso(entry.created),
        "ended": iso(entry.ended),
        "expires": iso(entry.expires),
        "bytes": entry.size,
        "parts": dict(entry.parts),
    }
