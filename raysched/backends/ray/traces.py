"""What a worker leaves behind on its node, for whoever asks how it died."""

import faulthandler
import mmap
import os
import signal
import struct
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from ray._private.worker import global_worker

from raysched.model.values import Evidence
from raysched.worker import crashes, deadman
from raysched.worker.deadman import Overdue
from raysched.worker.objects import objects

_LAST_ACT = struct.Struct("<qqq")
"""The unit that was begun last, the exit code that was asked for, and the signal that ended it."""

_NONE = -(2**63)

STACKS_SIGNAL = signal.SIGUSR2
"""Has a worker write where each of its threads is, also while native code holds the GIL."""


class Traces:
    """A worker's file of its last act: which unit it has begun, and what ended it.

    It is mapped into memory: writing costs less than a microsecond and survives the process.

    Args:
        directory: Where the file is made.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{os.getpid()}.last"
        with self.path.open("w+b") as file:
            file.truncate(_LAST_ACT.size)
            self._memory = mmap.mmap(file.fileno(), _LAST_ACT.size)
        self._process = os.getpid()
        self._unit = _NONE

    def begin(self, unit: int) -> None:
        """Take note of a unit that begins."""
        self._unit = unit
        _LAST_ACT.pack_into(self._memory, 0, unit, _NONE, _NONE)

    def note_exits(self) -> None:
        """Take note from now on of what Ray does not tell: the code of `os._exit`, and SIGTERM.

        Ray turns SIGTERM into a SystemExit in the user's code, which could not be told from one of
        its own, and the worker would go on.
        """
        leave = os._exit

        def _exit(status: int) -> None:
            self._write(code=status)
            leave(status)

        os._exit = _exit  # type: ignore[assignment]
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._write(number=number)
        # They are closed as when a worker ends by itself, which this does not let happen. Those of
        # a child that was forked are its parent's.
        if os.getpid() == self._process:
            objects.close()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _write(self, code: int = _NONE, number: int = _NONE) -> None:
        # A child that was forked leaves by `os._exit`, too.
        if os.getpid() == self._process:
            _LAST_ACT.pack_into(self._memory, 0, self._unit, code, number)


@lru_cache(maxsize=1)
def traces() -> Traces:
    """Return this worker's traces; they lie with the logs of Ray's session on this node."""
    node: Any = global_worker.node
    found = Traces(Path(node.get_logs_dir_path()) / "raysched")
    found.note_exits()
    crashes.enable(found.path.parent)
    # Kept open by whom it is given to.
    faulthandler.register(STACKS_SIGNAL, stacks_file(found.path).open("wb", buffering=0))
    return found


def stacks_file(path: Path) -> Path:
    """Return where a worker writes where its threads are, by the file of its last act."""
    return path.with_suffix(".stacks")


class Remains(NamedTuple):
    """What a dead worker has left.

    Attributes:
        evidence: What it tells.
        overdue: The task run for which the worker was ended, holding the GIL, or None.
        stacks: Where its threads were when it was asked last.
        found: Whether it was there to be read.
    """

    evidence: Evidence
    overdue: Overdue | None = None
    stacks: str = ""
    found: bool = True


def read(path: str, unit: int) -> Remains | None:
    """Return what a worker of this node has left, or None if it is not, or was not, in this unit.

    Args:
        path: The file of its last act.
        unit: The unit.
    """
    file = Path(path)
    try:
        last, code, number = _LAST_ACT.unpack(file.read_bytes())
    except (OSError, struct.error):
        return None
    if last != unit:
        return None
    directory, pid = file.parent, int(file.stem)
    found = crashes.evidence_of(crashes.read(crashes.file_of(directory, pid)))
    if code != _NONE:
        found["exit_code"] = code
    if number != _NONE:
        found["signal"] = signal.Signals(number).name
    overdue = deadman.read(deadman.file_of(directory, pid)) if code == _NONE else None
    if overdue is not None:
        found["fatal_error"] = overdue.stacks
    return Remains(found, overdue, crashes.read(stacks_file(file)))
