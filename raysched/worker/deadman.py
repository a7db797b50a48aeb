"""Ending a process in which nothing of Python runs any more, because native code holds the GIL.

`faulthandler.dump_traceback_later` has a thread of its own that needs no GIL: when its time is
over, it writes where each thread is, and ends the process.
"""

import contextlib
import faulthandler
import json
import threading
import time
from pathlib import Path
from typing import NamedTuple

from raysched.worker import crashes

FIRE_SECONDS = 10.0
"""How long a process that is to be ended now waits for it."""

_AT_ONCE_SECONDS = 0.001

_SIGN = "Timeout ("
"""What Python writes first. Source: `faulthandler_dump_traceback_later` in CPython."""


class Overdue(NamedTuple):
    """A task run for which a process was ended so.

    Attributes:
        key: The task run.
        seconds: Its limit (seconds).
        stacks: Where each thread was.
    """

    key: str
    seconds: float
    stacks: str


class DeadMan:
    """The switch of this process. Thread-safe; only the last `arm` counts.

    Args:
        path: Where the stacks are written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._armed_for: tuple[str, float] | None = None
        self._lock = threading.Lock()

    def arm(self, key: str, seconds: float, left: float) -> None:
        """End this process in `left` seconds, unless armed anew or disarmed before.

        Args:
            key: The task run that is overdue then.
            seconds: Its limit (seconds), for people.
            left: When.
        """
        with self._lock:
            if self._armed_for != (key, seconds):
                self._armed_for = key, seconds
                self._file.seek(0)
                self._file.truncate()
                self._file.write(json.dumps(self._armed_for).encode() + b"\n")
            faulthandler.dump_traceback_later(left, exit=True, file=self._file)

    def extend(self, left: float) -> None:
        """Give this process, if armed, `left` more seconds from now on."""
        with self._lock:
            if self._armed_for is not None:
                faulthandler.dump_traceback_later(left, exit=True, file=self._file)

    def fire(self) -> None:
        """End this process now, if armed: its file are its last words, where it has no others."""
        with self._lock:
            if self._armed_for is None:
                return
            faulthandler.dump_traceback_later(_AT_ONCE_SECONDS, exit=True, file=self._file)
        time.sleep(FIRE_SECONDS)

    def disarm(self) -> None:
        """Let this process live on."""
        with self._lock:
            if self._armed_for is not None:
                faulthandler.cancel_dump_traceback_later()
                self._armed_for = None

    def close(self) -> None:
        """Let this process live on, and go without the file."""
        self.disarm()
        self._file.close()


def file_of(directory: Path, pid: int) -> Path:
    """Return where the stacks of a process are written."""
    return directory / f"{pid}.stuck"


def read(path: Path) -> Overdue | None:
    """Return for what a process was ended, or None if it was not."""
    with contextlib.suppress(ValueError, OSError):
        head, _, stacks = crashes.read(path).partition("\n")
        if stacks.lstrip().startswith(_SIGN):
            key, seconds = json.loads(head)
            return Overdue(key, seconds, stacks)
    return None
