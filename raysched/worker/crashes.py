"""What Python writes when it dies: kept in a file for each process, as Ray tells no signal.

`faulthandler` is Python's own: on SIGSEGV, SIGABRT, SIGBUS, SIGFPE and SIGILL it writes the reason
and the stack of each thread, without memory or locks of the process that is broken.
"""

import faulthandler
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from raysched.define.own_code import is_ours, is_own
from raysched.model.values import Evidence, Frame
from raysched.worker.causes import LAST_FRAMES, source_line

FATAL_ERROR_MAX_CHARACTERS = 8 * 1024
"""Texts of fatal errors are cut beyond this length."""

_READ_MAX_BYTES = 256 * 1024

_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
"""Signals by what Python says of them. Source: `faulthandler_handlers` in CPython."""

_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)')
_CURRENT = "Current thread"
_HEADING = re.compile(r"(Current thread|Thread) 0x")

_file: IO[str] | None = None


def enable(directory: Path) -> Path:
    """Have the fatal errors of this process written to a file; return its path.

    Processes that are forked from this one write theirs to standard error, as before.

    Args:
        directory: Where; made if it is not there.

    Raises:
        OSError: The file cannot be written.
    """
    global _file  # noqa: PLW0603 - it has to stay open
    path = file_of(directory, os.getpid())
    directory.mkdir(parents=True, exist_ok=True)
    opened = path.open("w", encoding="utf-8")
    faulthandler.enable(opened)
    if _file is None:
        os.register_at_fork(after_in_child=_use_stderr)
    else:
        _file.close()
    _file = opened
    return path


def file_of(directory: Path, pid: int) -> Path:
    """Return where the fatal errors of a process are written."""
    return directory / f"{pid}.fatal"


def read(path: Path) -> str:
    """Return the fatal error that a process has left, "" if there is none.

    The thread that died comes first. Frames of raysched and of what calls it, threads without
    frames of the user's own, and the list of extension modules are left out.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_READ_MAX_BYTES).decode("utf-8", "backslashreplace")
    except OSError:
        return ""
    reason, threads = _split(text)
    died = [thread for thread in threads if thread[0].startswith(_CURRENT)]
    others = [
        thread
        for thread in threads
        if thread not in died and any(is_own(found["file"]) for found in _frames(thread))
    ]
    blocks = [reason, *died, *others]
    told = "\n\n".join("\n".join(block) for block in blocks if block)
    return told[:FATAL_ERROR_MAX_CHARACTERS]


def evidence_of(fatal_error: str) -> Evidence:
    """Return what a fatal error tells, as evidence.

    Args:
        fatal_error: What `read` returned.
    """
    if not fatal_error:
        return Evidence()
    evidence = Evidence(fatal_error=fatal_error)
    # Some versions of Python write a hyphen in one of them.
    reason = fatal_error.partition("\n")[0].replace("-", " ")
    for words, name in _SIGNALS.items():
        if reason.endswith(words):
            evidence["signal"] = name
    _, (died, *_) = _split(fatal_error) if _CURRENT in fatal_error else ((), [[]])
    if frames := [_frame(found) for found in _frames(died)]:
        # Python writes the innermost one first.
        evidence["frames"] = frames[:LAST_FRAMES][::-1]
    return evidence


def _split(text: str) -> tuple[list[str], list[list[str]]]:
    """Return the lines before the threads, and those of each thread."""
    reason: list[str] = []
    threads: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("Extension modules:"):
            break
        if _HEADING.match(line):
            threads.append([line])
        elif line.strip():
            (threads[-1] if threads else reason).append(line)
    return reason, list(map(_users_part, threads))


def _users_part(thread: list[str]) -> list[str]:
    """Return the lines of a thread without raysched's frames, and those that had called these."""
    ours = [
        number
        for number, line in enumerate(thread)
        if (found := _FRAME.fullmatch(line)) and is_ours(found["file"])
    ]
    # The innermost frame comes first.
    return [
        line
        for number, line in enumerate(thread[: max(ours, default=len(thread))])
        if number not in ours
    ]


def _frames(thread: list[str]) -> list[re.Match[str]]:
    return [found for line in thread if (found := _FRAME.fullmatch(line))]


def _frame(found: re.Match[str]) -> Frame:
    file, line = found["file"], int(found["line"])
    return Frame(
        file=file,
        line=line,
        function=found["function"],
        code=source_line(file, line),
        own=is_own(file),
    )


def _use_stderr() -> None:
    # It may be closed, or no file.
    with suppress(AttributeError, OSError, ValueError, RuntimeError):
        faulthandler.enable(sys.stderr)
