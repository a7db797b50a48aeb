"""Measurements added up in memory: what is exported now and then, by whichever protocol."""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import sub

from raysched.telemetry.metrics.instruments import (
    BOUNDARIES,
    MOST_SERIES,
    NANOSECONDS,
    OVERFLOW,
    Attributes,
    Instrument,
)

_BUCKETS = len(BOUNDARIES) + 1
_bucket_of = partial(bisect_left, [round(bound * NANOSECONDS) for bound in BOUNDARIES])


@dataclass(slots=True)
class Distribution:
    """Durations of one series of a histogram.

    Attributes:
        buckets: How many there were in each bucket; the last one has no upper bound.
        total: Their sum (ns).
        shortest: The shortest (ns), or None where that is not known.
        longest: The longest (ns), or None where that is not known.
    """

    buckets: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    total: int = 0
    shortest: int | None = None
    longest: int | None = None

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.buckets)

    def __sub__(self, before: "Distribution") -> "Distribution":
        """Return what was added after `before`; its extremes are not known."""
        return Distribution(list(map(sub, self.buckets, before.buckets)), self.total - before.total)


Series = Mapping[Attributes, int] | Mapping[Attributes, Distribution]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was measured up to one moment.

    Attributes:
        started: Since when (ns since the epoch).
        at: The moment (ns since the epoch).
        sums: Sums of counters by instrument and series.
        distributions: Of histograms, by instrument and series.
    """

    started: int
    at: int
    sums: Mapping[Instrument, Mapping[Attributes, int]]
    distributions: Mapping[Instrument, Mapping[Attributes, Distribution]]


class Aggregation:
    """Adds measurements up. Thread-safe.

    Args:
        clock: Nanoseconds since the epoch.
        most_series: Series of one instrument; what comes after goes to `OVERFLOW`.
    """

    def __init__(
        self, clock: Callable[[], int] = time.time_ns, most_series: int = MOST_SERIES
    ) -> None:
        self._clock = clock
        self._most_series = most_series
        self._started = clock()
        self._lock = threading.Lock()
        self._sums: dict[Instrument, dict[Attributes, int]] = {}
        self._distributions: dict[Instrument, dict[Attributes, Distribution]] = {}

    def record(
        self, instrument: Instrument, attributes: Attributes, durations: Sequence[int]
    ) -> None:
        """See `Recorder.record`."""
        if not durations:
            return
        counts = Counter(map(_bucket_of, durations))
        total, shortest, longest = sum(durations), min(durations), max(durations)
        with self._lock:
            series = self._distributions.setdefault(instrument, {})
            attributes = self._room_for(series, attributes)
            kept = series.setdefault(attributes, Distribution())
            for bucket, count in counts.items():
                kept.buckets[bucket] += count
            kept.total += total
            kept.shortest = shortest if kept.shortest is None else min(kept.shortest, shortest)
            kept.longest = longest if kept.longest is None else max(kept.longest, longest)

    def add(self, instrument: Instrument, attributes: Attributes, amount: int) -> None:
        """See `Recorder.add`."""
        with self._lock:
            series = self._sums.setdefault(instrument, {})
            attributes = self._room_for(series, attributes)
            series[attributes] = series.get(attributes, 0) + amount

    def snapshot(self) -> Snapshot:
        """Return what was measured until now."""
        with self._lock:
            return Snapshot(
                self._started,
                self._clock(),
                {instrument: dict(series) for instrument, series in self._sums.items()},
                {
                    instrument: {
                        attributes: replace(kept, buckets=kept.buckets.copy())
                        for attributes, kept in series.items()
                    }
                    for instrument, series in self._distributions.items()
                },
            )

    def _room_for(self, series: Series, attributes: Attributes) -> Attributes:
        """Return under which attributes there is room for a measurement."""
        # One is kept free for all the others.
        full = len(series) >= self._most_series - 1
        return OVERFLOW if full and attributes not in series else attributes
