"""Spans of user code: from the SDK's objects to OTLP, and from OTLP into the SDK's objects."""

import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanLimits, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from raysched.telemetry.workers import trace_state

HAS_IS_REMOTE = 0x100
"""Flag of a span: IS_REMOTE says something. Source: OTLP, trace.proto, SpanFlags."""

IS_REMOTE = 0x200
"""Flag of a span or link: the span it names was made in another process. Source: the same."""

TRACE_FLAGS = 0xFF
"""The flags of W3C Trace Context among a span's. Source: the same."""

_Key: TypeAlias = tuple[int, InstrumentationScope | None]


class SpanBuffer:
    """Spans that ended, encoded, until somebody takes them; thread-safe, and safe to fork.

    Args:
        max_spans: How many it holds at most; more are counted.
        max_bytes: How large they may be together.
    """

    def __init__(self, max_spans: int, max_bytes: int) -> None:
        self._max_spans = max_spans
        self._max_bytes = max_bytes
        self._begin_anew()
        if hasattr(os, "register_at_fork"):
            # Another thread may hold the lock now; and what it has is its parent's to tell.
            os.register_at_fork(after_in_child=partial(_begin_anew, weakref.ref(self)))

    def put(self, span: ReadableSpan) -> None:
        """Keep a span that has ended, if there is room."""
        message = encoded(span)
        size = message.ByteSize()
        key = (span.context.trace_id, span.instrumentation_scope)
        with self._lock:
            if self._spans == self._max_spans or self._bytes + size > self._max_bytes:
                self._dropped += 1
                return
            self._spans += 1
            self._bytes += size
            self._scopes.setdefault(key, []).append(message)

    def take(self) -> tuple[list[tuple[int, bytes]], int]:
        """Return what there is as (trace id, encoded `ScopeSpans`), and how many were dropped."""
        with self._lock:
            scopes, dropped = self._scopes, self._dropped
            self._clear()
        return [(trace, _scope_spans(scope, spans)) for (trace, scope), spans in scopes.items()], (
            dropped
        )

    def _clear(self) -> None:
        self._scopes: dict[_Key, list[trace_pb2.Span]] = {}
        self._spans = self._bytes = self._dropped = 0

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._clear()


def _begin_anew(buffer: "weakref.ref[SpanBuffer]") -> None:
    there = buffer()
    if there is not None:
        there._begin_anew()  # noqa: SLF001 - its own


def encoded(span: ReadableSpan) -> trace_pb2.Span:
    """Return a span that has ended as OTLP's message."""
    context, parent = span.context, span.parent
    flags = context.trace_flags & TRACE_FLAGS | HAS_IS_REMOTE
    return trace_pb2.Span(
        trace_id=context.trace_id.to_bytes(16),
        span_id=context.span_id.to_bytes(8),
        trace_state=context.trace_state.to_header(),
        parent_span_id=parent.span_id.to_bytes(8) if parent else b"",
        flags=flags | (IS_REMOTE if parent and parent.is_remote else 0),
        name=span.name,
        # The SDK's enumeration begins with INTERNAL, OTLP's with UNSPECIFIED.
        kind=span.kind.value + 1,  # type: ignore[arg-type]
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        attributes=_attributes(span.attributes),
        dropped_attributes_count=span.dropped_attributes,
        events=[
            trace_pb2.Span.Event(
                time_unix_nano=event.timestamp,
                name=event.name,
                attributes=_attributes(event.attributes),
                dropped_attributes_count=event.dropped_attributes,
            )
            for event in span.events
        ],
        dropped_events_count=span.dropped_events,
        links=[
            trace_pb2.Span.Link(
                trace_id=link.context.trace_id.to_bytes(16),
                span_id=link.context.span_id.to_bytes(8),
                trace_state=link.context.trace_state.to_header(),
                attributes=_attributes(link.attributes),
                dropped_attributes_count=link.dropped_attributes,
                flags=link.context.trace_flags & TRACE_FLAGS
                | HAS_IS_REMOTE
                | (IS_REMOTE if link.context.is_remote else 0),
            )
            for link in span.links
        ],
        dropped_links_count=span.dropped_links,
        status=trace_pb2.Status(
            code=span.status.status_code.value,  # type: ignore[arg-type]
            message=span.status.description or "",
        ),
    )


def _scope_spans(scope: InstrumentationScope | None, spans: Sequence[trace_pb2.Span]) -> bytes:
    if scope is None:
        return trace_pb2.ScopeSpans(spans=spans).SerializeToString()
    return trace_pb2.ScopeSpans(
        scope=common_pb2.InstrumentationScope(
            name=scope.name,
            version=scope.version or "",
            attributes=_attributes(scope.attributes),
        ),
        spans=spans,
        schema_url=scope.schema_url or "",
    ).SerializeToString()


def _attributes(attributes: Mapping[str, Any] | None) -> list[common_pb2.KeyValue]:
    return [
        common_pb2.KeyValue(key=key, value=_value(value))
        for key, value in (attributes or {}).items()
    ]


_FIELDS: tuple[tuple[type, str], ...] = (
    (bool, "bool_value"),
    (int, "int_value"),
    (float, "double_value"),
    (bytes, "bytes_value"),
)
"""Fields of `AnyValue`; a bool is also an int."""


def _value(value: object) -> common_pb2.AnyValue:
    if value is None:
        return common_pb2.AnyValue()
    for kind, field in _FIELDS:
        if isinstance(value, kind) and (kind is not int or -_INT64 <= value < _INT64):  # type: ignore[operator]
            return common_pb2.AnyValue(**{field: value})  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        pairs = common_pb2.KeyValueList(values=_attributes(value))
        return common_pb2.AnyValue(kvlist_value=pairs)
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = common_pb2.ArrayValue(values=[_value(item) for item in value])
        return common_pb2.AnyValue(array_value=items)
    # Half of a surrogate pair is no UTF-8, and protobuf would raise in the user's code.
    text = str(value).encode(errors="replace").decode()
    return common_pb2.AnyValue(string_value=text)


_INT64 = 2**63
"""Larger integers are written as text."""


class _MadeElsewhere(Span):
    """A span whose times and ids are known already."""


class Replayer:
    """Lets spans begin and end before a span processor that were made elsewhere.

    Args:
        processor: The span processor.
        resource: What the spans are told to come from.
        scope: The scope of our own spans.
    """

    def __init__(
        self, processor: SpanProcessor, resource: Resource, scope: InstrumentationScope
    ) -> None:
        self._processor = processor
        self._resource = resource
        self._scope = scope
        self._limits = SpanLimits()

    def replay(self, message: trace_pb2.Span, scope: InstrumentationScope | None = None) -> None:
        """Let a span begin and end."""
        parent = None
        flags = TraceFlags(message.flags & TRACE_FLAGS) if message.flags else _SAMPLED
        trace_id, state = int.from_bytes(message.trace_id), trace_state(message.trace_state)
        if message.parent_span_id:
            parent_id = int.from_bytes(message.parent_span_id)
            remote = bool(message.flags & IS_REMOTE)
            parent = SpanContext(trace_id, parent_id, remote, flags, state)
        span = _MadeElsewhere(
            name=message.name,
            context=SpanContext(
                trace_id,
                int.from_bytes(message.span_id),
                is_remote=False,
                trace_flags=flags,
                trace_state=state,
            ),
            parent=parent,
            resource=self._resource,
            attributes=_plain(message.attributes),
            events=[
                Event(event.name, _plain(event.attributes), event.time_unix_nano)
                for event in message.events
            ],
            links=[_link(link) for link in message.links],
            kind=SpanKind(message.kind - 1) if message.kind else SpanKind.INTERNAL,
            span_processor=self._processor,
            limits=self._limits,
            instrumentation_scope=scope or self._scope,
        )
        span.start(message.start_time_unix_nano)
        if message.status.code:
            code = StatusCode(message.status.code)
            text = message.status.message if code is StatusCode.ERROR else None
            span.set_status(Status(code, text))
        span.end(message.end_time_unix_nano)


_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def scope_of(message: trace_pb2.ScopeSpans) -> InstrumentationScope:
    """Return the scope of spans of user code."""
    scope = message.scope
    return InstrumentationScope(
        scope.name, scope.version or None, message.schema_url or None, _plain(scope.attributes)
    )


def _link(link: trace_pb2.Span.Link) -> Link:
    context = SpanContext(
        int.from_bytes(link.trace_id),
        int.from_bytes(link.span_id),
        bool(link.flags & IS_REMOTE),
        TraceFlags(link.flags & TRACE_FLAGS) if link.flags else _SAMPLED,
        trace_state(link.trace_state),
    )
    return Link(context, _plain(link.attributes))


def _plain(attributes: Iterable[common_pb2.KeyValue]) -> dict[str, Any]:
    return {pair.key: _plain_value(pair.value) for pair in attributes}


def _plain_value(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_plain_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _plain(value.kvlist_value.values)
    return getattr(value, kind)
