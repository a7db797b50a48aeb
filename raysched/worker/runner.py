"""Runs the items of a unit: one after the other, overlapping on an event loop, or in threads."""

import asyncio
import contextlib
import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from raysched import faults
from raysched.errors import SerializationError, TaskRunCancelled, TaskRunTimedOut
from raysched.model.states import StateType
from raysched.model.values import CrashKind, ErrorInfo, Evidence, FailureClass
from raysched.results import scripts
from raysched.results.envelope import Parts
from raysched.worker.code import code_of
from raysched.worker.context import WorkerContext
from raysched.worker.deadlines import Deadlines
from raysched.worker.extensions import collector_of
from raysched.worker.failures import describe_error
from raysched.worker.hygiene import Hygiene
from raysched.worker.interrupt import (
    CancelRequested,
    Interruption,
    SignalInterruption,
    Signals,
    ThreadInterruption,
)
from raysched.worker.items import ItemRun
from raysched.worker.logs import capture
from raysched.worker.progress import Outcome, UnitProgress, WorkerIdentity
from raysched.worker.protocol import decode_unit
from raysched.worker.stages import StageRun
from raysched.worker.stored import StoredInputs, header_of, keep

LOGGER = "raysched.worker"
"""Logger of what is said of a task run by the code beside it."""


class Watcher(Protocol):
    """What is told of each unit that runs, to report it live and to cancel its items."""

    def begin(self, run: "UnitRun") -> None:
        """Watch a unit from now on."""

    def end(self) -> None:
        """Watch it no longer."""


@dataclass(frozen=True, slots=True)
class Process:
    """The process that units run in.

    Attributes:
        identity: Where it is.
        signals: The installed handlers of a process that is there for units only: there, log
            records of any thread belong to the item that runs alone. None elsewhere: then they
            are installed for each unit.
        watcher: Told of each unit, or None.
    """

    identity: WorkerIdentity
    signals: Signals | None = None
    watcher: Watcher | None = None


class UnitRun:
    """One unit while it runs.

    Args:
        contexts: The task of each stage.
        frame: The encoded unit.
        large: The lists of large values that came with it.
        process: Where it runs.

    Attributes:
        context: The task of its first stage.
        progress: What is known of it.
        deadlines: When its items have to have ended.
        passed_interrupt: The Ctrl-C or SIGTERM that ended it, to be raised where a person expects
            it; None in a dedicated process.
    """

    def __init__(
        self,
        contexts: Sequence[WorkerContext],
        frame: bytes,
        large: Sequence[Any],
        process: Process,
    ) -> None:
        self.context = contexts[0]
        self.progress = UnitProgress(decode_unit(frame), process.identity)
        self.progress.collect = collector_of(self.progress.unit.header)
        self.deadlines = Deadlines(self.progress, contexts)
        self.passed_interrupt: BaseException | None = None
        self._contexts = contexts
        self._size = self._stop = self.progress.unit.size
        self._large = large
        self._process = process
        self._stages: Sequence[StageRun] = ()
        self._local: dict[int, Parts] = {}
        self._last: ItemRun | None = None
        self._needed = self.progress.unit.needed()
        self._cancels: dict[int, Callable[[], object]] = {}
        self._cancelled: set[int] = set()
        self._in_turn: tuple[int, Interruption | None] = -1, None
        self._begun = 0
        self._lease_end = time.monotonic() + self.progress.unit.lease_seconds
        self._lease_is_over = False
        # Reentrant: a signal handler may cancel while the same thread holds it.
        self._lock = threading.RLock()

    @property
    def overlaps(self) -> bool:
        """Whether items overlap, on an event loop or in threads."""
        return self.context.is_async or (self.context.max_concurrency > 1 and self._size > 1)

    def run(self) -> tuple[bytes, list[Parts] | None]:
        """Run all items in this thread; return the report, and the large values if there are any.

        Whatever happens to an item is an outcome in the report, never an exception here.
        """
        signals = self._process.signals
        if signals is not None:
            signals.cancel_unit = self.cancel
        watcher = self._process.watcher
        if watcher is not None:
            watcher.begin(self)
        try:
            self._run_items()
            keep(self.progress, self._contexts)
        except KeyboardInterrupt as error:
            self._take_interrupt(error)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the driver has to know
            info = describe_error(error, FailureClass.INFRASTRUCTURE, CrashKind.BACKEND)
            self._end(self.progress.open_positions(), StateType.CRASHED, info)
        if not self.progress.missing:
            # Nobody has cancelled the others: what the report leaves out, the driver looks into.
            still = self.progress.open_positions()
            self._end_as_cancelled([i for i in still if i in self._cancelled])
        if watcher is not None:
            watcher.end()
        faults.reach("worker: before report")
        report = self.progress.final()
        if signals is not None:
            signals.cancel_unit = None
        return report, self.progress.large or None

    def cancel(self, positions: Iterable[int] | None = None) -> None:
        """End items, running or not, as CANCELLED; None means all. Thread-safe.

        The channel and Ray may both bring one order: it interrupts an item once.
        """
        with self._lock:
            fresh = set(range(self._size) if positions is None else positions) - self._cancelled
            self._cancelled |= fresh
            cancels = [self._cancels[i] for i in fresh & self._cancels.keys()]
            position, interruption = self._in_turn
            if interruption is not None and position in fresh:
                cancels.append(partial(interruption.interrupt, CancelRequested))
        for cancel in cancels:
            cancel()

    def _run_items(self) -> None:
        unit, signals, stored = self.progress.unit, self._process.signals, StoredInputs()
        try:
            self._stages = [
                StageRun(code_of(context), unit, stage, self._large, self._local, stored)
                for context, stage in zip(self._contexts, unit.stages, strict=True)
            ]
        except SerializationError as error:
            info = describe_error(error, name=self.context.task_name)
            self._end(range(self._size), StateType.FAILED, info)
            return
        if signals is not None:
            functions = [stage.code.function for stage in self._stages]
            scripts.works_for(header_of(unit.header).script, functions)
        if unit.stored:
            self.progress.missing = stored.load(unit.stages)
            if self.progress.missing:
                return
        if signals is not None or threading.current_thread() is not threading.main_thread():
            self._run_by_mode(signals)
            return
        signals = Signals(dedicated=False)
        signals.install()
        try:
            self._run_by_mode(signals)
        finally:
            signals.uninstall()

    def _run_by_mode(self, signals: Signals | None) -> None:
        dedicated = self._process.signals is not None
        hygiene = Hygiene(self.context.task_name, dedicated=dedicated)
        try:
            if self.context.is_async:
                with asyncio.Runner() as loop:
                    loop.run(self._run_on_loop())
            elif self.overlaps:
                workers = min(self.context.max_concurrency, self._size)
                with ThreadPoolExecutor(workers, thread_name_prefix=self.context.task_name) as pool:
                    wait([pool.submit(self._run_in_thread, i) for i in range(self._size)])
            else:
                self._run_in_turn(signals, hygiene)
        finally:
            self._warn(hygiene.end())

    def _warn(self, notices: Iterable[str]) -> None:
        """Keep warnings with the task run that was the last to begin."""
        for notice in notices:
            if self._last is not None:
                self._last.scope.log_from_thread(logging.WARNING, LOGGER, notice, time.time_ns())

    def _run_in_turn(self, signals: Signals | None, hygiene: Hygiene) -> None:
        """Run one item after the other, until the lease is over."""
        unit, needed, local = self.progress.unit, self._needed, self._local
        passed_on = (lambda: signals.passed_on) if signals else bool
        alone = signals is not None and signals is self._process.signals
        while True:
            interruption: Interruption = (
                SignalInterruption(signals) if signals is not None else ThreadInterruption()
            )
            position = self._begin_next(interruption)
            if position is None:
                break
            if unit.order is not None and not self._has_what_it_needs(position):
                # What follows from that, or when it is tried again, is for the driver.
                self.progress.hand_back([position])
                continue
            stage, place = self._place(position)
            item = ItemRun(stage, place, self.progress, position, interruption)
            self._last = item
            if alone:
                capture.attribute_threads_to(item.scope)
            # An empty context, as in a process of its own: nothing leaks in or from item to item.
            contextvars.Context().run(item.run, interruption, passed_on)
            encoded = item.encoded
            if notices := hygiene.after_item(item.took, encoded.size if encoded else 0):
                self._warn(notices)
            if position in needed and encoded is not None:
                local[position] = encoded.settled()
            if item.passed_interrupt is not None:
                self._take_interrupt(item.passed_interrupt)
        if alone:
            capture.attribute_threads_to(None)

    def _begin_next(self, interruption: Interruption) -> int | None:
        """Take the next item that is not cancelled, to be ended by `interruption`."""
        # The first one is begun in any case: a unit that gives back all its items gets nowhere.
        # Large values are told when the unit ends: after a long item that is now.
        held_up = self._lease_is_over and self.progress.large
        if self._begun and (held_up or time.monotonic() > self._lease_end):
            self.hand_back()
        with self._lock:
            while self._begun < self._stop:
                position = self._begun
                self._begun += 1
                if position not in self._cancelled:
                    self._in_turn = position, interruption
                    return position
            self._in_turn = -1, None
        return None

    def _has_what_it_needs(self, position: int) -> bool:
        parent = self.progress.unit.parent(position)
        return parent < 0 or parent in self._local

    def lease_left(self) -> float | None:
        """Return when to hand back what has not begun (seconds); None if there is nothing."""
        if self.overlaps or not 0 < self._begun < self._stop:
            return None
        return self._lease_end - time.monotonic()

    def end_unbegun(self) -> None:
        """End the cancelled items that have not begun now, not with the unit; for other threads.

        Not those that need an item of the unit: they are never told of before that one.
        """
        with self._lock:
            free = [i for i in self._cancelled if self.progress.unit.parent(i) < 0]
            begun = self._cancels if self.overlaps else range(self._begun)
            unbegun = [i for i in free if i not in begun]
        self._end_as_cancelled(unbegun)

    def evidence(self, position: int, *, timed_out: bool) -> Evidence:
        """Return what is known of an item that is about to be ended by force; for other threads.

        None of the user's code is called: it may never return. So a function `retry_on` is not
        asked, and arguments are told of the item only that was the last to begin.
        """
        evidence, last = Evidence(), self._last
        if last is not None and last.position == position:
            evidence["inputs"] = last.inputs(only_quick=True)
        code = self._place(position)[0].code
        asked = timed_out and isinstance(code.retry_on, tuple)
        if asked and (verdict := code.retry_verdict(TaskRunTimedOut(""))):
            evidence["retry"] = verdict
        return evidence

    def hand_back(self) -> None:
        """Give the items that have not begun to others. Thread-safe.

        Only those stay that continue the item that runs by the next task: nobody else could run
        them earlier, and what they need is here. Not behind a large value, which would be told, and
        be safe from what happens to this worker, only after them.
        """
        with self._lock:
            kept = self._begun
            while (
                kept < self._stop and not self.progress.large and self.progress.unit.continues(kept)
            ):
                kept += 1
            positions = [i for i in range(kept, self._stop) if i not in self._cancelled]
            self._stop = kept
            self._lease_end = math.inf
            self._lease_is_over = True
            # In here: whoever finds nothing left to begin finds these handed back.
            self.progress.hand_back(positions)

    def _run_in_thread(self, position: int) -> None:
        interruption = ThreadInterruption()
        if not self._claim(position, partial(interruption.interrupt, CancelRequested)):
            return
        stage, place = self._place(position)
        item = ItemRun(stage, place, self.progress, position, interruption)
        self._last = item
        contextvars.Context().run(item.run, interruption, bool)
        self._cancels.pop(position)

    def _place(self, position: int) -> tuple[StageRun, int]:
        number, place = self.progress.unit.place(position)
        return self._stages[number], place

    async def _run_on_loop(self) -> None:
        loop = asyncio.get_running_loop()
        limit = self.context.max_concurrency
        room = asyncio.Semaphore(limit if limit > 1 else self._size)

        async def run_one(position: int) -> None:
            async with room:
                stage, place = self._place(position)
                item = ItemRun(stage, place, self.progress, position)
                self._last = item
                await item.run_async(lambda: position in self._cancelled)

        def cancel(task: "asyncio.Task[None]") -> None:
            # Its loop may have been closed meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)

        tasks = []
        for position in range(self._size):
            task = loop.create_task(run_one(position), context=contextvars.Context())
            tasks.append(task)
            if not self._claim(position, partial(cancel, task)):
                task.cancel()
        await asyncio.wait(tasks)
        self._cancels.clear()
        if self.progress.interrupted_since < math.inf:
            from raysched.worker.processes import end_started_since

            end_started_since(self.progress.interrupted_since)

    def _claim(self, position: int, cancel: Callable[[], object]) -> bool:
        """Take an item, to be ended by `cancel`; return False if it is cancelled already."""
        with self._lock:
            if position in self._cancelled:
                return False
            self._cancels[position] = cancel
            return True

    def _take_interrupt(self, error: BaseException) -> None:
        self.passed_interrupt = error if self._process.signals is None else None
        self.cancel()

    def _end_as_cancelled(self, positions: Iterable[int]) -> None:
        for position in positions:
            key = self.progress.key(position)
            error = TaskRunCancelled(f"{key} was cancelled before it began", key=key)
            info = describe_error(error, FailureClass.CANCELLED)
            self._end([position], StateType.CANCELLED, info)

    def _end(self, positions: Iterable[int], state: StateType, error: ErrorInfo) -> None:
        now = time.time_ns()
        for position in positions:
            self.progress.end(Outcome(position, state, now, now, error=error))
