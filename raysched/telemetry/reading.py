"""Encoded spans, read again: as OTLP JSON, and as a plain tree for people and tests."""

import json
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from raysched.telemetry.otlp import SCOPE, SpanId, Value

_IDS = frozenset({"traceId", "spanId", "parentSpanId"})


@dataclass(frozen=True, slots=True)
class EventView:
    """An event of a span: when (ns), its name and attributes."""

    at: int
    name: str
    attributes: dict[str, Value]


@dataclass(slots=True)
class SpanView:
    """A span.

    Attributes:
        name: Its name.
        id: Its trace and its id.
        parent: Id of its parent (8 bytes), or b"".
        start: Start (ns).
        end: End (ns).
        attributes: Attributes.
        events: Events.
        links: The spans that it is linked to.
        state: Its `trace_state`, or "".
        error: Its status message if its status is ERROR, else None.
        scope: Name of its instrumentation scope.
        children: The spans below it, in the order of their starts.
    """

    name: str
    id: SpanId
    parent: bytes
    start: int
    end: int
    attributes: dict[str, Value] = field(default_factory=dict)
    events: list[EventView] = field(default_factory=list)
    links: list[SpanId] = field(default_factory=list)
    state: str = ""
    error: str | None = None
    scope: str = SCOPE
    children: list["SpanView"] = field(default_factory=list)


def to_json(request: bytes, indent: int | None = None) -> str:
    """Return an `ExportTraceServiceRequest` as OTLP JSON.

    Ids are hexadecimal, enumerations are numbers, and integers of 64 bits are texts.
    Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding.
    """
    message = ExportTraceServiceRequest.FromString(request)
    data = MessageToDict(message, use_integers_for_enums=True)
    for resource in data.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                _with_hex_ids(span)
                for link in span.get("links", ()):
                    _with_hex_ids(link)
    return json.dumps(data, indent=indent, ensure_ascii=False)


def read_spans(spans: Iterable[bytes], scopes: Iterable[bytes] = ()) -> list[SpanView]:
    """Return spans of our own, and those in `ScopeSpans` of others, without their children."""
    views = [_view(Span.FromString(span), SCOPE) for span in spans]
    for encoded in scopes:
        scope = ScopeSpans.FromString(encoded)
        views += (_view(span, scope.scope.name) for span in scope.spans)
    return views


def trees(spans: Sequence[SpanView]) -> list[SpanView]:
    """Let spans know their children; return those whose parent is not among them.

    Those below one span, and those at the top, are in the order of their starts.
    """
    by_id = {span.id: span for span in spans}
    tops: list[SpanView] = []
    for span in sorted(spans, key=_order):
        parent = by_id.get(SpanId(span.id.trace_id, span.parent))
        (parent.children if parent is not None else tops).append(span)
    return tops


def _order(span: SpanView) -> tuple[int, int, str, str]:
    return span.start, -span.end, span.name, str(span.attributes.get("raysched.task.key", ""))


def _view(span: Span, scope: str) -> SpanView:
    return SpanView(
        span.name,
        SpanId(span.trace_id, span.span_id),
        span.parent_span_id,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _attributes(span.attributes),
        [EventView(e.time_unix_nano, e.name, _attributes(e.attributes)) for e in span.events],
        [SpanId(link.trace_id, link.span_id) for link in span.links],
        span.trace_state,
        span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None,
        scope,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else ""


def _with_hex_ids(message: dict[str, Any]) -> None:
    for name in _IDS & message.keys():
        message[name] = b64decode(message[name]).hex()
