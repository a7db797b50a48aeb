"""Metrics in Prometheus' text format, on a port of this machine.

Names follow OpenTelemetry's "Prometheus and OpenMetrics Compatibility": dots become underscores,
the unit is a suffix (`_seconds`; what is counted in braces has none), and counters end in `_total`.
Labels for the scope and the resource are left out: there is one scope, and a scrape has its target.
"""

import logging
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from raysched.telemetry.metrics.aggregation import Aggregation
from raysched.telemetry.metrics.instruments import (
    BOUNDARIES,
    NANOSECONDS,
    Attributes,
    Instrument,
    Kind,
)

logger = logging.getLogger("raysched.telemetry")

HOST = "127.0.0.1"
"""Only this machine may look: whoever wants more puts a proxy before it."""

_BOUNDS = [*map(floatToGoString, BOUNDARIES), "+Inf"]


class PrometheusCollector(Collector):
    """Tells Prometheus' client what was measured.

    Args:
        aggregation: What was measured.
    """

    def __init__(self, aggregation: Aggregation) -> None:
        self._aggregation = aggregation

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector.collect`."""
        snapshot = self._aggregation.snapshot()
        for instrument, sums in snapshot.sums.items():
            family = CounterMetricFamily if instrument.kind is Kind.COUNTER else GaugeMetricFamily
            names = _names(sums)
            metric = family(_named(instrument.name), instrument.description, labels=_labels(names))
            for attributes, amount in sums.items():
                metric.add_metric(_values(names, attributes), amount)
            yield metric
        for instrument, distributions in snapshot.distributions.items():
            names = _names(distributions)
            histogram = HistogramMetricFamily(
                _named(instrument.name),
                instrument.description,
                labels=_labels(names),
                unit=_unit(instrument),
            )
            for attributes, distribution in distributions.items():
                buckets = zip(_BOUNDS, accumulate(distribution.buckets), strict=True)
                histogram.add_metric(
                    _values(names, attributes),
                    [(bound, float(count)) for bound, count in buckets],
                    distribution.total / NANOSECONDS,
                )
            yield histogram


class PrometheusServer:
    """Answers scrapes of this process's metrics.

    A port that cannot be had never fails a run: a second program with the same variable, as it is
    in anybody's profile, is told in the log that its metrics are not served.

    Args:
        aggregation: What was measured.
        port: The port.
    """

    def __init__(self, aggregation: Aggregation, port: int) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(PrometheusCollector(aggregation))
        self._server = None
        try:
            self._server, self._thread = start_http_server(port, HOST, registry)
        except OSError as error:
            logger.warning(
                "RAYSCHED_METRICS_PORT=%d: %s, so the metrics of this program are not served; "
                "give each program that runs at the same time a port of its own, or unset it",
                port,
                (error.strerror or str(error)).lower(),
            )

    def flush(self, seconds: float) -> None:
        """See `Outlet.flush`: whoever wants them comes for them."""

    def reason(self) -> str:
        """See `Outlet.reason`."""
        return ""

    def close(self) -> None:
        """See `Outlet.close`."""
        server, self._server = self._server, None
        if server is None:
            return
        stopping = threading.Thread(target=server.shutdown, daemon=True)
        stopping.start()
        # The server looks up twice a second, or when somebody comes.
        with suppress(OSError):
            socket.create_connection((HOST, server.server_port), timeout=1.0).close()
        stopping.join()
        server.server_close()
        self._thread.join()


def _named(name: str) -> str:
    return name.replace(".", "_")


def _unit(instrument: Instrument) -> str:
    return "seconds" if instrument.unit == "s" else ""


def _names(series: Iterable[Attributes]) -> list[str]:
    """Return the names of all attributes of a metric's series."""
    return list(dict.fromkeys(name for attributes in series for name, _ in attributes))


def _labels(names: Iterable[str]) -> list[str]:
    return [_named(name) for name in names]


def _values(names: Iterable[str], attributes: Attributes) -> list[str]:
    """Return the labels' values; to Prometheus, "" is a label that is not there."""
    given = dict(attributes)
    return [given.get(name, "") for name in names]
