"""Exceptions as evidence: text that always survives, and the exception itself where it can."""

import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace

from raysched.define.own_code import is_ours, is_own, library_of
from raysched.errors import TaskRunTimedOut
from raysched.model.ids import task_name_of
from raysched.model.values import ErrorInfo, Evidence, FailureClass, TimeoutKind
from raysched.results.envelope import decode, encode
from raysched.worker.causes import (
    causes_of,
    fingerprint,
    fingerprint_of,
    frames_of,
    stack_of_cause,
    type_name,
)

TEXT_MAX_CHARACTERS = 64 * 1024
"""Messages and tracebacks are cut in the middle beyond this length."""

EXCEPTION_MAX_BYTES = 256 * 1024
"""A larger pickled exception is not kept, only its text: it travels in the report."""

FRAMES_IN_ROW = 2
"""More frames of libraries than this in a row are told as one line in a traceback."""

NAMES_IN_ROW = 4
"""Libraries that are named in such a line."""

_LIMITS = {
    TimeoutKind.ATTEMPT: "took longer than timeout_seconds",
    TimeoutKind.HEARTBEAT: "was not heard of for heartbeat_timeout_seconds",
    TimeoutKind.QUEUED: "did not begin within queue_timeout_seconds",
    TimeoutKind.TOTAL: "took longer than total_timeout_seconds",
}


def describe_error(
    error: BaseException,
    failure_class: FailureClass = FailureClass.USER,
    kind: str = "",
    home: str = "",
    name: str = "",
) -> ErrorInfo:
    """Return what is known about `error`; never raises.

    The message has the notes of one line behind it. The traceback has the causes and all notes,
    all frames of the user and, of those of libraries, where they begin to matter: rows of them are
    one line. The frames of the innermost cause are evidence, too. The exception itself is kept if a
    round trip through its pickle gives its class back.

    Args:
        error: The exception.
        failure_class: Who is to blame.
        kind: See `ErrorInfo`.
        home: The library that the task is in, if it is in one (see `causes.is_own`).
        name: The name of the task, or flow, whose failure it is.
    """
    causes = causes_of(error)
    stack = stack_of_cause(causes, home)
    frames = frames_of(stack, home)
    if failure_class is FailureClass.USER:
        digest = fingerprint_of(causes[-1], stack, home, name)
    else:
        # Where code was when it was ended from outside tells nothing about why.
        digest = fingerprint(type_name(error), kind, name)
    return ErrorInfo(
        type=type_name(error),
        message=bounded("\n".join((message_of(error), *_notes(error)))),
        traceback=bounded(_traceback(error, home)),
        failure_class=failure_class,
        kind=kind,
        exception=_envelope(error),
        fingerprint=digest,
        evidence=Evidence(frames=frames) if frames else Evidence(),
    )


def describe_timeout(
    key: str,
    kind: TimeoutKind,
    seconds: float,
    *,
    reaction: str = "",
    stack: BaseException | None = None,
) -> ErrorInfo:
    """Return what is known about a task run that met a limit of time.

    Args:
        key: The task run.
        kind: Which limit.
        seconds: The limit (seconds).
        reaction: What became of it, to go on with: "and did not react, so …".
        stack: What was raised in the user's code to end it, or None.
    """
    error = timed_out(key, kind, seconds, reaction)
    if stack is not None:
        error = error.with_traceback(stack.__traceback__)
    return describe_error(error, FailureClass.TIMEOUT, kind, name=task_name_of(key))


def timed_out(key: str, kind: TimeoutKind, seconds: float, reaction: str = "") -> TaskRunTimedOut:
    """Return the exception of a task run that met a limit of time; see `describe_timeout`."""
    told = ", ".join(filter(None, (f"{key} {_LIMITS[kind]}={seconds:g}", reaction)))
    return TaskRunTimedOut(told, key=key)


def add_evidence(error: ErrorInfo, evidence: Evidence) -> ErrorInfo:
    """Return `error` with more that is known about it."""
    return replace(error, evidence={**error.evidence, **evidence}) if evidence else error


def bounded(text: str, limit: int = TEXT_MAX_CHARACTERS) -> str:
    """Return `text`, its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def add_stack(error: ErrorInfo, thread: threading.Thread) -> ErrorInfo:
    """Return `error` with where a thread is now: in message, traceback and frames."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - its documented name
    if frame is None:
        return error
    calls = list(traceback.walk_stack(frame))
    ours = [n for n, (call, _) in enumerate(calls) if is_ours(call.f_code.co_filename)]
    # What has called the task run is not its own; the innermost frame comes first.
    calls = calls[: max(ours, default=len(calls))][::-1]
    stack = traceback.StackSummary.extract(calls)
    told = "".join(_ReadableStack(stack, fold=_has_own(stack)).format())
    places = [(call.f_code, line) for call, line in calls if not is_ours(call.f_code.co_filename)]
    frames = frames_of(places)
    own = [frame for frame in frames if frame["own"]] or frames
    message = error.message
    if own:
        file = os.path.basename(own[-1]["file"])  # noqa: PTH119 - also of what is no path
        message += f", while it was in {own[-1]['function']}, {file}:{own[-1]['line']}"
    found = replace(error, message=message, traceback=bounded(told))
    return add_evidence(found, Evidence(frames=frames))


def message_of(error: BaseException) -> str:
    """Return `str(error)`; never raises."""
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<its __str__ raised {type(broken).__name__}>"


def _notes(error: BaseException) -> list[str]:
    """Return the notes of an exception that have one line: others are for the traceback."""
    notes = getattr(error, "__notes__", None)
    given = notes if isinstance(notes, list) else []
    return [note for note in given if isinstance(note, str) and len(note.splitlines()) == 1]


def _traceback(error: BaseException, home: str) -> str:
    try:
        story = traceback.TracebackException.from_exception(error)
        parts = _parts(story)
        fold = any(_has_own(part.stack, home) for part in parts)
        for part in parts:
            part.stack = _ReadableStack(part.stack, home, fold=fold)
        return "".join(story.format())
    except Exception as broken:  # noqa: BLE001 - a user's __str__ or __repr__ may raise anything
        return f"<traceback cannot be formatted: {type(broken).__name__}>"


def _parts(story: traceback.TracebackException) -> list[traceback.TracebackException]:
    """Return a story and all that it tells of causes and members of groups."""
    parts: dict[int, traceback.TracebackException] = {}
    left: list[traceback.TracebackException | None] = [story]
    while left:
        part = left.pop()
        if part is not None and id(part) not in parts:
            parts[id(part)] = part
            left += (part.__cause__, part.__context__, *(part.exceptions or ()))
    return list(parts.values())


def _has_own(frames: Sequence[traceback.FrameSummary], home: str = "") -> bool:
    return any(is_own(frame.filename, home) for frame in frames)


class _ReadableStack(traceback.StackSummary):
    """A stack without raysched's own frames, in which rows of libraries' frames are one line.

    Args:
        frames: All frames.
        home: See `describe_error`.
        fold: Whether rows become one line: where there is nothing of the user's own they do not.
    """

    def __init__(
        self, frames: Sequence[traceback.FrameSummary], home: str = "", *, fold: bool
    ) -> None:
        theirs = [frame for frame in frames if not is_ours(frame.filename)]
        super().__init__(_folded(theirs, home) if fold else theirs)

    def format_frame_summary(self, frame_summary: traceback.FrameSummary) -> str:
        """Return the lines of a frame, or the one of a row of them."""
        if isinstance(frame_summary, _Row):
            return f"  … {frame_summary.name}\n"
        return super().format_frame_summary(frame_summary)


class _Row(traceback.FrameSummary):
    """Adjacent frames of libraries; `name` describes them."""


def _folded(
    frames: Sequence[traceback.FrameSummary], home: str
) -> Iterator[traceback.FrameSummary]:
    row: list[traceback.FrameSummary] = []
    for frame in frames:
        if is_own(frame.filename, home):
            yield from _told(row)
            row = []
            yield frame
        else:
            row.append(frame)
    if row:
        # Where it was raised stands at the end, as in every traceback.
        yield from _told(row[:-1])
        yield row[-1]


def _told(row: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    if len(row) <= FRAMES_IN_ROW:
        return row
    names = list(dict.fromkeys(library_of(frame.filename) for frame in row))
    others = ", …" if len(names) > NAMES_IN_ROW else ""
    text = f"{len(row)} frames in {', '.join(names[:NAMES_IN_ROW])}{others} …"
    return [_Row("", 0, text, lookup_line=False)]


def _envelope(error: BaseException) -> bytes | None:
    try:
        envelope = encode(error).join()
        if len(envelope) > EXCEPTION_MAX_BYTES:
            return None
        return envelope if type(decode(envelope)) is type(error) else None
    except Exception:  # noqa: BLE001 - a user's class may do anything when pickled
        return None
