"""Whether this process exports anything; asked before each engine, so it imports nothing heavy."""

import os
import sys
from typing import Any

from raysched.settings import Settings
from raysched.telemetry import jaeger
from raysched.telemetry.ports import Signal
from raysched.telemetry.sending.environment import Destination, Protocol, destination, is_disabled

_LOCAL = "http://localhost:4318", "http://localhost:4317"
"""Where a collector on this machine listens, by HTTP and by gRPC. Source: OTLP, default ports."""


def is_wanted(settings: Settings) -> bool:
    """Return whether flow runs of this process are to be traced, measured or logged.

    Args:
        settings: Settings of this process.

    Raises:
        SettingsError: An `OTEL_*` variable has an impossible value.
    """
    if is_disabled():
        return False
    return bool(
        settings.metrics_port
        or has_own_tracer()
        or has_own_meter()
        or any(destination(signal) for signal in (Signal.METRICS, Signal.LOGS))
        or traces_destination(settings)
    )


def situation(settings: Settings) -> tuple[object, ...]:
    """Return what the telemetry of this process rests on: another one is due where that changes.

    Args:
        settings: Settings of this process.
    """
    variables = sorted(item for item in os.environ.items() if item[0].startswith("OTEL_"))
    return (
        sys.modules["opentelemetry.trace"].get_tracer_provider() if has_own_tracer() else None,
        sys.modules["opentelemetry.metrics"].get_meter_provider() if has_own_meter() else None,
        jaeger.running(settings.home),
        variables,
    )


def traces_destination(settings: Settings) -> Destination | None:
    """Return where traces go, or None if they are not exported.

    That is what the environment names, else the Jaeger of `raysched jaeger`, else, with
    `settings.trace`, a collector on this machine.

    Args:
        settings: Settings of this process.

    Raises:
        SettingsError: An `OTEL_*` variable has an impossible value.
    """
    named = destination(Signal.TRACES)
    if named is not None:
        return named
    kept = jaeger.running(settings.home)
    if kept is None and not settings.trace:
        return None
    http, grpc = (kept.http, kept.grpc) if kept is not None else _LOCAL
    chosen = destination(Signal.TRACES, http)
    if chosen is not None and chosen.protocol is Protocol.GRPC:
        return destination(Signal.TRACES, grpc)
    return chosen


def has_own_tracer() -> bool:
    """Return whether the program has set a tracer provider of OpenTelemetry's SDK.

    One of another make (Datadog's, say) takes no spans that were made elsewhere, and so counts for
    none here; it is not replaced either.
    """
    return program_tracer("") is not None


def program_tracer(version: str) -> Any | None:
    """Return a tracer `raysched` of the SDK provider that the program has set, or None.

    Args:
        version: Version of the scope.

    Returns:
        An `opentelemetry.sdk.trace.Tracer`; its sampler, resource and span processor are those of
        the provider.
    """
    api = sys.modules.get("opentelemetry.trace")
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    if api is None or sdk is None:
        return None
    # What raysched itself has set gives no tracers of this class.
    tracer = api.get_tracer_provider().get_tracer("raysched", version)
    return tracer if isinstance(tracer, sdk.Tracer) else None


def has_own_meter() -> bool:
    """Return whether the program has set a meter provider of OpenTelemetry's SDK."""
    api = sys.modules.get("opentelemetry.metrics")
    sdk = sys.modules.get("opentelemetry.sdk.metrics")
    if api is None or sdk is None:
        return False
    return isinstance(api.get_meter_provider(), sdk.MeterProvider)
