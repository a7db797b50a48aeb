"""What became of a run, in a line."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from raysched.client.why_driver import Loss
from raysched.client.why_facts import Cause, Why
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import CrashKind, FailureClass

if TYPE_CHECKING:
    from raysched.store.views import TaskRunView

LONGEST_MESSAGE = 80
"""Characters of an exception's message that a verdict has."""

ROLLED_BACK = re.compile(r"\d+ of \d+ rolled back(, not .+)?$")
"""What the engine says of compensations: how many, and what could not be undone."""

MOST_CAUSES = 3
"""Causes that a verdict names."""


def verdict_on(why: Why) -> str:
    """Return what happened, in a line.

    For example ``1 root failure: `load[17]` KeyError 'usage_facts' → 43 not run, 310 results
    kept``.
    """
    open_ones = sum(count for state, count in why.counts.items() if not state.is_terminal)
    match why.state:
        case StateType.COMPLETED | StateType.CACHED if not why.causes:
            return f"nothing failed: {_consequences(why)}"
        case StateType.COMPLETED | StateType.CACHED:
            return f"it completed, with {_handled(why)}: {_named(why.causes)}{_then(why)}"
        case StateType.CRASHED if why.loss and why.message == CrashKind.DRIVER_LOST:
            return f"its driver died{_open_then(why, why.loss, open_ones)}{_then(why)}"
        case StateType.CANCELLED | StateType.TIMED_OUT:
            word = why.state.name.lower().replace("_", " ")
            head = why.message or word
            return f"{head}{_failed(why)}{_then(why)}"
        case state if not state.is_terminal:
            return f"still {state.name}, {open_ones:,} task runs open{_failed(why)}{_then(why)}"
        case _:
            return f"{_roots(why)}{_then(why)}"


def verdict_on_task_run(why: Why, view: "TaskRunView") -> str:
    """Return what became of a task run, in a line; `why` is what is told of it."""
    told = next((cause for cause in why.causes if cause.key == why.key), None)
    attempts = f" after {count_of(view.attempts, 'attempt')}" if view.attempts > 1 else ""
    if view.state is StateType.UPSTREAM_FAILED and told is not None:
        return f"`{why.key}` {told.message}"
    if told is None or not view.state.is_terminal or view.state in SUCCESSES:
        reason = f": {view.reason}" if view.reason else ""
        still = "" if view.state.is_terminal else "still "
        return f"`{why.key}` {still}{view.state.name}{attempts}{reason}"
    if view.state is StateType.CANCELLED:
        return f"`{why.key}` CANCELLED{attempts}: {told.stopped or told.message}"
    handled = ", handled by the flow" if told.handled else ""
    not_run = f" → {why.not_run:,} not run" if why.not_run else ""
    return f"{_name(told)}{handled}{not_run}"


def count_of(number: int, word: str) -> str:
    """Return `1 task run` or `3 task runs`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _roots(why: Why) -> str:
    """Return what failed, by the first few causes."""
    causes = [cause for cause in why.causes if cause.handled < cause.count] or why.causes
    teardowns = [cause for cause in causes if cause.teardown]
    causes = [cause for cause in causes if not cause.teardown]
    if teardowns and not causes:
        return _of_teardowns(teardowns)
    if causes:
        number = _number(why)
        word = count_of(number, "root failure")
        kinds = len(causes) + why.more_causes
        of_kinds = f" of {kinds} kinds" if kinds > 1 and number > kinds else ""
        more = why.more_causes and not of_kinds
        told = f"{word}{of_kinds}{' and more' if more else ''}: {_named(causes)}"
        return f"{told}; {_of_teardowns(teardowns)}" if teardowns else told
    if why.subflows:
        return f"{count_of(len(why.subflows), 'subflow')} failed: {_of_subflows(why.subflows)}"
    if why.message:
        return f"no task run failed, the flow itself says: {why.message}"
    return f"{why.state.name}, and nothing in it failed"


def _number(why: Why) -> int:
    """Return how many failures nobody handled, or of all where each was, as the flow's own is."""
    beside = sum(cause.count for cause in why.causes if not cause.key or _is_cancelled(cause))
    unhandled = why.failures - why.handled or why.failures
    # They are told beside: a teardown never makes a run fail.
    teardowns = sum(
        cause.count - (cause.handled if why.handled < why.failures else 0)
        for cause in why.causes
        if cause.teardown
    )
    return unhandled + beside - teardowns


def _of_teardowns(causes: Sequence[Cause]) -> str:
    number = sum(cause.count for cause in causes)
    return f"{count_of(number, 'teardown')} failed, too: {_named(causes)}"


def _is_cancelled(cause: Cause) -> bool:
    return cause.failure_class is FailureClass.CANCELLED


def _of_subflows(subflows: Sequence[Why]) -> str:
    return "; ".join(f"`{each.flow}`, {_roots(each)}" for each in subflows[:MOST_CAUSES])


def _failed(why: Why) -> str:
    return f"; {_roots(why)}" if why.causes else ""


def _handled(why: Why) -> str:
    if why.handled:
        return f"{count_of(why.handled, 'failure')} handled"
    number = sum(cause.count for cause in why.causes)
    of_teardowns = all(cause.teardown for cause in why.causes)
    return count_of(number, "failed teardown" if of_teardowns else "failure")


def _open_then(why: Why, loss: Loss, waited: int) -> str:
    """Return what was open when the driver died, and what had failed before."""
    numbers = {
        "under way": loss.under_way,
        "waiting for a retry": loss.between,
        "not begun": waited,
    }
    told = ", ".join(f"{number:,} {word}" for word, number in numbers.items() if number)
    told = f" with {told}" if told else ""
    others = [cause for cause in why.causes if cause.kind != CrashKind.DRIVER_LOST]
    if not others:
        return told
    number = sum(cause.count for cause in others)
    return f"{told}; before that {count_of(number, 'failure')}: {_named(others)}"


def _named(causes: Sequence[Cause]) -> str:
    named = "; ".join(_name(cause) for cause in causes[:MOST_CAUSES])
    return f"{named}; …" if len(causes) > MOST_CAUSES else named


def _name(cause: Cause) -> str:
    """Return one cause: ``` `load[17]` (and 2 more) KeyError 'usage_facts' ```."""
    where = f"`{cause.key}`" if cause.key else cause.title
    more = f" and {cause.count - 1:,} more" if cause.count > 1 else ""
    # raysched's own messages begin with the key, too.
    message = next(iter(cause.message.splitlines()), "").removeprefix(cause.key).lstrip(": ")
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]}…"
    if cause.failure_class is FailureClass.INFRASTRUCTURE and cause.kind:
        signal = cause.error.evidence.get("signal", "")
        what = f"CRASHED ({', '.join(filter(None, (cause.kind, signal)))})"
    elif cause.failure_class is FailureClass.TIMEOUT and cause.kind:
        what = f"TIMED_OUT ({cause.kind}) {message}"
    elif _is_cancelled(cause):
        what = f"CANCELLED {message}"
    else:
        what = f"{cause.type} {message}"
    return f"{where}{more} {what.strip()}"


def _then(why: Why) -> str:
    """Return what followed: ` → 43 not run, 310 results kept`."""
    return f" → {_consequences(why)}"


def _consequences(why: Why) -> str:
    return ", ".join(_counted(why)) or "no task runs"


def _counted(why: Why) -> Iterator[str]:
    if why.not_run:
        yield f"{why.not_run:,} not run"
    cancelled = why.counts.get(StateType.CANCELLED, 0)
    if cancelled:
        yield f"{cancelled:,} cancelled"
    if why.skipped:
        yield f"{why.skipped:,} skipped"
    if undone := ROLLED_BACK.search(why.message):
        yield undone[0]
    elif why.rolled_back:
        yield f"{why.rolled_back:,} rolled back"
    completed = sum(why.counts.get(state, 0) for state in SUCCESSES)
    if completed == why.kept:
        yield f"{count_of(why.kept, 'result')} kept"
    else:
        yield f"{why.kept:,} of {count_of(completed, 'result')} kept"
