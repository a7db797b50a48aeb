"""What failures have in common: their innermost cause, its frames, and a fingerprint of both."""

import errno
import linecache
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from traceback import walk_tb
from types import CodeType
from typing import TypeAlias

from raysched.define.own_code import is_ours, is_own
from raysched.errors import CheckFailed
from raysched.model.values import Frame

FIRST_FRAMES = 10
LAST_FRAMES = 20
"""So many outermost and innermost frames of a stack are kept."""

CODE_MAX_CHARACTERS = 200
"""Lines of source are cut beyond this length."""

_FINGERPRINT_BYTES = 8

Place: TypeAlias = tuple[CodeType, int]
"""A frame: its code, and the line."""


def type_name(error: BaseException) -> str:
    """Return the qualified name of an exception's class, for example `builtins.KeyError`."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def is_full_disk(error: BaseException) -> bool:
    """Whether an exception, or what it followed from, says that there is no room on a disk."""
    return any(
        isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}
        for cause in causes_of(error)
    )


def causes_of(error: BaseException) -> list[BaseException]:
    """Return `error` and what it followed from, the innermost cause last.

    An exception follows from its `__cause__`, else from its `__context__` unless that was
    suppressed (`raise … from None`), and a group from the first exception in it.
    """
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and not any(cause is each for each in causes):
        causes.append(cause)
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        elif cause.__cause__ is not None or cause.__suppress_context__:
            cause = cause.__cause__
        else:
            cause = cause.__context__
    return causes


def stack_of_cause(causes: list[BaseException], home: str = "") -> list[Place]:
    """Return where the innermost cause was raised, outermost first, without raysched's frames.

    Its own traceback begins only where it was caught; what had called that is in those of the
    exceptions that followed from it.

    Args:
        causes: What `causes_of` returned.
        home: See `is_own`.
    """
    stack = list(walk_tb(causes[-1].__traceback__))
    for follower in reversed(causes[:-1]):
        calls = list(walk_tb(follower.__traceback__))
        caught = (n for n, (frame, _) in enumerate(calls) if stack and frame is stack[0][0])
        if (position := next(caught, None)) is not None:
            stack = calls[:position] + stack
        elif not any(is_own(frame.f_code.co_filename, home) for frame, _ in stack):
            stack = calls + stack
    return [
        # The line is None where an instruction belongs to none.
        (frame.f_code, line or frame.f_code.co_firstlineno)
        for frame, line in stack
        if not is_ours(frame.f_code.co_filename)
    ]


def fingerprint_of(cause: BaseException, stack: list[Place], home: str = "", name: str = "") -> str:
    """Return the fingerprint of a cause in the user's code: of its class and of its own frames.

    Frames count by file and function, each once, so that neither edits elsewhere in the file nor
    the depth of a recursion change it. What none of the user's functions has raised is told apart
    by whose failure it is, and by the check that refused a result.

    Args:
        cause: The innermost cause.
        stack: See `stack_of_cause`.
        home: See `is_own`.
        name: The task's or flow's name.
    """
    own = (code for code, _ in stack if is_own(code.co_filename, home))
    places = dict.fromkeys(f"{_place(code.co_filename)}:{code.co_qualname}" for code in own)
    if not places:
        places[name] = None
        if isinstance(cause, CheckFailed):
            places[cause.check] = None
    return fingerprint(_class_of(cause), *places)


def fingerprint(*parts: str) -> str:
    """Return 16 hexadecimal digits that stand for some words.

    Of a failure outside the user's code these are the name of its class, its kind, the task's name
    and the signal, as far as they are known.
    """
    data = "\0".join(parts).encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=_FINGERPRINT_BYTES, person=b"failure").hexdigest()


def frames_of(stack: list[Place], home: str = "") -> list[Frame]:
    """Return a stack as data; of a deep one the middle is left out."""
    if len(stack) > FIRST_FRAMES + LAST_FRAMES:
        stack = [*stack[:FIRST_FRAMES], *stack[-LAST_FRAMES:]]
    return [
        Frame(
            file=printable(code.co_filename),
            line=line,
            function=code.co_qualname,
            code=source_line(code.co_filename, line),
            own=is_own(code.co_filename, home),
        )
        for code, line in stack
    ]


def printable(text: str) -> str:
    """Return a text that UTF-8 can encode."""
    return text.encode("utf-8", "backslashreplace").decode()


def _class_of(error: BaseException) -> str:
    """Return the name of a class; of the user's own ones without the module.

    That is another one where the flow's file is run than where it is imported.
    """
    kind = type(error)
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    is_users = module is None or kind.__module__ == "__main__" or (file and is_own(file))
    return kind.__qualname__ if is_users else type_name(error)


@lru_cache(maxsize=4096)
def _place(file: str) -> str:
    """Return the path of a file from where it is imported: equal on all nodes and in all copies."""
    if file.startswith("<ipython-input"):
        return "<ipython-input>"  # the rest counts the cells
    directories = [entry for entry in sys.path if entry]
    with suppress(FileNotFoundError):  # it was removed
        directories.append(str(Path.cwd()))
    return _below(file, directories) or Path(file).name


def _below(file: str, directories: Iterable[str]) -> str:
    """Return the path from the innermost of those directories that has the file, or ""."""
    paths: Sequence[str] = [
        file[len(prefix) :]
        for directory in directories
        if file.startswith(prefix := directory.rstrip(os.sep) + os.sep)
    ]
    return min(paths, key=len, default="")


def source_line(file: str, line: int) -> str:
    """Return a line of source, stripped; "" where there is none."""
    # Of what does not exist any more, or is of another node, there is no line.
    return printable(linecache.getline(file, line).strip()[:CODE_MAX_CHARACTERS])
