"""Which code is the user's own, and which is a library's."""

import inspect
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

_OWN_DIRECTORY = str(Path(__file__).parents[1]) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_PACKAGED = ("<frozen ", "<__array_function__")
"""How the names begin that Python and NumPy give to code without a file; others (`<stdin>`,
`<ipython-input-…>`, `<string>`) are of code that the user has typed, or had made."""


@lru_cache(maxsize=4096)
def is_own(file: str, home: str = "") -> bool:
    """Whether a file has the user's own code: neither Python's, nor a library's.

    Args:
        file: The file.
        home: The library that the task's function is in, see `home_of`: an installed project is
            its user's own.
    """
    if file.startswith("<"):
        return not file.startswith(_PACKAGED)
    if is_ours(file):
        return False
    if home and library_of(file) == home:
        return True
    # Cython tells the path of its source within its project.
    if not file.startswith(os.sep):
        return False
    return not file.startswith(_libraries()) and not any(part in file for part in _INSTALLED)


def home_of(function: Callable[..., Any]) -> str:
    """Return the library that a function is in, "" if it is in none."""
    with suppress(Exception):  # a callable of the user's may answer anything, or raise
        file = inspect.unwrap(function).__code__.co_filename
        return "" if is_own(file) else library_of(file)
    return ""


def is_ours(file: str) -> bool:
    """Whether a file of a traceback is raysched's, which tells users nothing."""
    return file.startswith(_OWN_DIRECTORY)


@lru_cache(maxsize=4096)
def library_of(file: str) -> str:
    """Return the name of the library that a file belongs to, as it is imported."""
    path = file.removeprefix("<frozen ").removesuffix(">")
    for part in _INSTALLED:
        path = path.rpartition(part)[2]
    for directory in _libraries():
        path = path.removeprefix(directory)
    return path.lstrip(os.sep).partition(os.sep)[0].partition(".")[0]


@cache
def _libraries() -> tuple[str, ...]:
    """Return the directories of Python's own modules and of what is installed."""
    import sysconfig  # not every process needs it

    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({sysconfig.get_path(name) + os.sep for name in names})
