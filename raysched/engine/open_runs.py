"""The flow runs that are open in this process."""

import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from raysched.engine.keeping import Keeper
from raysched.errors import StoreError
from raysched.model.rows import Batch, FlowRunChange
from raysched.model.states import StateType
from raysched.model.values import CrashKind, FailureClass
from raysched.worker.failures import describe_error

if TYPE_CHECKING:
    from raysched.engine.flow_run import OpenFlowRun

SWITCH_SECONDS = 0.0005
"""Python's switch interval while flow runs are open (seconds)."""


class OpenRuns:
    """The open flow runs of an engine.

    Lets the loop's thread take its turns beside flows that compute in pure Python.

    With Python's usual switch interval of 5 ms a thread that gives up the GIL for each of its
    statements hardly gets anywhere beside a busy one: see docs/decisions/0003-commit-path.md.
    """

    def __init__(self) -> None:
        self._runs: set[OpenFlowRun] = set()
        self._usual = 0.0
        self._lock = threading.Lock()

    def enter(self, run: "OpenFlowRun") -> None:
        """Shorten the interval with the first open flow run."""
        with self._lock:
            if not self._runs:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_SECONDS)
            self._runs.add(run)

    def all(self) -> tuple["OpenFlowRun", ...]:
        """Return them; from any thread."""
        with self._lock:
            return tuple(self._runs)

    def leave(self, run: "OpenFlowRun") -> None:
        """Restore it with the last one."""
        with self._lock:
            if run in self._runs:
                self._runs.remove(run)
                if not self._runs:
                    sys.setswitchinterval(self._usual)

    def clear(self) -> None:
        """Restore it."""
        for run in self.all():
            self.leave(run)

    def break_off(self, error: BaseException, keeper: Keeper) -> None:
        """Keep why nothing goes on, for whoever finds that these runs have lost their driver.

        Args:
            error: What has ended the engine's loop.
            keeper: Where to keep it.
        """
        if isinstance(error, StoreError) or not isinstance(error, Exception):
            # There is no way to keep it, or somebody wants the process to end at once.
            return
        info = describe_error(error, FailureClass.INFRASTRUCTURE, CrashKind.BACKEND)
        for run in self.all():
            change = FlowRunChange(StateType.RUNNING, str(error), error=info, attempts=run.attempt)
            with suppress(StoreError):
                keeper.commit(run.row, Batch(run.number, run.row.epoch, change))
