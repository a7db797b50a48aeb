"""What task runs may leave taken in their process: memory, and threads."""

import _thread
import gc
import os
import re
import resource
import threading
import time
import weakref
from collections import Counter

GROWTH_MIN_BYTES = 100 * 1024**2
GROWTH_MIN_SHARE = 0.1
"""Growth is worth a notice if it is both, in bytes and of what was taken before."""

THREAD_GRACE_SECONDS = 0.01
"""How long a thread that was told to end may take for it."""

THREAD_LOOKS = 3
"""Threads of one name whose end was waited for this often are not looked at any more."""

count_threads = _thread._count  # noqa: SLF001 - it takes 30 ns, threading.active_count a lock
"""Return the number of Python's threads."""

_PAGE_BYTES = resource.getpagesize()
_KIBIBYTE = 1024
_DIGITS = re.compile(r"\d+")


class Memory:
    """What this process had taken when it was last worth a notice."""

    def __init__(self) -> None:
        self.task = ""
        self._taken = 0

    def begin(self, task: str) -> None:
        """Compare with what is taken now."""
        self.task, self._taken = task, _taken_bytes()

    def begin_at_peak(self, task: str) -> None:
        """Compare with the most that ever was taken: less exact than `begin`, and cheaper."""
        self.task, self._taken = task, _peak_bytes()

    def growth(self, kept: int) -> tuple[int, int] | None:
        """Return by how much and to what it grew (bytes), if that is worth a notice.

        Args:
            kept: Bytes that are taken for good reason.
        """
        limit = self._taken + kept + max(GROWTH_MIN_BYTES, int(self._taken * GROWTH_MIN_SHARE))
        # The peak takes a system call, the rest opens a file.
        if _peak_bytes() < limit or _taken_bytes() < limit:
            return None
        gc.collect()
        taken = _taken_bytes()
        if taken < limit:
            return None
        grown, self._taken = taken - kept - self._taken, taken - kept
        return grown, taken


class Threads:
    """The threads of this process that nobody has to be told of."""

    def __init__(self) -> None:
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._count = 0
        self._looks: Counter[tuple[str, str]] = Counter()

    def refresh(self) -> int:
        """Know all that are there; return their number."""
        count: int = count_threads()
        if count != self._count:
            self._count = count
            self._threads.update(threading.enumerate())
        return count

    def left_by(self, task: str) -> list[threading.Thread]:
        """Return those that are not known and stay; know all from now on.

        Args:
            task: Name of the task that ran. Threads of one task and one name but for its numbers
                are returned once.
        """
        here = threading.current_thread()
        # Where there was no other one before, nobody had a look.
        new = [t for t in threading.enumerate() if t not in self._threads and t is not here]
        self._threads.update(new)
        deadline = time.monotonic() + THREAD_GRACE_SECONDS
        return [thread for thread in new if self._stays(thread, task, deadline)]

    def _stays(self, thread: threading.Thread, task: str, deadline: float) -> bool:
        if thread.name.startswith("raysched") or isinstance(thread, threading._DummyThread):  # noqa: SLF001
            return False
        name = task, _DIGITS.sub("0", thread.name)
        self._looks[name] += 1
        if self._looks[name] > THREAD_LOOKS:
            return False
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            self._looks[name] = THREAD_LOOKS
        return thread.is_alive()


def _peak_bytes() -> int:
    """Return the most memory that this process ever had (bytes), shared memory included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE


def _taken_bytes() -> int:
    """Return the memory that only this process has (bytes), without Ray's shared objects.

    Source: proc_pid_statm(5), fields `resident` and `shared`.
    """
    file = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        _, resident, shared, *_ = os.read(file, 256).split()
    finally:
        os.close(file)
    return (int(resident) - int(shared)) * _PAGE_BYTES
