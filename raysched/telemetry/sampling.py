"""Where executions of flow runs stand in traces, and what the sampler says of these."""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from raysched.define.ports import FlowRunStart
from raysched.errors import SettingsError
from raysched.model.rows import Execution
from raysched.model.traces import Attributes, Standing, TraceParent, flow_span_id, trace_id
from raysched.telemetry.building.encoding import flow_attributes, flow_span_name
from raysched.telemetry.building.parts import trace_of
from raysched.telemetry.workers import span_context

_CARRIERS = {"traceparent": "TRACEPARENT", "tracestate": "TRACESTATE"}
"""Source: OpenTelemetry specification, Environment Variables as Context Propagation Carriers."""

_NAME, _ARGUMENT = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"

_SAMPLERS = {
    "always_on": ALWAYS_ON,
    "always_off": ALWAYS_OFF,
    "parentbased_always_on": DEFAULT_ON,
    "parentbased_always_off": DEFAULT_OFF,
}
_RATIOS: Mapping[str, Callable[[float], Sampler]] = {
    "traceidratio": TraceIdRatioBased,
    "parentbased_traceidratio": ParentBasedTraceIdRatio,
}

_ENTRY_POINTS = "opentelemetry_traces_sampler"
"""Where packages register samplers: functions of `OTEL_TRACES_SAMPLER_ARG`, None where it is unset.
Source: the configurator of OpenTelemetry's SDK."""


def stand(sampler: Sampler, start: FlowRunStart, earlier: Sequence[Execution]) -> Standing:
    """Return where an execution of a flow run stands; see `Telemetry.begin`.

    Args:
        sampler: Decides for the whole trace.
        start: What is being opened.
        earlier: The executions that the flow run has had.
    """
    number = len(earlier) + 1
    context = get_current()
    parent = trace.get_current_span(context).get_span_context()
    if not parent.is_valid:
        context = _environment(context)
        parent = trace.get_current_span(context).get_span_context()
    place = TraceParent(trace_id(start.run_id, number))
    if parent.is_valid:
        place = TraceParent(parent.trace_id.to_bytes(16), parent.span_id.to_bytes(8))
    known = flow_attributes(start.spec.name, start.run_id, start.name, start.target, number)
    decided = sampler.should_sample(
        context,
        int.from_bytes(place.trace_id),
        flow_span_name(start.spec.name),
        SpanKind.INTERNAL,
        known,
        _links(start.run_id, earlier),
    )
    place = place._replace(sampled=decided.decision is Decision.RECORD_AND_SAMPLE)
    state = decided.trace_state.to_header() if decided.trace_state else ""
    return Standing(str(place), state, _added(decided, known))


def sampler_of_environment() -> Sampler:
    """Return the sampler that `OTEL_TRACES_SAMPLER` and its `_ARG` name.

    Raises:
        SettingsError: There is none of that name, or the argument is impossible.
    """
    given = os.environ.get(_NAME, "").strip()
    name = given.lower() or "parentbased_always_on"
    if name in _SAMPLERS:
        return _SAMPLERS[name]
    if name in _RATIOS:
        return _RATIOS[name](_ratio())
    found = list(entry_points(group=_ENTRY_POINTS, name=given))
    if not found:
        known = ", ".join((*_SAMPLERS, *_RATIOS))
        _fail(
            _NAME,
            f"there is no sampler {given!r}",
            f"set it to one of {known}, or install the package that registers it",
        )
    return _registered(found[0])


def _ratio() -> float:
    given = os.environ.get(_ARGUMENT, "").strip()
    try:
        # Unset it counts as 1. Source: OpenTelemetry, environment variable specification.
        ratio = float(given or 1)
    except ValueError:
        ratio = -1.0
    # Also false for nan.
    if not 0 <= ratio <= 1:
        _fail(_ARGUMENT, f"{given!r} is no number from 0 to 1", "give the share of runs, as 0.1")
    return ratio


def _registered(entry: EntryPoint) -> Sampler:
    """Return what a package has registered as a sampler."""
    try:
        sampler = entry.load()(os.environ.get(_ARGUMENT))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        message = (
            f"{_NAME}: {entry.value}, which makes {entry.name!r}, raised {said}; see {_ARGUMENT}"
        )
        raise SettingsError(message) from error
    if not isinstance(sampler, Sampler):
        kind = type(sampler).__name__
        _fail(_NAME, f"{entry.value} gives a {kind} for {entry.name!r}", "name a sampler")
    return sampler


def _fail(name: str, wrong: str, remedy: str) -> NoReturn:
    raise SettingsError(f"{name}: {wrong}; {remedy}")


def _environment(around: Context) -> Context:
    """Return the context that whoever started this process has given to it."""
    carrier = {key: os.environ[name] for key, name in _CARRIERS.items() if name in os.environ}
    return TraceContextTextMapPropagator().extract(carrier, around)


def _links(run_id: str, earlier: Sequence[Execution]) -> Sequence[Link]:
    """Return the link that the `flow` span will have to that of the execution before."""
    if not earlier:
        return ()
    number = len(earlier)
    before = trace_of(run_id, number, earlier[-1])
    if not before.sampled:
        return ()
    there = before._replace(span_id=flow_span_id(run_id, number))
    return [Link(span_context(there, remote=True))]


def _added(decided: SamplingResult, known: Attributes) -> Attributes:
    """Return what a sampler adds to the attributes that it was given, as JSON can say it.

    What raysched says itself stays as it is: others read it. Samplers of the SDK hand it back.
    """
    if not decided.attributes:
        return {}
    return {
        _text(key): _plain(value) for key, value in decided.attributes.items() if key not in known
    }


def _plain(value: object) -> Any:
    """Return the value of an attribute as what is kept of it; what it knows none of as text."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(each) for each in value]
    return _text(str(value))


def _text(value: str) -> str:
    """Return text that is UTF-8: no half of a surrogate pair."""
    return value.encode(errors="replace").decode()
