"""Where executions of flow runs stand in traces, and whether those are sampled."""

import os

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from raysched.model.traces import NO_SPAN, TraceParent, trace_id

_CARRIERS = {"traceparent": "TRACEPARENT", "tracestate": "TRACESTATE"}
"""Source: OpenTelemetry specification, Environment Variables as Context Propagation Carriers."""


def stand(sampler: Sampler, run_id: str, execution: int) -> TraceParent:
    """Return the span that the `flow` span of an execution is below of; see `Telemetry.begin`.

    Args:
        sampler: Decides for the whole trace.
        run_id: Flow run id.
        execution: Number of the execution, from 1.
    """
    context: Context | None = None
    parent = trace.get_current_span().get_span_context()
    if not parent.is_valid:
        context = _environment()
        parent = trace.get_current_span(context).get_span_context()
    place = TraceParent(trace_id(run_id, execution), NO_SPAN)
    if parent.is_valid:
        place = TraceParent(parent.trace_id.to_bytes(16), parent.span_id.to_bytes(8))
    decided = sampler.should_sample(
        context,
        int.from_bytes(place.trace_id),
        "flow",
        SpanKind.INTERNAL,
        {"raysched.flow.run_id": run_id},
    )
    return place._replace(sampled=decided.decision is Decision.RECORD_AND_SAMPLE)


def sampler_of_environment() -> Sampler:
    """Return what `OTEL_TRACES_SAMPLER` and its `_ARG` say, as the SDK reads them."""
    return TracerProvider(resource=Resource({}), shutdown_on_exit=False).sampler


def _environment() -> Context:
    """Return the context that whoever started this process has given to it."""
    carrier = {key: os.environ[name] for key, name in _CARRIERS.items() if name in os.environ}
    return TraceContextTextMapPropagator().extract(carrier, Context())
