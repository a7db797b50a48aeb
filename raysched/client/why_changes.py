"""What differs between a run and the last one of the same flow that completed."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysched.client.why_facts import Change, Comparison
from raysched.client.words import utc

if TYPE_CHECKING:
    from raysched.model.rows import GroupRow
    from raysched.store.reader import Reader
    from raysched.store.views import RunView, TaskRunView

MOST_CHARACTERS = 200
"""Of a value that differs."""

LONGER = 1.5
"""Durations differ from this factor on, up or down."""

SHORTEST = 1.0
"""Durations below this do not differ (seconds)."""

NOT_KEPT = "the code: no hash of it is kept, so a change of a module is not seen here"


def compare(reader: "Reader", run: "RunView", failed: "TaskRunView | None") -> Comparison | None:
    """Return what differs from the last success, or None if there was none before.

    Args:
        reader: Where the runs are kept.
        run: The run.
        failed: The task run that failed first, whose duration and options are compared, or None.
    """
    last = reader.last_completed(run)
    if last is None:
        return None
    changes = [
        *_values("parameter", json.loads(last.parameters), json.loads(run.parameters)),
        *_values("version of", json.loads(last.versions), json.loads(run.versions)),
        *_different("target", last.target, run.target),
        *_different("backend", last.backend, run.backend),
        *_file(last, run),
    ]
    if failed is not None:
        changes += _task(reader, run, last, failed)
    return Comparison(last.id, utc(last.ended), tuple(changes), (NOT_KEPT,))


def _values(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *now)):
        then, here = (_text(each, name) for each in (before, now))
        if then != here:
            yield Change(f"{what} {name}", then, here)


def _text(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "(none)"
    text = json.dumps(values[name], ensure_ascii=False)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def _different(what: str, before: str, now: str) -> Iterator[Change]:
    if before != now and before and now:
        yield Change(what, before, now)


def _file(last: "RunView", run: "RunView") -> Iterator[Change]:
    """Tell of a flow's file that was changed between the two runs, or since."""
    path = Path(run.target.rpartition(":")[0])
    try:
        changed = path.stat().st_mtime_ns if path.suffix == ".py" else 0
    except OSError:
        return
    if changed > last.started:
        moment = datetime.fromtimestamp(changed / 10**9).astimezone()
        yield Change(path.name, "", f"changed {moment:%Y-%m-%d %H:%M:%S}, after that run began")


def _task(
    reader: "Reader", run: "RunView", last: "RunView", failed: "TaskRunView"
) -> Iterator[Change]:
    success = reader.last_success(run, failed.task, failed.index)
    if success is not None:
        _, before = success
        then, now = ((each.ended - each.started) / 10**9 for each in (before, failed))
        if failed.started and max(then, now) >= max(SHORTEST, min(then, now) * LONGER):
            yield Change(f"duration of {failed.task}", f"{then:.2f} s", f"{now:.2f} s")
    then_group, now_group = (_group(reader, each, failed.task) for each in (last, run))
    if then_group is None or now_group is None:
        return
    yield from _values(
        f"{failed.task}:", json.loads(then_group.options), json.loads(now_group.options)
    )
    if then_group.size != now_group.size:
        yield Change(f"task runs of {failed.task}", f"{then_group.size:,}", f"{now_group.size:,}")


def _group(reader: "Reader", run: "RunView", task: str) -> "GroupRow | None":
    return next((group for group in reader.groups(run) if group.task == task), None)
