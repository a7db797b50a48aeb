"""Metrics: what was committed, measured, and given to whoever wants it."""

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from raysched.model.rows import Batch, FlowRunRow
from raysched.settings import Settings
from raysched.telemetry.earlier import Replay, nothing_kept
from raysched.telemetry.metrics.aggregation import Aggregation
from raysched.telemetry.metrics.instruments import (
    BOUNDARIES,
    DROPPED,
    INSTRUMENTS,
    NANOSECONDS,
    SCOPE,
    SIGNAL,
    Attributes,
    Instrument,
    Kind,
    Recorder,
)
from raysched.telemetry.metrics.measuring import Measuring
from raysched.telemetry.ports import Signal
from raysched.telemetry.sending.environment import destination
from raysched.telemetry.sending.transports import open_transport
from raysched.telemetry.unsent import Unsent
from raysched.telemetry.wanted import has_own_meter

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram, MeterProvider, UpDownCounter


class Outlet(Protocol):
    """Takes what was measured to where people look at it."""

    def flush(self, seconds: float) -> None:
        """Deliver what there is, for at most so long."""

    def reason(self) -> str:
        """Return why the last request was not delivered, with where to, or ""."""

    def close(self) -> None:
        """Let go of what it has; after the last `flush`."""


class Metrics:
    """A `Consumer` that measures.

    Args:
        recorders: Take the measurements.
        outlets: Where they go from there.
        replay: Returns what is kept of a flow run that goes on here.
    """

    def __init__(
        self,
        recorders: Sequence[Recorder],
        outlets: Sequence[Outlet] = (),
        replay: Replay = nothing_kept,
    ) -> None:
        self._recorders = tuple(recorders)
        self._outlets = tuple(outlets)
        self._measuring = Measuring(self, replay)
        self._process = os.getpid()

    def take(self, row: FlowRunRow, batch: Batch) -> None:
        """See `Consumer.take`."""
        self._measuring.take(row, batch)

    def flush(self, seconds: float) -> None:
        """See `Consumer.flush`."""
        if os.getpid() != self._process:
            # A fork has neither the threads of the outlets, nor anything of its own to tell.
            return
        for outlet in self._outlets:
            outlet.flush(seconds)

    def unsent(self) -> Unsent | None:
        """Return what was not delivered, or None."""
        reasons = [reason for outlet in self._outlets if (reason := outlet.reason())]
        return Unsent(Signal.METRICS, "metrics", reasons[0]) if reasons else None

    def close(self) -> None:
        """See `Consumer.close`."""
        if os.getpid() != self._process:
            return
        for outlet in self._outlets:
            outlet.close()

    def dropped(self, signal: Signal, count: int) -> None:
        """Count what was not delivered; from any thread."""
        self.add(DROPPED, ((SIGNAL, signal.value),), count)

    def record(
        self, instrument: Instrument, attributes: Attributes, durations: Sequence[int]
    ) -> None:
        """See `Recorder.record`."""
        for recorder in self._recorders:
            recorder.record(instrument, attributes, durations)

    def add(self, instrument: Instrument, attributes: Attributes, amount: int) -> None:
        """See `Recorder.add`."""
        for recorder in self._recorders:
            recorder.add(instrument, attributes, amount)


def open_metrics(
    settings: Settings, resource: bytes, replay: Replay = nothing_kept
) -> Metrics | None:
    """Return what measures the flow runs of this process, or None if nobody wants to know.

    The program's own meter provider goes before a collector that the environment names: it has an
    exporter of its own. Prometheus' port is served beside either.

    Args:
        settings: Settings of this process.
        resource: Encoded OTLP `Resource`.
        replay: Returns what is kept of a flow run that goes on here.

    Raises:
        SettingsError: An `OTEL_*` variable has an impossible value.
    """
    recorders: list[Recorder] = []
    outlets: list[Outlet] = []
    aggregation = Aggregation()
    if has_own_meter():
        from opentelemetry.metrics import get_meter_provider

        recorders.append(MeterRecorder(get_meter_provider()))
    elif (target := destination(Signal.METRICS)) is not None:
        from raysched.telemetry.metrics.environment import export_interval, temporality
        from raysched.telemetry.metrics.export import MetricsExport

        outlets.append(
            MetricsExport(
                aggregation, open_transport(target), resource, export_interval(), temporality()
            )
        )
    if settings.metrics_port:
        from raysched.telemetry.metrics.prometheus import PrometheusServer

        outlets.append(PrometheusServer(aggregation, settings.metrics_port))
    if outlets:
        recorders.append(aggregation)
    return Metrics(recorders, outlets, replay) if recorders else None


class MeterRecorder:
    """Records into instruments of the program's own meter provider, one call a measurement.

    Args:
        provider: The provider.
    """

    def __init__(self, provider: "MeterProvider") -> None:
        meter = provider.get_meter(SCOPE, version("raysched"))
        self._histograms: dict[Instrument, Histogram] = {}
        self._counters: dict[Instrument, Counter | UpDownCounter] = {}
        for each in INSTRUMENTS:
            if each.kind is Kind.HISTOGRAM:
                self._histograms[each] = meter.create_histogram(
                    each.name,
                    each.unit,
                    each.description,
                    explicit_bucket_boundaries_advisory=BOUNDARIES,
                )
            elif each.kind is Kind.COUNTER:
                self._counters[each] = meter.create_counter(each.name, each.unit, each.description)
            else:
                self._counters[each] = meter.create_up_down_counter(
                    each.name, each.unit, each.description
                )

    def record(
        self, instrument: Instrument, attributes: Attributes, durations: Sequence[int]
    ) -> None:
        """See `Recorder.record`."""
        record, given = self._histograms[instrument].record, dict(attributes)
        for duration in durations:
            record(duration / NANOSECONDS, given)

    def add(self, instrument: Instrument, attributes: Attributes, amount: int) -> None:
        """See `Recorder.add`."""
        self._counters[instrument].add(amount, dict(attributes))
