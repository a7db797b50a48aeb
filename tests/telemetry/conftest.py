"""Programs that are traced: in this process with a provider, or with a collector."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from raysched import wiring
from raysched.settings import settings
from raysched.telemetry import exports
from raysched.telemetry.provider import DriverSpans
from raysched.telemetry.sending.environment import Protocol
from telemetry.receiver import WAIT_SECONDS, Receiver, receiving
from telemetry.seen import Seen


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing of raysched, nor of telemetry."""
    for name in [name for name in os.environ if name.startswith(("RAYSCHED_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("TRACEPARENT", raising=False)


@pytest.fixture
def home(nothing_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program without any telemetry, with a database of its own."""
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAYSCHED_BACKEND", "inline")
    # All the time to deliver that a busy machine needs.
    monkeypatch.setenv("RAYSCHED_TELEMETRY_FLUSH_SECONDS", str(WAIT_SECONDS))
    # What other tests have set in this process is not this program's.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    settings.cache_clear()
    wiring.disconnect()
    # Its sampler is that of the environment of its first span.
    monkeypatch.setattr(exports, "driver_spans", DriverSpans())
    yield tmp_path / "home"
    wiring.disconnect()
    settings.cache_clear()


@pytest.fixture(params=["inline", "ray"])
def program(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, on both backends."""
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    monkeypatch.setenv("RAYSCHED_BACKEND", request.param)
    settings.cache_clear()
    return home


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """A provider that the program has set, and what its exporter has got."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return Seen(exporter)


@pytest.fixture(params=[Protocol.HTTP, Protocol.GRPC])
def collector(
    request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Receiver]:
    """A collector that the environment names, by each protocol."""
    with receiving(request.param) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
        yield receiver
        # Before it is gone.
        wiring.disconnect()
