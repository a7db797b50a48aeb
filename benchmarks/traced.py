"""Flow runs whose traces, or metrics, go to a collector on this machine, and the same without."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import TracebackType
from typing import Self

from benchmarks import ours
from benchmarks.case import Told
from benchmarks.collector import METRICS, TRACES, Collector
from raysched.settings import settings

BEAT_SECONDS = 0.001
"""How often a thread of the driver looks how late it is."""

WARM_UPS = 1
"""Flow runs before each turn."""


def alone(size: int) -> None:  # noqa: ARG001 - called like a turn
    """Let workers run before a turn of which nothing is told."""
    ours.warm_up()


def traces(size: int) -> None:  # noqa: ARG001 - called like a turn
    """Let workers run before a turn that is traced."""
    os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = collector().endpoint + TRACES
    ours.warm_up()
    collector().take(traces=WARM_UPS)


def metrics(size: int) -> None:  # noqa: ARG001 - called like a turn
    """Let workers run before a turn that is measured."""
    os.environ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] = collector().endpoint + METRICS
    ours.warm_up()


@cache
def collector() -> Collector:
    """Return the collector of this driver."""
    return Collector()


def watched_map(size: int) -> Told:
    return _watched(ours.many, size)


def watched_calls(size: int) -> Told:
    return _watched(ours.calls, size)


def traced_map(size: int) -> Told:
    return _traced(ours.many, size)


def traced_calls(size: int) -> Told:
    return _traced(ours.calls, size)


def _watched(work: Callable[[int], int], size: int) -> Told:
    with Heartbeat() as heart:
        began = time.monotonic()
        total = work(size)
        seconds = time.monotonic() - began
    return Told(total, seconds, {"delivered": seconds, "stall": heart.late(0.99)})


def _traced(work: Callable[[int], int], size: int) -> Told:
    """Also wait until the trace has arrived."""
    began = time.monotonic()
    told = _watched(work, size)
    came = collector().take(traces=1)
    figures = {
        **told.figures,
        "delivered": came.at - began,
        "spans": came.spans,
        "bytes": came.bytes,
        "twice": came.spans - came.distinct,
    }
    if not settings().trace_max_spans:
        # One of the flow, and two of each task run.
        figures["missing"] = 1 + 2 * size - came.distinct
    return replace(told, figures=figures)


class Heartbeat:
    """A thread of the driver that notes how late it goes on each time that it has slept."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def late(self, share: float) -> float:
        """Return how late this share of its beats were at most (seconds)."""
        late = sorted(self._late)
        return late[min(len(late) - 1, int(share * len(late)))] if late else 0.0

    def _beat(self) -> None:
        while not self._is_over.is_set():
            due = time.perf_counter() + BEAT_SECONDS
            time.sleep(BEAT_SECONDS)
            self._late.append(time.perf_counter() - due)
