"""What `OTEL_*` variables say of metrics alone.

Source: OpenTelemetry, environment variable specification and its part on the OTLP exporter.
"""

import os
from enum import StrEnum

from raysched.errors import SettingsError

_INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
_TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


class Temporality(StrEnum):
    """What data points tell, as `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` calls it."""

    CUMULATIVE = "cumulative"
    """What was measured since the program began."""
    DELTA = "delta"
    """What was measured since the last request that was delivered; up-down counters tell all."""
    LOWMEMORY = "lowmemory"
    """For what is measured here the same as `DELTA`."""


def export_interval() -> float:
    """Return how much time is between two requests (seconds).

    Raises:
        SettingsError: `OTEL_METRIC_EXPORT_INTERVAL` is no number of milliseconds over 0.
    """
    value = os.environ.get(_INTERVAL, "").strip() or "60000"
    if not value.isdecimal() or not int(value):
        raise SettingsError(
            f"{_INTERVAL}: {value!r} is no time over 0; give milliseconds, for example 60000"
        )
    return int(value) / 1000


def temporality() -> Temporality:
    """Return what data points tell.

    Raises:
        SettingsError: `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` is something else.
    """
    value = os.environ.get(_TEMPORALITY, "").strip().lower() or Temporality.CUMULATIVE
    if value not in list(Temporality):
        raise SettingsError(
            f"{_TEMPORALITY}: {value!r} is unknown; set it to {', '.join(Temporality)}"
        )
    return Temporality(value)
