"""What was committed on its way from the engine's thread to consumers in the background."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from raysched.model.rows import Batch, FlowRunRow, TaskRunColumns
from raysched.telemetry.ports import Consumer

logger = logging.getLogger("raysched.telemetry")

MAX_BYTES = 64 * 1024**2
"""So much waits for consumers (estimated bytes) before a run is given up."""

_BUSY_BYTES = 4 * 1024**2
"""From this backlog on the thread takes no naps any more."""

_LONGEST_NAP = 0.005
"""Seconds. After each batch the thread sleeps as long as it took: between two of its turns for the
GIL the engine's thread shall have it at once."""

_LOOK_SECONDS = 0.02
"""How often the thread looks for work (seconds): waking it would cost who puts more than the rest,
and start it just when the engine's thread goes on."""

_TASK_RUN_BYTES = 64
_ROW_BYTES = 512
"""What a task run in columns takes in memory, and what another row takes, about."""

_CLOSING_SECONDS = 1.0
"""How long `close` waits for consumers beyond its time (seconds)."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A batch on its way; `top` is the flow run at the top."""

    top: str
    row: FlowRunRow
    batch: Batch
    bytes: int


@dataclass(slots=True)
class _Wish:
    """What a thread waits for: that consumers have taken all, flushed, and are closed at last."""

    deadline: float
    flushes: bool
    is_last: bool
    done: threading.Event


class Pipeline:
    """Feeds consumers from one background thread.

    A consumer that raises is logged once; the run of the batch then counts as not fully told.
    A fork of the process tells nothing.

    Args:
        consumers: Who is told, the most important one first: it gets what is left of the time of a
            `flush` after the others.
        logs: Whether any of them wants log records.
        max_bytes: How much may wait for them (estimated bytes).
    """

    def __init__(
        self, consumers: Sequence[Consumer], *, logs: bool, max_bytes: int = MAX_BYTES
    ) -> None:
        self._consumers = tuple(consumers)
        self._logs = logs
        self._max_bytes = max_bytes
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._queue: deque[_Told | _Wish] = deque()
        self._bytes = 0
        self._tops: dict[str, str] = {}
        self._behind: set[str] = set()
        self._taking = ""
        self._wishes = 0
        self._is_closed = False
        self._raised: set[int] = set()
        self._thread = threading.Thread(target=self._work, name="raysched-telemetry", daemon=True)
        self._thread.start()

    def put(self, row: FlowRunRow, batch: Batch) -> None:
        """Tell a committed batch of one flow run, sooner or later; never waits, and keeps a copy.

        Of a run whose batches find no room nothing more is kept: see `behind`.
        """
        if os.getpid() != self._process:
            return
        copy, size = _slim(batch, logs=self._logs)
        with self._changed:
            top = self._tops.setdefault(row.id, self._tops.get(row.parent, row.id))
            if batch.flow_run is not None and batch.flow_run.state.is_terminal:
                del self._tops[row.id]
            if top in self._behind:
                return
            if self._is_closed or self._bytes + size > self._max_bytes:
                self._behind.add(top)
                return
            self._bytes += size
            self._queue.append(_Told(top, row, copy, size))

    def behind(self) -> frozenset[str]:
        """Return the flow runs at the top that consumers do not know all of.

        Those of which something was not kept, and those of which something still waits.
        """
        if os.getpid() != self._process:
            return frozenset()
        with self._changed:
            waiting = {told.top for told in self._queue if isinstance(told, _Told)}
            return frozenset(self._behind | waiting | ({self._taking} - {""}))

    def settle(self, seconds: float) -> bool:
        """Have consumers take all that was put, for at most so long; return whether they have."""
        return self._wish(seconds, flushes=False, is_last=False)

    def flush(self, seconds: float) -> bool:
        """Tell all that was put, and let consumers flush, for at most so long.

        Returns:
            Whether that was enough time for everyone to try.
        """
        return self._wish(seconds, flushes=True, is_last=False)

    def close(self, seconds: float) -> None:
        """Flush for at most so long, and let go of everything. Idempotent."""
        if self._wish(seconds, flushes=True, is_last=True):
            self._thread.join(_CLOSING_SECONDS)

    def _wish(self, seconds: float, *, flushes: bool, is_last: bool) -> bool:
        if os.getpid() != self._process:
            return True
        wish = _Wish(time.monotonic() + seconds, flushes, is_last, threading.Event())
        with self._changed:
            if self._is_closed:
                return True
            self._is_closed = is_last
            self._wishes += 1
            self._queue.append(wish)
            self._changed.notify()
        return wish.done.wait(seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait(_LOOK_SECONDS)
                item = self._queue.popleft()
                if isinstance(item, _Told):
                    self._taking = item.top
            if isinstance(item, _Wish):
                self._fulfil(item)
                if item.is_last:
                    return
            else:
                self._tell(item)

    def _tell(self, told: _Told) -> None:
        began = time.perf_counter()
        for consumer in self._consumers:
            with self._harmless(consumer, told.top):
                consumer.take(told.row, told.batch)
        with self._changed:
            self._bytes -= told.bytes
            self._taking = ""
            in_a_hurry = self._wishes or self._bytes > _BUSY_BYTES
        if not in_a_hurry:
            time.sleep(min(time.perf_counter() - began, _LONGEST_NAP))

    def _fulfil(self, wish: _Wish) -> None:
        for number in range(len(self._consumers) if wish.flushes else 0, 0, -1):
            left = max(0.0, wish.deadline - time.monotonic())
            with self._harmless(self._consumers[number - 1]):
                self._consumers[number - 1].flush(left / number)
        if wish.is_last:
            for consumer in self._consumers:
                with self._harmless(consumer):
                    consumer.close()
        with self._changed:
            self._wishes -= 1
        wish.done.set()

    @contextmanager
    def _harmless(self, consumer: Consumer, top: str = "") -> Iterator[None]:
        """Let what a consumer raises harm nothing, and be logged once."""
        try:
            yield
        except Exception:
            if id(consumer) not in self._raised:
                self._raised.add(id(consumer))
                logger.exception("telemetry: %s raised", type(consumer).__name__)
            if top:
                with self._changed:
                    self._behind.add(top)


def _slim(batch: Batch, *, logs: bool) -> tuple[Batch, int]:
    """Return a copy without values and what else nobody is told, and about its size (bytes)."""
    copy = Batch(
        batch.run,
        batch.epoch,
        flow_run=batch.flow_run,
        groups=batch.groups,
        units=batch.units,
        task_runs=[_without_values(columns) for columns in batch.task_runs],
        attempts=batch.attempts,
        logs=batch.logs if logs else [],
        restarted=batch.restarted,
        places=batch.places,
        events=batch.events,
        spans=batch.spans,
        dropped_spans=batch.dropped_spans,
    )
    rows = len(copy.groups) + len(copy.attempts) + len(copy.logs) + len(copy.events) + 1
    size = rows * _ROW_BYTES
    for columns in copy.task_runs:
        size += len(columns.indices) * _TASK_RUN_BYTES
    for group in copy.groups:
        size += len(group.identities)
    for attempt in copy.attempts:
        if attempt.error is not None:
            size += len(attempt.error.traceback) + len(attempt.error.exception or b"")
    for log in copy.logs:
        size += len(log.message)
    return copy, size + sum(map(len, copy.spans))


def _without_values(columns: TaskRunColumns) -> TaskRunColumns:
    return TaskRunColumns(
        columns.group,
        columns.indices,
        columns.states,
        columns.attempts,
        columns.started,
        columns.ended,
        (),
        columns.sizes,
        columns.names,
        columns.roots,
        columns.handled,
        columns.reasons,
        columns.rolled_back,
        columns.locations,
        columns.places,
    )
