"""Exceptions as evidence: text that always survives, and the exception itself where it can."""

import sys
import threading
import traceback
from pathlib import Path

from raysched.model.values import ErrorInfo, FailureClass
from raysched.results.envelope import decode, encode

TEXT_MAX_CHARACTERS = 64 * 1024
"""Messages and tracebacks are cut in the middle beyond this length."""

EXCEPTION_MAX_BYTES = 256 * 1024
"""A larger pickled exception is not kept, only its text: it travels in the report."""

_OWN_FILES = str(Path(__file__).parents[1])


def describe_error(
    error: BaseException,
    failure_class: FailureClass = FailureClass.USER,
    kind: str = "",
) -> ErrorInfo:
    """Return what is known about `error`; never raises.

    The traceback shows the user's frames only, with causes and notes. The exception itself is
    kept if a round trip through its pickle gives its class back.
    """
    return ErrorInfo(
        type=type_name(error),
        message=bounded(_message(error)),
        traceback=bounded(_traceback(error)),
        failure_class=failure_class,
        kind=kind,
        exception=_envelope(error),
    )


def type_name(error: BaseException) -> str:
    """Return the qualified name of an exception's class, for example `builtins.KeyError`."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def bounded(text: str, limit: int = TEXT_MAX_CHARACTERS) -> str:
    """Return `text`, its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def stack_of(thread: threading.Thread) -> str:
    """Return where a thread is, as traceback text: the user's frames only."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - its documented name
    users = [
        each
        for each in traceback.extract_stack(frame)
        if frame is not None and not each.filename.startswith(_OWN_FILES)
    ]
    return bounded("".join(traceback.format_list(users)))


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<its __str__ raised {type(broken).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        story = traceback.TracebackException.from_exception(error)
        _drop_own_frames(story, set())
        return "".join(story.format())
    except Exception as broken:  # noqa: BLE001 - a user's __str__ or __repr__ may raise anything
        return f"<traceback cannot be formatted: {type(broken).__name__}>"


def _drop_own_frames(story: traceback.TracebackException, seen: set[int]) -> None:
    if id(story) in seen:
        return
    seen.add(id(story))
    users = [frame for frame in story.stack if not frame.filename.startswith(_OWN_FILES)]
    story.stack = traceback.StackSummary.from_list(users)
    for other in (story.__cause__, story.__context__, *(story.exceptions or ())):
        if other is not None:
            _drop_own_frames(other, seen)


def _envelope(error: BaseException) -> bytes | None:
    try:
        envelope = encode(error).join()
        if len(envelope) > EXCEPTION_MAX_BYTES:
            return None
        return envelope if type(decode(envelope)) is type(error) else None
    except Exception:  # noqa: BLE001 - a user's class may do anything when pickled
        return None
