"""What samplers are told of flow runs, and what becomes of what they say; `tracestate`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.util.types import Attributes

from raysched import flow, get_run, task
from raysched.errors import SettingsError
from raysched.telemetry import sampling
from telemetry.receiver import Receiver
from telemetry.seen import Seen

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
STATE = "vendor=a1,other=b2"
OURS = TraceState.from_header([STATE])
SAMPLED = TraceFlags(TraceFlags.SAMPLED)

ADDED: Any = {
    "rule": "nightly",
    "share": 0.25,
    "which": ("a", "b"),
    "half": "\ud800",
    "what": {"no": "attribute"},
    "raysched.flow.name": "another",
    "raysched.flow.state": "another",
}
"""What a sampler returns."""


@task
def double(number: int) -> int:
    with trace.get_tracer("users").start_as_current_span("user"):
        return 2 * number


@flow
def below() -> int:
    return double(3)


@flow
def program() -> int:
    return below() + double(1)


@flow
def fails() -> None:
    raise ValueError


class Picks(Sampler):
    """A sampler with rules of its own: it notes what it is asked, and answers with its result."""

    def __init__(self, result: SamplingResult) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self._result = result

    def should_sample(  # noqa: PLR0913, PLR0917 - OpenTelemetry's
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        del trace_state
        if name.startswith("flow "):
            parent = trace.get_current_span(parent_context).get_span_context()
            self.asked.append(
                {
                    "trace": f"{trace_id:032x}",
                    "name": name,
                    "kind": kind,
                    "attributes": dict(attributes or {}),
                    "links": [(to.context.trace_id, to.context.span_id) for to in links or ()],
                    "parent": f"{parent.span_id:016x}",
                    "state": parent.trace_state.to_header(),
                }
            )
        return self._result

    def get_description(self) -> str:
        return "picks"


def sampled_by(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Let the program have a provider with this sampler."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return Seen(exporter)


@task
def state_here() -> str:
    return trace.get_current_span().get_span_context().trace_state.to_header()


@task
def calls_tasks() -> str:
    return inside()


@flow
def inside() -> str:
    return state_here()


@flow
def states() -> list[str]:
    own = trace.get_current_span().get_span_context().trace_state.to_header()
    double(1)
    return [own, state_here(), inside(), calls_tasks()]


def headers(seen: Seen) -> set[str]:
    """Return the `tracestate`s of all spans."""
    return {span.context.trace_state.to_header() for span in seen.all()}


@pytest.mark.usefixtures("program")
class TestTraceState:
    def test_of_the_environment_is_everywhere(
        self, seen: Seen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRACEPARENT", PARENT)
        monkeypatch.setenv("TRACESTATE", STATE)
        assert states() == [STATE] * 4
        assert headers(seen) == {STATE}
        assert {"flow states", "task double", "run double", "user"} <= {s.name for s in seen.all()}

    def test_of_the_active_span(self, seen: Seen) -> None:
        here = SpanContext(7, 8, is_remote=False, trace_flags=SAMPLED, trace_state=OURS)
        with trace.use_span(trace.NonRecordingSpan(here)):
            assert states() == [STATE] * 4
        assert headers(seen) == {STATE}

    def test_what_a_sampler_returns_takes_its_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sampler = Picks(
            SamplingResult(Decision.RECORD_AND_SAMPLE, None, TraceState([("ot", "th:8")]))
        )
        seen = sampled_by(sampler, monkeypatch)
        monkeypatch.setenv("TRACEPARENT", PARENT)
        monkeypatch.setenv("TRACESTATE", STATE)
        assert states() == ["ot=th:8"] * 4
        assert headers(seen) == {"ot=th:8"}
        assert [asked["state"] for asked in sampler.asked] == [STATE]

    def test_of_a_trace_that_is_not_sampled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = sampled_by(ParentBased(ALWAYS_ON), monkeypatch)
        monkeypatch.setenv("TRACEPARENT", UNSAMPLED)
        monkeypatch.setenv("TRACESTATE", STATE)
        assert states() == [STATE] * 4
        assert seen.all() == ()

    @pytest.mark.parametrize(
        ("parent", "state"), [("", STATE), (PARENT, ""), (PARENT, "no state, at all")]
    )
    def test_there_may_be_none(
        self, seen: Seen, monkeypatch: pytest.MonkeyPatch, parent: str, state: str
    ) -> None:
        monkeypatch.setenv("TRACEPARENT", parent)
        monkeypatch.setenv("TRACESTATE", state)
        assert states() == [""] * 4
        assert headers(seen) == {""}


@pytest.mark.usefixtures("home")
class TestRules:
    """Samplers that look at what they are asked, and say more than yes or no."""

    def test_are_told_of_the_flow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sampler = Picks(SamplingResult(Decision.RECORD_AND_SAMPLE))
        seen = sampled_by(sampler, monkeypatch)
        monkeypatch.setenv("TRACEPARENT", PARENT)
        program()
        (asked,) = sampler.asked
        run, top = get_run("last"), seen.one("flow program")
        assert asked == {
            "trace": "0af7651916cd43dd8448eb211c80319c",
            "name": "flow program",
            "kind": SpanKind.INTERNAL,
            "attributes": {
                "raysched.flow.name": "program",
                "raysched.flow.run_id": run.id,
                "raysched.flow.run_name": run.name,
                "code.function.name": "program",
            },
            "links": [],
            "parent": "b7ad6b7169203331",
            "state": "",
        }
        assert asked["attributes"].items() <= dict(top.attributes).items()

    def test_pick_flows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Nightly(Picks):
            def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
                super().should_sample(*args, **kwargs)
                name = self.asked[-1]["attributes"]["raysched.flow.name"]
                keep = name == "program"
                return SamplingResult(Decision.RECORD_AND_SAMPLE if keep else Decision.DROP)

        seen = sampled_by(ParentBased(Nightly(SamplingResult(Decision.DROP))), monkeypatch)
        program()
        below()
        assert len(seen.named("flow program")) == len(seen.named("flow below")) == 1

    def test_are_told_of_the_execution_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sampler = Picks(SamplingResult(Decision.RECORD_AND_SAMPLE))
        seen = sampled_by(sampler, monkeypatch)
        fails(return_state=True)
        fails.resume("last", return_state=True)
        first, again = sampler.asked
        assert first["links"] == []
        assert again["attributes"]["raysched.flow.execution"] == 2
        # The first may come twice, if the resume was quicker than the mark that it was delivered.
        (top, resumed) = {span.context.span_id: span for span in seen.named("flow fails")}.values()
        (link,) = resumed.links
        assert again["links"] == [(top.context.trace_id, top.context.span_id)]
        assert again["links"] == [(link.context.trace_id, link.context.span_id)]
        assert again["trace"] == f"{resumed.context.trace_id:032x}"

    def test_add_attributes_to_the_flow_span(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sampler = Picks(SamplingResult(Decision.RECORD_AND_SAMPLE, ADDED))
        seen = sampled_by(sampler, monkeypatch)
        program()
        top = dict(seen.one("flow program").attributes)
        assert {name: top[name] for name in ADDED if "." not in name} == {
            "rule": "nightly",
            "share": 0.25,
            "which": ("a", "b"),
            "half": "?",
            "what": "{'no': 'attribute'}",
        }
        # What raysched itself says stays.
        assert top["raysched.flow.name"] == "program"
        assert top["raysched.flow.state"] == "COMPLETED"
        # They are those of the span that the sampler was asked about.
        assert "rule" not in seen.one("flow below").attributes


class TestEnvironment:
    """What `OTEL_TRACES_SAMPLER` names."""

    @pytest.mark.parametrize(
        ("name", "argument", "said"),
        [
            ("nonsense", "", "OTEL_TRACES_SAMPLER: there is no sampler 'nonsense'; set it to one"),
            ("traceidratio", "abc", "OTEL_TRACES_SAMPLER_ARG: 'abc' is no number from 0 to 1"),
            ("traceidratio", "1.5", "OTEL_TRACES_SAMPLER_ARG: '1.5' is no number"),
            ("parentbased_traceidratio", "-0.1", "OTEL_TRACES_SAMPLER_ARG: '-0.1' is no number"),
            ("parentbased_traceidratio", "nan", "OTEL_TRACES_SAMPLER_ARG: 'nan' is no number"),
        ],
    )
    def test_impossible_values_end_the_program(
        self,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        argument: str,
        said: str,
    ) -> None:
        del home
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
        with pytest.raises(SettingsError, match=re.escape(said)):
            program()

    @pytest.mark.parametrize(
        ("name", "argument", "described"),
        [
            ("", "", "ParentBased{root:AlwaysOnSampler,"),
            (" Always_Off ", "ignored", "AlwaysOffSampler"),
            ("always_on", "", "AlwaysOnSampler"),
            ("parentbased_always_off", "", "ParentBased{root:AlwaysOffSampler,"),
            ("traceidratio", "", "TraceIdRatioBased{1.0}"),
            ("traceidratio", " 0.25 ", "TraceIdRatioBased{0.25}"),
            ("parentbased_traceidratio", "1e-3", "ParentBased{root:TraceIdRatioBased{0.001},"),
        ],
    )
    def test_those_of_the_sdk(
        self, monkeypatch: pytest.MonkeyPatch, name: str, argument: str, described: str
    ) -> None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
        assert sampling.sampler_of_environment().get_description().startswith(described)


def registered(argument: str | None) -> Sampler:
    """What a package registers as a sampler: its argument is what `OTEL_TRACES_SAMPLER_ARG` says.

    Source: the configurator of OpenTelemetry's SDK.
    """
    if argument == "no":
        return ALWAYS_OFF
    if argument == "broken":
        raise KeyError(argument)
    attributes = {"argument": str(argument)}
    return Picks(SamplingResult(Decision.RECORD_AND_SAMPLE, attributes))


class TestPackages:
    """Samplers that a package has registered as entry points."""

    @pytest.fixture(autouse=True)
    def package(self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A package that is installed."""
        del home
        metadata = tmp_path / "site" / "picking-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: picking\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(
            "[opentelemetry_traces_sampler]\n"
            f"Picking = {__name__}:registered\n"
            "gone = no_such_module:sampler\n"
            "other = builtins:str\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "Picking")

    def test_decide(self, collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "rate=5")
        below()
        assert Seen.of(collector) == {"flow below": 1, "task double": 1, "run double": 1, "user": 1}
        (top,) = [span for span in collector.spans() if span.name == "flow below"]
        told = {each.key: each.value.string_value for each in top.attributes}
        assert told["argument"] == "rate=5"

    def test_may_refuse(self, collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "no")
        below()
        assert Seen.of(collector) == {}

    @pytest.mark.parametrize(
        ("name", "argument", "said"),
        [
            ("Picking", "broken", r"registered, which makes 'Picking', raised KeyError: 'broken'"),
            ("gone", "", r"no_such_module:sampler, which makes 'gone', raised ModuleNotFoundError"),
            ("other", "", r"builtins:str gives a str for 'other'"),
        ],
    )
    def test_that_break_are_told(
        self, monkeypatch: pytest.MonkeyPatch, name: str, argument: str, said: str
    ) -> None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
        with pytest.raises(SettingsError, match=said):
            sampling.sampler_of_environment()
