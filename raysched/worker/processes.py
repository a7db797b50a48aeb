"""The processes that task runs start: ended with a task run that is ended from outside.

Once a task run has been interrupted, what it has started is known by three things that Linux tells:
a process is a child of the thread that started it, and threads and processes tell when they began.
That is told in ticks of 10 ms. So what is there when a task run ends is noted by its id, where that
costs next to nothing: the next one may begin in the same tick.
"""

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

TERMINATE_SECONDS = 1.0
"""How long a process has to end after SIGTERM, before SIGKILL."""

KILL_SECONDS = 1.0
"""How long the end of a process is waited for after SIGKILL."""

_TICKS = os.sysconf("SC_CLK_TCK")
_START_FIELD = 19
"""Of /proc/pid/stat, counted from behind the name: field 22, `starttime`. Source: proc_pid_stat(5),
in clock ticks since the machine was started."""

_HELPERS = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_pid"),
    ("loky.backend.resource_tracker", "_resource_tracker", "_pid"),
)
"""Where libraries keep the id of a process that they start once, and that ends by itself with this
one. It cleans up after those that are killed."""

STARTING_NS = 300_000
"""No task run starts a process in less than this (ns): a `fork` and `exec` take 1 to 3 ms."""

_lasting: set[int] = set()
"""Processes that were started for more than one task run."""

_left: dict[str, frozenset[int]] = {}
"""Processes that were there when the last task run of a thread ended that may have started some."""


@contextmanager
def lasting() -> Iterator[None]:
    """Let the processes that are started in the block outlive the task run."""
    before = set(_children())
    try:
        yield
    finally:
        _lasting.update(set(_children()) - before)


def note_left() -> None:
    """Take note of the processes that a task run leaves behind in this thread; 10 microseconds."""
    own = str(threading.get_native_id())
    with suppress(FileNotFoundError):  # see _children
        _left[own] = frozenset(map(int, _read(f"/proc/self/task/{own}/children").split()))


def end_started_since(at: float, *, own_thread: bool = False) -> list[str]:
    """End the processes that this thread, and threads that began since then, have started since.

    With their descendants: by SIGTERM, and then by SIGKILL.

    Args:
        at: When (ns since the epoch).
        own_thread: Whether only those of this thread: others may be those of other items.

    Returns:
        Their names and ids, for people.
    """
    since = _ticks_at(at)
    own = str(threading.get_native_id())
    # One of them that is there no more may have given its id to another process, but long ago.
    before = _left.get(own, frozenset())
    spared = _lasting | _helpers()
    started = [
        child
        for child, thread in _children().items()
        if child not in spared
        and _began(f"/proc/{child}/stat") >= since + (child in before)
        and (
            thread in ("", own)
            or (not own_thread and _began(f"/proc/self/task/{thread}/stat") >= since)
        )
    ]
    return _end(started) if started else []


def started_processes() -> list[str]:
    """Return the names and ids of what this process has started, with descendants, for people."""
    children = _children().keys() - _helpers()
    return [_description(each) for each in _with_descendants(children)] if children else []


def end_processes() -> list[str]:
    """End all processes that this one has started, with their descendants, before it is ended.

    Returns:
        Their names and ids, for people.
    """
    children = _children().keys() - _helpers()
    return _end(children) if children else []


def _children() -> dict[int, str]:
    """Return the children of this process, each with the thread that they belong to, "" if unknown.

    The children of a thread that has ended belong to another one.
    """
    found: dict[int, str] = {}
    try:
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - their names are wanted
            with suppress(ProcessLookupError):  # it has ended
                data = _read(f"/proc/self/task/{thread}/children")
                found.update((int(child), thread) for child in data.split())
    except FileNotFoundError:  # no Linux, or one without CONFIG_PROC_CHILDREN
        import psutil

        return {child.pid: "" for child in psutil.Process().children()}
    return found


def _began(path: str) -> float:
    """Return when a process or thread began (ticks); 0 if it is gone."""
    try:
        # The name before may have spaces, and parentheses.
        return float(_read(path).rpartition(b")")[2].split()[_START_FIELD])
    except OSError:
        return 0.0


def _ticks_at(at: float) -> float:
    """Return a time (ns since the epoch) in ticks since the machine was started, rounded down."""
    ago = time.time_ns() - at
    return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ago) * _TICKS // 1_000_000_000


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 64 * 1024)
    finally:
        os.close(descriptor)


def _helpers() -> set[int]:
    found = set()
    for module, holder, attribute in _HELPERS:
        pid = getattr(getattr(sys.modules.get(module), holder, None), attribute, None)
        if isinstance(pid, int):
            found.add(pid)
    return found


def _end(children: Iterable[int]) -> list[str]:
    import psutil  # 15 ms, that only this costs

    processes = _with_descendants(set(children))
    names = [_description(each) for each in processes]
    for each in processes:
        with suppress(psutil.Error):
            each.terminate()
    _, alive = psutil.wait_procs(processes, TERMINATE_SECONDS)
    if alive:
        # They may have started others meanwhile.
        alive = list({*alive, *_with_descendants({each.pid for each in alive})})
        for each in alive:
            with suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(alive, KILL_SECONDS)
    return names


def _with_descendants(pids: Iterable[int]) -> "list[psutil.Process]":
    import psutil

    family = {each.pid: each for each in psutil.Process().children(recursive=True)}
    parents = {}
    for pid, each in family.items():
        with suppress(psutil.Error):
            parents[pid] = each.ppid()
    found = family.keys() & set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return [family[pid] for pid in found]


def _description(process: "psutil.Process") -> str:
    import psutil

    with suppress(psutil.Error):
        return f"{process.name()} ({process.pid})"
    return f"({process.pid})"
