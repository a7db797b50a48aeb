"""What is known about a failure, in words: for the terminal and for the page."""

from collections.abc import Mapping
from pathlib import Path

from raysched.cli.output import duration, local_time, noun
from raysched.client.shortfalls import Shortfall
from raysched.client.why_driver import LostDriver
from raysched.client.why_facts import Cause, Change, Where, Why
from raysched.model.ids import SHORT_ID
from raysched.model.states import StateType
from raysched.model.values import FailureClass, Frame

BLAME = {
    FailureClass.USER: "user: your own code",
    FailureClass.TIMEOUT: "timeout: a limit of time",
    FailureClass.INFRASTRUCTURE: "infrastructure: what carried it broke",
    FailureClass.UPSTREAM: "upstream: another one failed before it",
    FailureClass.CANCELLED: "cancelled: somebody stopped it",
}
"""Who is to blame, in words."""

IN_BYTES = ("memory", "object_store_memory")
"""Options of Ray that are amounts of bytes."""

_STEP = 1024


def plain(text: str) -> str:
    """Return text without what would command a terminal: control characters are shown as such."""
    return "".join(
        each if each in "\n\t" or each.isprintable() else ascii(each)[1:-1] for each in text
    )


def where_text(where: Where) -> str:
    """Return where an attempt ran: `host, pid 4711, node 3f9c0a12`."""
    parts = [
        where.host,
        f"pid {where.pid}" if where.pid else "",
        f"node {where.node_id[:SHORT_ID]}" if where.node_id else "",
    ]
    return ", ".join(filter(None, parts))


def asked_text(asked: Mapping[str, str]) -> str:
    """Return what an attempt asked Ray for: `memory 2 GiB, num_cpus 4`."""
    return ", ".join(f"{name} {_amount(name, value)}" for name, value in asked.items())


def _amount(name: str, value: str) -> str:
    """Return a quantity for people: Ray's memory is in bytes."""
    try:
        size = float(value) if name in IN_BYTES else None
    except ValueError:
        size = None
    return value if size is None else size_text(size)


def size_text(size: float) -> str:
    """Return a size in bytes for people: `512 bytes`, `1.5 KiB`, `2 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < _STEP:
            return f"{size:.4g} {unit}"
        size /= _STEP
    return f"{size:.4g} GiB"


def blame_text(cause: Cause) -> str:
    """Return class and kind in words."""
    kind = f" ({cause.kind})" if cause.kind else ""
    return f"{BLAME[cause.failure_class]}{kind}"


def status_text(cause: Cause) -> str:
    """Return what there is to say beside its state."""
    parts = [
        "by its fallback" if cause.state is StateType.COMPLETED and cause.handled else "",
        f"after {noun(cause.attempts_begun, 'attempt')}" if cause.attempts_begun > 1 else "",
        f"map index {cause.map_index:,} of {cause.map_size:,}"
        if cause.map_index is not None
        else "",
        handled_text(cause),
        "a teardown, which does not make the run fail" if cause.teardown else "",
    ]
    return ", ".join(filter(None, parts))


def before_fallback_text(cause: Cause) -> str:
    """Return what a fallback that failed was called for, or ""."""
    before = cause.before_fallback
    if before is None:
        return ""
    return f"its fallback failed so; called after attempt {before.number}: {before.said}"


def stopped_text(cause: Cause) -> str:
    """Return why retrying stopped, where its message does not say it; each reason is a line."""
    if not cause.stops:
        return "" if cause.stopped == cause.message else cause.stopped
    return "\n".join(f"{each.count:,} ({each.key}): {each.reason}" for each in cause.stops)


def frame_text(frame: Frame) -> str:
    """Return where code was: `flow.py:87 in load  rows = db.execute(`."""
    place = f"{shown_path(frame['file'])}:{frame['line']} in {frame['function']}"
    return f"{place}  {frame['code']}" if frame["code"] else place


def shortfall_text(missed: Shortfall) -> str:
    """Return what a map has missed: `3 of 4 succeeded, and min_success asks for 4`."""
    succeeded = f"{missed.succeeded:,} of {missed.size:,} succeeded"
    return f"{succeeded}, and min_success asks for {missed.needed:,}"


def held_facts(why: Why) -> list[tuple[str, str]]:
    """Return what a run was at when it was stopped: the flow function, then each task."""
    told = [("the flow function", frame_text(why.place))] if why.place is not None else []
    for held in why.held:
        lines = []
        if held.begun:
            place = f", at {frame_text(held.place)}" if held.place is not None else ""
            lines.append(
                f"{held.begun:,} under way: {held.key} for {duration(held.seconds)}{place}"
                if held.begun == 1
                else f"{held.begun:,} under way, {held.key} for longest, "
                f"{duration(held.seconds)}{place}"
            )
        if held.between:
            first = next(iter(held.said.splitlines()), "")
            lines.append(f"{held.between:,} between two attempts, after {first}")
        if held.sent:
            lines.append(f"{held.sent:,} may have begun: dispatched, and no start is known")
        if held.waited:
            lines.append(f"{held.waited:,} had not begun")
        told.append((held.task, "\n".join(lines)))
    return told


def handled_text(cause: Cause) -> str:
    """Return whether the flow handled it, or ""."""
    if not cause.handled:
        return ""
    if cause.handled == cause.count:
        return "handled by the flow"
    return f"{cause.handled:,} of them handled by the flow"


def driver_text(driver: LostDriver) -> str:
    """Return which process died, and when: `worker-7, pid 4711, last known alive 2026-…`."""
    where = where_text(Where(driver.host, driver.pid))
    return f"{where}, last known alive {local_time(driver.alive)}"


def alike_text(cause: Cause) -> str:
    """Return how many others are like it, or ""."""
    if cause.count == 1:
        return ""
    others = ", ".join(cause.keys[1:])
    more = ", …" if cause.count > len(cause.keys) else ""
    tasks = ", ".join(f"{task} {count:,}" for task, count in cause.by_task.items())
    by_task = f" ({tasks})" if len(cause.by_task) > 1 else ""
    return f"and {cause.count - 1:,} more like it{by_task}: {others}{more}"


def victims_text(cause: Cause) -> str:
    """Return what did not run because of it, or ""."""
    number = sum(cause.victims.values())
    tasks = ", ".join(f"{task} {count:,}" for task, count in cause.victims.items())
    return f"{noun(number, 'task run')} did not run: {tasks}" if number else ""


def change_text(change: Change) -> str:
    """Return what differs: `20 → 30`."""
    return f"{change.before} → {change.now}" if change.before else change.now


def seen_text(cause: Cause, run: str) -> str:
    """Return how often it was seen, or ""; `run` is the id of the run that is told."""
    seen = cause.seen
    if seen is None:
        return ""
    if seen.first_run == run and seen.runs == 1:
        return f"for the first time, by {noun(seen.attempts, 'attempt')} of this run"
    return (
        f"{noun(seen.attempts, 'failed attempt')} in {noun(seen.runs, 'run')}, first "
        f"{local_time(seen.first)} in run {seen.first_run[:SHORT_ID]}"
    )


def shown_path(file: str) -> str:
    """Return a path as it would be typed here."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
