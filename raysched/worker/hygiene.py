"""What a task run leaves behind in its process: put back where that is sound, else noticed.

Put back after each task run of those that run in turn, and at the end of a unit whose task runs
overlap: the working directory, the environment, and the handlers of SIGINT and SIGTERM. Noticed:
threads that still run, and memory that stays taken. All else that a process has one of stays as
the user's code leaves it.

Between two task runs that leave nothing behind there is time for a few C calls, not for comparing
the environment. So `os` tells of changes: its functions that make them are wrapped while a unit
runs. An audit hook would tell as well, but it stays for the life of the process, and each `id()`
calls it: `copy.deepcopy` then takes twice as long.
"""

import _signal  # type: ignore[import-not-found] # CPython's own, without stubs
import contextlib
import os
import posix
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from raysched.worker.leaks import Memory, Threads, count_threads
from raysched.worker.processes import STARTING_NS, note_left

if TYPE_CHECKING:
    from types import FrameType

LOOK_NS = 100_000
"""After a task run of this duration (ns) the working directory is looked at in any case: code
that has imported `chdir` by name before is not wrapped."""

MEMORY_NS = 5_000_000
"""Memory is looked at after task runs of this duration (ns) and after units: what is quicker
cannot have touched much of it."""

_OWN_DIRECTORY = os.path.dirname(__file__)  # noqa: PTH120 - compared with names in frames
_IMPORTING = "<frozen importlib._bootstrap>"
_WRAPPED_MODULES = (os, posix)
_INTERRUPT, _TERMINATION = int(signal.SIGINT), int(signal.SIGTERM)
_handler_of = _signal.getsignal
"""Without signal.getsignal's search for an enum member, which takes 4 us."""


def _named(function: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = original.__name__
    # Where it was, it is again in a process that unpickles it.
    function.__module__, function.__doc__ = original.__module__, original.__doc__
    return function


class _Wrapping:
    """The wrappers of `os`'s functions that change the process, there while somebody uses them."""

    def __init__(self) -> None:
        self.originals: dict[str, Callable[..., Any]] = {
            name: getattr(posix, name) for name in ("chdir", "fchdir", "putenv", "unsetenv")
        }
        self._wrappers = {
            "chdir": self._moving("chdir"),
            "fchdir": self._moving("fchdir"),
            "putenv": self._setting("putenv"),
            "unsetenv": self._setting("unsetenv"),
        }
        self._users = 0
        self._for_good = False
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Have them there."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._replace(self.originals, self._wrappers)

    def acquire_for_good(self) -> None:
        """Have them there until this process ends."""
        if not self._for_good:
            self._for_good = True
            self.acquire()

    def release(self) -> None:
        """Undo one `acquire`."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._replace(self._wrappers, self.originals)

    def _replace(
        self, there: dict[str, Callable[..., Any]], by: dict[str, Callable[..., Any]]
    ) -> None:
        for module in _WRAPPED_MODULES:
            for name, function in by.items():
                # What somebody else has put there stays.
                if getattr(module, name) is there[name]:
                    setattr(module, name, function)

    def _moving(self, name: str) -> Callable[..., Any]:
        original = self.originals[name]

        def move(*args: Any, **kwargs: Any) -> None:
            watch = _watch()
            if watch is not None:
                watch.note_directory()
            original(*args, **kwargs)

        return _named(move, original)

    def _setting(self, name: str) -> Callable[..., Any]:
        original = self.originals[name]

        def set_variable(variable: Any, *value: Any) -> None:
            watch = _watch()
            if watch is not None:
                watch.note_variable(os.fsencode(variable))
            original(variable, *value)

        return _named(set_variable, original)


class Hygiene:
    """Looks after the process while one unit runs in this thread, from when it is made.

    Args:
        task: Name of the task.
        dedicated: Whether the process is there for units only: then what any thread changes is
            the task run's doing. Otherwise it is what this thread changes.
    """

    def __init__(self, task: str, *, dedicated: bool) -> None:
        self._task = task
        self._thread = threading.get_ident()
        self._before = _watches.get(self._thread)
        self._dedicated = dedicated
        self._is_main = threading.current_thread() is threading.main_thread()
        self._interrupt_handler = _handler_of(_INTERRUPT)
        self._termination_handler = _handler_of(_TERMINATION)
        self._directory = _directory()
        self._variables: dict[bytes, bytes | None] = {}
        self._changed = False
        self._lasting = 0
        self._kept = 0
        # A unit inside another one, of a task that calls a task, is a part of that one's memory.
        self._is_nested = self._before is not None or _ANY_THREAD in _watches
        if not self._is_nested:
            self._begin_memory()
        self._thread_count = _threads.refresh()
        _watches[self._thread] = self
        if dedicated:
            _watches[_ANY_THREAD] = self
            _wrapping.acquire_for_good()
        else:
            _wrapping.acquire()

    def _begin_memory(self) -> None:
        if not self._dedicated:
            # The program's own memory grows between its units.
            _memory.begin_at_peak(self._task)
        elif _memory.task != self._task:
            _memory.begin(self._task)

    def after_item(self, took: int, kept: int = 0) -> Sequence[str]:
        """Put back what a task run has changed; return what is worth a warning.

        To be called after each of the items that run in turn, in their thread.

        Args:
            took: Duration of the item (ns).
            kept: Bytes of its result that stay in this process until the unit's report.
        """
        self._kept += kept
        if took >= STARTING_NS:
            note_left()
        if (
            took < LOOK_NS
            and not self._changed
            and count_threads() == self._thread_count
            and _handler_of(_INTERRUPT) is self._interrupt_handler
            and _handler_of(_TERMINATION) is self._termination_handler
        ):
            return ()
        return self._tidy(memory=took >= MEMORY_NS)

    def end(self) -> Sequence[str]:
        """Do as `after_item` for the unit as a whole, and look after nothing any more."""
        notices = self._tidy(memory=True)
        if self._dedicated:
            _watches.pop(_ANY_THREAD, None)
        else:
            _wrapping.release()
        if self._before is None:
            _watches.pop(self._thread, None)
        else:
            _watches[self._thread] = self._before
        return notices

    @contextlib.contextmanager
    def lasting(self) -> Iterator[None]:
        """Let variables, threads and memory of the block stay: for what outlives its task run."""
        self._lasting += 1
        try:
            yield
        finally:
            self._lasting -= 1
            self._thread_count = _threads.refresh()
            _memory.begin(self._task)

    def note_directory(self) -> None:
        """Take note that the working directory is about to change."""
        self._changed = True

    def note_variable(self, name: bytes) -> None:
        """Take note that a variable of the environment is about to change."""
        if name not in self._variables and not self._lasting and not _is_importing():
            self._variables[name] = os.environb.get(name)
            self._changed = True

    def _tidy(self, *, memory: bool) -> Sequence[str]:
        notices: list[str] = []
        self._restore_signals()
        self._restore_directory(notices)
        if self._changed:
            self._restore_environment()
            self._changed = False
        if count_threads() != self._thread_count:
            self._look_at_threads(notices)
        if memory and not self._is_nested:
            self._look_at_memory(notices)
        return notices

    def _restore_signals(self) -> None:
        # Elsewhere than on the main thread the user's code cannot have changed them.
        if not self._is_main:
            return
        for number, handler in (
            (_INTERRUPT, self._interrupt_handler),
            (_TERMINATION, self._termination_handler),
        ):
            # None is a handler that was not set from Python, and cannot be.
            if handler is not None and _handler_of(number) is not handler:
                signal.signal(number, handler)

    def _restore_directory(self, notices: list[str]) -> None:
        if self._directory is None or _directory() == self._directory:
            return
        try:
            _wrapping.originals["chdir"](self._directory)
        except OSError as error:
            notices.append(
                f"the working directory cannot be put back to {self._directory!r}: "
                f"{error.strerror}. Task runs that follow in this worker begin elsewhere"
            )
            self._directory = _directory()

    def _restore_environment(self) -> None:
        for name, value in list(self._variables.items()):
            if value is not None:
                os.environb[name] = value
                continue
            os.environb.pop(name, None)
            # Set without os.environ, it is not in there.
            os.unsetenv(name)
        self._variables.clear()

    def _look_at_threads(self, notices: list[str]) -> None:
        left = _threads.left_by(self._task)
        if left:
            names = ", ".join(
                f"{thread.name!r}{' (daemon)' if thread.daemon else ''}" for thread in left
            )
            notices.append(
                f"threads that were started while it ran still run after it: {names}. They take "
                "time and memory from later task runs of this worker: end them in the task, or "
                "have what needs them made by once_per_worker(…)"
            )
        self._thread_count = count_threads()

    def _look_at_memory(self, notices: list[str]) -> None:
        growth = _memory.growth(self._kept)
        if growth is not None:
            grown, taken = growth
            notices.append(
                f"the memory of its process has grown by {grown / 1e6:,.0f} MB, to "
                f"{taken / 1e6:,.0f} MB, and stays taken: look for what the task keeps in globals "
                "or caches"
            )


_ANY_THREAD = -1
"""In `_watches`, for threads that have no watch of their own."""

_watches: dict[int, Hygiene] = {}
"""By the thread of the unit."""

_wrapping = _Wrapping()
_memory = Memory()
_threads = Threads()


def lasting() -> contextlib.AbstractContextManager[None]:
    """Return a context in which nothing that is done counts as left behind by a task run."""
    # The thread may be one of those that overlap in a unit.
    watch = _watch() or next(reversed(_watches.values()), None)
    return contextlib.nullcontext() if watch is None else watch.lasting()


def _watch() -> Hygiene | None:
    return _watches.get(threading.get_ident()) or _watches.get(_ANY_THREAD)


def _is_importing() -> bool:
    """Whether a module is being imported by the task run: what it sets stays, as it does itself."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - its documented name
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    # Below our own code, an import is not the task run's.
    while frame is not None and not frame.f_code.co_filename.startswith(_OWN_DIRECTORY):
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a Path takes four times as long
    except OSError:
        return None
