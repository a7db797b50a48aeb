"""The backend without Ray: units run in this process, one after the other, in order."""

import os
import platform
import threading
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from raysched.compiler.plan import SchedulingClass
from raysched.engine.ports import Capacity, Lost, Reported, Sink, UnitCall
from raysched.errors import InternalError
from raysched.model.options import TaskSpec
from raysched.model.values import ErrorInfo, FailureClass, LargeValue
from raysched.results.envelope import Parts, decode
from raysched.settings import settings
from raysched.worker.context import WorkerContext, context_of, level_number
from raysched.worker.functions import LocalFunction
from raysched.worker.logs import capture
from raysched.worker.runner import Process, UnitRun


class InlineBackend:
    """Runs each unit in the thread that calls `pump`; arguments and results are still pickled.

    `async def` tasks, and several items with `max_concurrency`, run in a thread beside the caller,
    which may have an event loop of its own. Code in C cannot be interrupted, by timeouts or else.
    """

    name = "inline"
    pumped = True

    def __init__(self) -> None:
        self._settings = settings()
        self._process = Process(("", "", os.getpid(), platform.node()))
        self._queue: deque[UnitCall] = deque()
        self._running: dict[int, UnitRun] = {}
        self._cancelled: dict[int, set[int]] = {}
        """Items of units that have not begun."""
        self._sink: Sink | None = None
        # Bounded: a flow may make new options for each call.
        self._context_of = lru_cache(maxsize=256)(self._new_context)

    def start(self, sink: Sink) -> None:
        """See `Backend.start`."""
        self._sink = sink
        capture.acquire_for(level_number(self._settings))

    def capacity(self, spec: TaskSpec, scheduling_class: SchedulingClass) -> Capacity:
        """See `Backend.capacity`: one unit at once, whatever it asks for."""
        del spec, scheduling_class
        return Capacity(1)

    def submit(self, call: UnitCall) -> None:
        """See `Backend.submit`."""
        self._queue.append(call)

    def cancel(
        self, unit: int, positions: Sequence[int] | None = None, *, force: bool = False
    ) -> None:
        """See `Backend.cancel`; `force` cannot do more here."""
        del force
        run = self._running.get(unit)
        if run is not None:
            run.cancel(positions)
            return
        for call in tuple(self._queue):
            if call.id != unit:
                continue
            if positions is None:
                self._queue.remove(call)
                self._cancelled.pop(unit, None)
                self._tell(Lost(unit, _CANCELLED))
            else:
                self._cancelled.setdefault(unit, set()).update(positions)

    def attend(self, seconds: float | None) -> None:
        """See `Backend.attend`."""

    def pump(self) -> bool:
        """See `Backend.pump`.

        Raises:
            BaseException: Ctrl-C was pressed, or SIGTERM has come; the unit was cancelled and
                reported before.
        """
        try:
            call = self._queue.popleft()
        except IndexError:
            return False
        contexts = [self._context_of(spec) for spec in call.specs]
        run = UnitRun(contexts, call.frame, call.handles, self._process)
        self._running[call.id] = run
        run.cancel(self._cancelled.pop(call.id, ()))
        try:
            report, large = self._run_beside(run) if run.overlaps else run.run()
        except BaseException:
            self._tell(Lost(call.id, _CANCELLED))
            raise
        finally:
            del self._running[call.id]
        self._tell(Reported(call.id, report, _settled(large)))
        if run.passed_interrupt is not None:
            raise run.passed_interrupt
        return True

    def fetch(self, value: LargeValue) -> Any:
        """See `Backend.fetch`."""
        return decode(value.handle[value.position])

    def are_lost(self, values: Sequence[LargeValue]) -> Sequence[bool]:
        """See `Backend.are_lost`: they live as long as this process."""
        return [False] * len(values)

    def shares_files(self) -> bool:
        """See `Backend.shares_files`."""
        return True

    def describe(self) -> str:
        """See `Backend.describe`."""
        return "inline, in this process"

    def stop(self) -> None:
        """See `Backend.stop`."""
        if self._sink is not None:
            self._sink = None
            self._queue.clear()
            self._cancelled.clear()
            capture.release_one()

    def _new_context(self, spec: TaskSpec) -> WorkerContext:
        return context_of(spec, self._settings, LocalFunction)

    def _tell(self, message: Reported | Lost) -> None:
        if self._sink is None:
            raise InternalError("the inline backend is not started")
        self._sink(message)

    def _run_beside(self, run: UnitRun) -> tuple[bytes, list[Parts] | None]:
        done: list[tuple[bytes, list[Parts] | None]] = []
        # Not Thread.join: interrupted, it may take the thread for finished (CPython issue 90882).
        finished = threading.Event()

        def work() -> None:
            try:
                done.append(run.run())
            finally:
                finished.set()

        threading.Thread(target=work, name=f"raysched {run.context.task_name}").start()
        try:
            finished.wait()
        except BaseException as error:  # noqa: BLE001 - whatever the handler of a signal raises
            run.cancel()
            finished.wait()
            run.passed_interrupt = error
        return done[0]


_CANCELLED = ErrorInfo(
    "raysched.errors.TaskRunCancelled",
    "the task run was cancelled before it began",
    failure_class=FailureClass.CANCELLED,
)


def _settled(large: list[Parts] | None) -> list[Parts] | None:
    """Return large values that user code cannot change any more."""
    if large is None:
        return None
    return [(bytes(pickled), [bytes(buffer) for buffer in buffers]) for pickled, buffers in large]
