"""Where flow runs stand in traces, and whether those are sampled."""

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)

from raysched import flow, get_run, task
from telemetry.receiver import Receiver
from telemetry.seen import Seen

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@task
def double(number: int) -> int:
    with trace.get_tracer("users").start_as_current_span("user"):
        return 2 * number


@flow
def below() -> int:
    return double(3)


@flow
def program() -> int:
    return below() + sum(double.map(range(3)).result())


@pytest.mark.usefixtures("program")
class TestTraces:
    def test_a_run_is_one_trace_with_the_id_of_the_run(self, seen: Seen) -> None:
        program()
        run = get_run("last")
        assert {span.context.trace_id for span in seen.all()} == {int(run.id, 16)}
        top = seen.one("flow program")
        assert top.parent is None
        assert seen.path(seen.one("flow below")) == ["flow program", "flow below"]
        # All parents are there.
        assert {seen.path(span)[0] for span in seen.all()} == {"flow program"}
        assert len(seen.named("user")) == 4

    def test_two_runs_are_two_traces(self, seen: Seen) -> None:
        program()
        program()
        tops = seen.named("flow program")
        assert len({top.context.trace_id for top in tops}) == 2

    def test_traceparent_of_the_environment(
        self, seen: Seen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRACEPARENT", PARENT)
        program()
        top = seen.one("flow program")
        assert f"{top.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
        assert f"{top.parent.span_id:016x}" == "b7ad6b7169203331"
        assert {span.context.trace_id for span in seen.all()} == {top.context.trace_id}

    def test_the_active_span_goes_before_the_environment(
        self, seen: Seen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRACEPARENT", PARENT)
        with trace.get_tracer("users").start_as_current_span("main", context=Context()):
            program()
        assert seen.path(seen.one("flow program")) == ["main", "flow program"]

    @pytest.mark.parametrize("wrong", ["", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
    def test_a_traceparent_that_is_none(
        self, seen: Seen, monkeypatch: pytest.MonkeyPatch, wrong: str
    ) -> None:
        monkeypatch.setenv("TRACEPARENT", wrong)
        program()
        assert seen.one("flow program").parent is None


@pytest.mark.usefixtures("program")
class TestSamplers:
    @pytest.mark.parametrize(
        ("sampler", "traceparent", "sampled"),
        [
            (ALWAYS_OFF, "", False),
            (ALWAYS_OFF, PARENT, False),
            (ALWAYS_ON, UNSAMPLED, True),
            (ParentBased(ALWAYS_ON), UNSAMPLED, False),
            (ParentBased(ALWAYS_OFF), PARENT, True),
            (ParentBased(ALWAYS_OFF), "", False),
            (TraceIdRatioBased(0), "", False),
            (TraceIdRatioBased(1), "", True),
        ],
    )
    def test_of_the_program_decide_for_the_whole_trace(
        self, monkeypatch: pytest.MonkeyPatch, sampler: Sampler, traceparent: str, *, sampled: bool
    ) -> None:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        monkeypatch.setenv("TRACEPARENT", traceparent)
        assert program() == 12
        names = {span.name for span in Seen(exporter).all()}
        all_names = {"flow program", "flow below", "task double", "run double", "user"}
        assert names == (all_names if sampled else set())

    def test_a_ratio_sees_the_id_of_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        exporter = InMemorySpanExporter()
        sampler = TraceIdRatioBased(0.5)
        provider = TracerProvider(sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        runs = set()
        for _ in range(8):
            below()
            runs.add(int(get_run("last").id, 16))
        sampled = {run for run in runs if run & sampler.TRACE_ID_LIMIT < sampler.bound}
        spans = Seen(exporter).all()
        assert {span.context.trace_id for span in spans} == sampled
        assert len(spans) == 4 * len(sampled)


class TestEnvironment:
    """What the variables of OpenTelemetry say where the program has set no provider."""

    @pytest.mark.parametrize(
        ("sampler", "argument", "sampled"),
        [
            ("always_off", "", False),
            ("traceidratio", "0", False),
            ("parentbased_traceidratio", "1", True),
            ("parentbased_always_off", "", False),
        ],
    )
    def test_sampler(
        self,
        collector: Receiver,
        monkeypatch: pytest.MonkeyPatch,
        sampler: str,
        argument: str,
        *,
        sampled: bool,
    ) -> None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
        assert below() == 6
        names = Seen.of(collector)
        everything = {"flow below": 1, "task double": 1, "run double": 1, "user": 1}
        assert names == (everything if sampled else {})

    def test_disabled(self, collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        assert below() == 6
        assert Seen.of(collector) == {}
        assert collector.asked == 0
