"""Metrics as OTLP, sent now and then: every request tells all, so that none is ever queued.

Source: OpenTelemetry Protocol, metrics/v1, and the metrics data model.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import version

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from raysched.telemetry.metrics.aggregation import Aggregation, Distribution, Snapshot
from raysched.telemetry.metrics.environment import Temporality
from raysched.telemetry.metrics.instruments import (
    BOUNDARIES,
    DROPPED,
    NANOSECONDS,
    OVERFLOW,
    SCOPE,
    SIGNAL,
    Attributes,
    Instrument,
    Kind,
)
from raysched.telemetry.ports import Refused, Signal, Transport, Unavailable

logger = logging.getLogger("raysched.telemetry")

RETRY_SECONDS = 0.2
"""Pause before another try of the last request of a program (seconds)."""

_CLOSING_SECONDS = 0.2
"""How long `close` waits for a request on its way (seconds)."""


class MetricsExport:
    """Sends what was measured in a thread of its own, and once more at the end.

    Where a request is not delivered, the next one tells what it told: nothing is lost unless the
    last one is.

    Args:
        aggregation: What was measured.
        transport: Where to.
        resource: Encoded `Resource`.
        interval: Time between two requests (seconds).
        temporality: What data points tell.
    """

    def __init__(
        self,
        aggregation: Aggregation,
        transport: Transport,
        resource: bytes,
        interval: float,
        temporality: Temporality = Temporality.CUMULATIVE,
    ) -> None:
        self._aggregation = aggregation
        self._transport = transport
        self._resource = resource
        self._interval = interval
        self._delta = temporality is not Temporality.CUMULATIVE
        self._delivered: Snapshot | None = None
        self._reason = ""
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raysched-metrics", daemon=True)
        self._thread.start()

    def flush(self, seconds: float) -> None:
        """See `Consumer.flush`."""
        deadline = time.monotonic() + seconds
        while not self._closed.is_set() and (left := deadline - time.monotonic()) > 0:
            wait = self._send(left)
            if wait is None:
                return
            time.sleep(min(wait, max(0.0, deadline - time.monotonic())))

    def reason(self) -> str:
        """See `Outlet.reason`."""
        return f"{self._transport.url}: {self._reason}" if self._reason else ""

    def close(self) -> None:
        """See `Consumer.close`."""
        self._closed.set()
        self._transport.close()
        # A call of gRPC has been ended by that; one of HTTP may hang for its timeout.
        self._thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        while not self._closed.wait(self._interval):
            before = self._reason
            self._send(self._interval)
            # Once for each time that the collector is away; of the end, whoever closes this tells.
            if self._reason and not before and not self._closed.is_set():
                logger.warning("metrics were not delivered to %s", self.reason())

    def _send(self, seconds: float) -> float | None:
        """Send what there is; return after how long it may be tried again (seconds), or None."""
        if not self._sending.acquire(timeout=seconds):
            return None
        try:
            snapshot = self._aggregation.snapshot()
            before = self._delivered
            request = metrics_request(self._resource, snapshot, before, delta=self._delta)
            if not request:
                return None
            rejected = self._transport.send(request, seconds)
        except Unavailable as error:
            self._failed(error.reason)
            return RETRY_SECONDS if error.retry_after is None else error.retry_after
        except Refused as error:
            if error.unsupported:
                self._unsupported(error.reason)
            else:
                self._failed(error.reason)
            return None
        finally:
            self._sending.release()
        self._delivered, self._reason = snapshot, ""
        if rejected:
            self._aggregation.add(DROPPED, ((SIGNAL, Signal.METRICS.value),), rejected)
        return None

    def _unsupported(self, reason: str) -> None:
        """Send nothing any more, and say so quietly: many take traces alone, as Jaeger does."""
        self._closed.set()
        self._reason = ""
        logger.info("%s takes no metrics: %s", self._transport.url, reason)

    def _failed(self, reason: str) -> None:
        # What `close` breaks off is no reason for people.
        if not self._closed.is_set():
            self._reason = reason


def metrics_request(
    resource: bytes, snapshot: Snapshot, before: Snapshot | None = None, *, delta: bool = False
) -> bytes:
    """Return an `ExportMetricsServiceRequest`, or b"" if there is nothing to tell.

    Of a cumulative series that was never told it also tells that it was 0 before: most flow runs
    are over before a second request, and a database that sees one point alone (Prometheus) cannot
    know by how much it rose.

    Args:
        resource: Encoded `Resource`.
        snapshot: What was measured.
        before: What was delivered before, if there is anything.
        delta: Whether data points tell what was measured after `before` alone.
    """
    request = ExportMetricsServiceRequest()
    earlier = before or replace(snapshot, at=snapshot.started, sums={}, distributions={})
    if not delta:
        _add_metrics(request, resource, _zeros(snapshot, earlier), earlier, delta=False)
    _add_metrics(request, resource, snapshot, earlier, delta=delta)
    return request.SerializeToString()


def _zeros(snapshot: Snapshot, before: Snapshot) -> Snapshot:
    """Return what there was before of series that are new: nothing."""
    return Snapshot(
        snapshot.started,
        # Not the very beginning: a point of no time is none.
        max(before.at, snapshot.started + 1),
        {
            each: dict.fromkeys(sums.keys() - before.sums.get(each, {}).keys(), 0)
            for each, sums in snapshot.sums.items()
            if each.kind is Kind.COUNTER
        },
        {
            each: dict.fromkeys(
                series.keys() - before.distributions.get(each, {}).keys(), Distribution()
            )
            for each, series in snapshot.distributions.items()
        },
    )


def _add_metrics(
    request: ExportMetricsServiceRequest,
    resource: bytes,
    snapshot: Snapshot,
    before: Snapshot,
    *,
    delta: bool,
) -> None:
    """Add a snapshot to a request, if there is anything in it."""
    metrics = []
    for instrument, sums in snapshot.sums.items():
        known = before.sums.get(instrument, {}) if delta else {}
        metrics.append(_sums(instrument, sums, known, delta=delta))
    for instrument, distributions in snapshot.distributions.items():
        earlier = before.distributions.get(instrument, {}) if delta else {}
        metrics.append(_histogram(instrument, distributions, earlier, delta=delta))
    told = [metric for metric in metrics if _stamp(metric, before.at, snapshot)]
    if told:
        of_resource = request.resource_metrics.add()
        of_resource.resource.ParseFromString(resource)
        of_scope = of_resource.scope_metrics.add(metrics=told)
        of_scope.scope.name = SCOPE
        of_scope.scope.version = _version()


def _sums(
    instrument: Instrument,
    sums: Mapping[Attributes, int],
    before: Mapping[Attributes, int],
    *,
    delta: bool,
) -> Metric:
    metric = _described(instrument)
    metric.sum.is_monotonic = instrument.kind is Kind.COUNTER
    delta = delta and metric.sum.is_monotonic
    metric.sum.aggregation_temporality = _temporality(delta=delta)
    for attributes, amount in sums.items():
        new = amount - before.get(attributes, 0) if delta else amount
        if new or not delta:
            metric.sum.data_points.append(
                NumberDataPoint(attributes=_key_values(attributes), as_int=new)
            )
    return metric


def _histogram(
    instrument: Instrument,
    distributions: Mapping[Attributes, Distribution],
    before: Mapping[Attributes, Distribution],
    *,
    delta: bool,
) -> Metric:
    metric = _described(instrument)
    metric.histogram.aggregation_temporality = _temporality(delta=delta)
    for attributes, distribution in distributions.items():
        new = distribution
        if attributes in before:
            new -= before[attributes]
        if delta and not new.count:
            continue
        point = HistogramDataPoint(
            attributes=_key_values(attributes),
            count=new.count,
            sum=new.total / NANOSECONDS,
            bucket_counts=new.buckets,
            explicit_bounds=BOUNDARIES,
        )
        if new.shortest is not None and new.longest is not None:
            point.min, point.max = new.shortest / NANOSECONDS, new.longest / NANOSECONDS
        metric.histogram.data_points.append(point)
    return metric


def _stamp(metric: Metric, since: int, snapshot: Snapshot) -> bool:
    """Say of what time the points of a metric tell; return whether there are any."""
    data = metric.sum if metric.HasField("sum") else metric.histogram
    delta = data.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    for point in data.data_points:
        point.start_time_unix_nano = since if delta else snapshot.started
        point.time_unix_nano = snapshot.at
    return len(data.data_points) > 0


def _described(instrument: Instrument) -> Metric:
    return Metric(name=instrument.name, unit=instrument.unit, description=instrument.description)


def _temporality(*, delta: bool) -> AggregationTemporality.ValueType:
    if delta:
        return AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    return AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def _key_values(attributes: Attributes) -> list[KeyValue]:
    if attributes == OVERFLOW:
        return [KeyValue(key=name, value=AnyValue(bool_value=True)) for name, _ in attributes]
    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in attributes]


@cache
def _version() -> str:
    return version("raysched")
