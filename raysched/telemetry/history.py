"""What the database tells about runs that other processes have left, and exporting it."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from raysched.errors import StoreError
from raysched.model.rows import Batch, FlowRunRow
from raysched.telemetry.building.builder import Executions, TraceBuilder
from raysched.telemetry.ports import SpanSink
from raysched.telemetry.progress import Progress
from raysched.telemetry.traces import told

logger = logging.getLogger("raysched.telemetry")

MAX_RUNS = 20
"""So many runs of earlier drivers, the newest ones, are told by one process; others do so later."""

MAX_AGE_NS = 7 * 24 * 3600 * 10**9
"""Runs that were lost earlier (ns) are left to `raysched trace --unsent`."""

FLUSH_SECONDS = 10.0
"""How long the spans of one of them may take (seconds), before no more is tried."""

_LONGEST_NAP = 0.05
"""Seconds: after each batch the thread sleeps as long as it took, so that runs go on meanwhile."""


class History(Protocol):
    """What is kept of flow runs; may be used from several threads."""

    def undelivered(self, limit: int) -> Sequence[str]:
        """Return flow runs whose driver is dead, and that were not told completely, newest first.

        Args:
            limit: At most so many.
        """

    def replay(self, run_id: str) -> Iterator[tuple[FlowRunRow, Batch]]:
        """Yield the batches of a flow run and its subflows, as if they were committed just now."""

    def delivered(self, run_id: str, executions: int) -> None:
        """Note that all spans of a flow run's first executions have arrived."""

    def close(self) -> None:
        """Let go of the database."""


class Retelling:
    """Tells runs of earlier drivers, from a thread of its own, until there is no more or it stops.

    Begins when this process has a run: one that it resumes is not lost any more then, and whoever
    observes it tells of it. Nothing waits for this, and it leaves alone what a collector that is
    away would not take.

    Args:
        history: Knows them.
        max_spans: See `TraceBuilder`.
        sink: Where spans go.
        progress: Marks what has arrived.
    """

    def __init__(
        self,
        history: History,
        max_spans: int,
        sink: SpanSink,
        progress: Progress,
    ) -> None:
        self.runs: set[str] = set()
        """Which runs have been told, or are being told."""
        self._history = history
        self._max_spans = max_spans
        self._sink = sink
        self._progress = progress
        self._is_stopped = False
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin, unless it has begun."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="raysched-retelling", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Tell no more; what was begun stays unmarked."""
        self._is_stopped = True

    def _work(self) -> None:
        try:
            for run_id in self._history.undelivered(MAX_RUNS):
                self.runs.add(run_id)
                try:
                    goes_on = self._tell(run_id)
                except StoreError as error:
                    # Somebody has resumed or removed it meanwhile, and tells of it, or nobody does.
                    logger.debug("run %s cannot be told: %s", run_id, error)
                    continue
                if not goes_on:
                    return
        except Exception as error:  # noqa: BLE001 - the next program tries again
            logger.debug("runs of earlier drivers cannot be told: %r", error)

    def _tell(self, run_id: str) -> bool:
        """Tell a run; return whether to go on with others."""
        builder = TraceBuilder(self._max_spans, Executions.UNDELIVERED)
        for row, batch in self._history.replay(run_id):
            if self._is_stopped:
                return False
            began = time.perf_counter()
            spans = builder.take(row, batch)
            if spans.spans:
                self._sink.put(run_id, spans.spans)
            if spans.is_complete:
                executions = range(row.traced + 1, len(row.executions) + 1)
                told(self._sink, self._progress, row, executions)
            time.sleep(min(time.perf_counter() - began, _LONGEST_NAP))
        self._sink.flush(FLUSH_SECONDS)
        return not self._sink.unsent().get(run_id)
