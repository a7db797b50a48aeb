"""Tracer providers: the program's own, which is used and never replaced, and ours."""

import os
import threading
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from raysched import flow, task, wiring
from raysched.settings import settings
from raysched.telemetry import jaeger
from raysched.telemetry.pages import trace_url
from telemetry.receiver import Receiver
from telemetry.seen import Seen

pytestmark = pytest.mark.usefixtures("home")


@task
def double(number: int) -> int:
    return 2 * number


@flow
def program(size: int = 1) -> int:
    with trace.get_tracer("users").start_as_current_span("user"):
        return sum(double.map(range(size)).result())


class Marks(SpanProcessor):
    """A processor of the program's that adds to each span what it knows when it begins."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        del parent_context
        span.set_attribute("tenant", "mine")


class TestOwn:
    @pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9"])
    def test_that_is_set_between_two_flows_gets_the_second_one(
        self, monkeypatch: pytest.MonkeyPatch, endpoint: str
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        # Nobody listens there; the second flow may need some of it.
        monkeypatch.setenv("RAYSCHED_TELEMETRY_FLUSH_SECONDS", "5")
        program()
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        program()
        seen = Seen(exporter)
        assert seen.path(seen.one("run double")) == ["flow program", "task double", "run double"]
        assert seen.path(seen.one("user")) == ["flow program", "user"]

    def test_its_resource_and_processors_are_for_our_spans_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(
            resource=Resource({"service.name": "theirs"}), shutdown_on_exit=False
        )
        provider.add_span_processor(Marks())
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        program()
        spans = Seen(exporter).all()
        assert {span.name for span in spans} == {
            "flow program",
            "task double",
            "run double",
            "user",
        }
        assert {span.resource.attributes["service.name"] for span in spans} == {"theirs"}
        assert {span.attributes["tenant"] for span in spans} == {"mine"}
        assert trace.get_tracer_provider() is provider

    def test_a_burst_gets_through_its_batch_processor(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYSCHED_TRACE_MAX_SPANS", "0")
        settings.cache_clear()
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        program(3_000)
        names = Counter(span.name for span in Seen(exporter).all())
        assert names == {"flow program": 1, "user": 1, "task double": 3_000, "run double": 3_000}
        provider.shutdown()

    def test_a_processor_that_raises_harms_no_run(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Raises(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                if span.name.startswith("task"):
                    raise ValueError(f"not {span.name}")

        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(Raises())
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        assert program(3) == 6
        wiring.disconnect()
        (line,) = [text for text in caplog.messages if text.startswith("not sent")]
        assert "3 spans of run" in line
        assert "ValueError: not task double" in line

    def test_a_collector_in_the_environment_gets_nothing_beside_it(
        self, collector: Receiver, seen: Seen
    ) -> None:
        program()
        assert seen.one("flow program").parent is None
        assert collector.spans() == []

    def test_no_link_leads_to_a_jaeger_that_gets_nothing(
        self, home: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
    ) -> None:
        jaeger.place(home).mkdir(parents=True)
        ui, http, grpc = (f"http://localhost:{port}" for port in (16686, 4318, 4317))
        own = os.getpid()
        kept = jaeger.KeptJaeger("jaeger", own, jaeger.began_at(own), ui, http, grpc, "", "", 0.0)
        jaeger.record(home, kept)
        assert trace_url(settings(), "1" * 32) == f"http://localhost:16686/trace/{'1' * 32}"
        request.getfixturevalue("seen")
        program()
        assert not capsys.readouterr().err


class TestOurs:
    def test_spans_around_a_flow_are_exported(self, collector: Receiver) -> None:
        program()
        with trace.get_tracer("users").start_as_current_span("main"):
            program()
        Seen.of(collector)
        (main,) = [span for span in collector.spans() if span.name == "main"]
        below = [span for span in collector.spans() if span.parent_span_id == main.span_id]
        assert [span.name for span in below] == ["flow program"]
        assert below[0].trace_id == main.trace_id

    @pytest.mark.usefixtures("collector")
    def test_one_that_the_program_sets_later_takes_its_place(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program()
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        # Another test of this process may have done so before.
        monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
        trace.set_tracer_provider(provider)
        assert trace.get_tracer_provider() is provider
        program()
        # As soon as the flow has returned: the program may end its provider then.
        names = Counter(span.name for span in exporter.get_finished_spans())
        assert names == {"user": 1, "flow program": 1, "task double": 1, "run double": 1}

    @pytest.mark.usefixtures("collector")
    def test_baggage_stays_in_the_flow(self) -> None:
        @flow
        def asks() -> object:
            return baggage.get_baggage("who")

        token = attach(baggage.set_baggage("who", "me"))
        try:
            assert asks() == "me"
        finally:
            detach(token)

    def test_many_threads(self, collector: Receiver) -> None:
        @flow
        def threads() -> None:
            def make() -> None:
                for _ in range(100):
                    trace.get_tracer("users").start_span("user").end()

            own = [threading.Thread(target=make) for _ in range(8)]
            for thread in own:
                thread.start()
            for thread in own:
                thread.join()

        threads()
        assert Seen.of(collector)["user"] == 800
