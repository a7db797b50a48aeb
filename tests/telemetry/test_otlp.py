from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from raysched.model.traces import NO_SPAN
from raysched.telemetry import otlp
from raysched.telemetry.otlp import SpanId, SpanTemplate, Value, hole_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(TEXT),
)
ATTRIBUTES = st.dictionaries(TEXT, VALUES)
TIMES = st.integers(0, 2**64 - 1)
TRACE_IDS = st.binary(min_size=16, max_size=16)
SPAN_IDS = st.binary(min_size=8, max_size=8)
SPANS = st.builds(SpanId, TRACE_IDS, SPAN_IDS)
EVENTS = st.tuples(TIMES, TEXT, ATTRIBUTES)


def any_value(value: Value) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[any_value(each) for each in value]))


def pairs(attributes: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


@given(
    SPANS, SPAN_IDS, TEXT, TEXT, TIMES, TIMES, ATTRIBUTES, st.lists(EVENTS), st.lists(SPANS), TEXT
)
def test_spans_are_those_of_the_official_classes(  # noqa: PLR0913, PLR0917 - fields of a message
    own: SpanId,
    parent: bytes,
    name: str,
    state: str,
    start: int,
    end: int,
    attributes: dict[str, Value],
    events: list[tuple[int, str, dict[str, Value]]],
    links: list[SpanId],
    message: str,
) -> None:
    encoded = (
        otlp.span_head(name, own.trace_id, parent, 0x101, state)
        + otlp.span_own(own.span_id, start, end)
        + otlp.span_more(
            attributes,
            [otlp.event(*event) for event in events],
            [otlp.link(link, attributes) for link in links],
            otlp.error_status(message),
        )
    )
    assert Span.FromString(encoded) == Span(
        trace_id=own.trace_id,
        span_id=own.span_id,
        trace_state=state,
        parent_span_id=b"" if parent == NO_SPAN else parent,
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        flags=0x101,
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        attributes=pairs(attributes),
        events=[
            Span.Event(time_unix_nano=at, name=event, attributes=pairs(of))
            for at, event, of in events
        ],
        links=[
            Span.Link(
                trace_id=link.trace_id,
                span_id=link.span_id,
                flags=1,
                attributes=pairs(attributes),
            )
            for link in links
        ],
        status=Status(code=Status.STATUS_CODE_ERROR, message=message),
    )


@given(
    st.lists(
        st.tuples(SPAN_IDS, TIMES, TIMES, st.integers(0, 9999), st.floats(allow_nan=False)),
        max_size=5,
    )
)
def test_a_template_fills_its_holes(rows: list[tuple[bytes, int, int, int, float]]) -> None:
    head = otlp.span_head("task f", bytes(16), bytes(range(8)), 1)
    template = SpanTemplate(
        head,
        [
            (hole_of(9, "text", "s", 4), "4s"),
            (hole_of(9, "number", "v", 1), "1s"),
            (hole_of(9, "double", "d", 8), "d"),
        ],
    )
    ids, starts, ends, numbers, doubles = zip(*rows, strict=True) if rows else ((),) * 5
    texts = [b"%04d" % number for number in numbers]
    varints = [otlp.varint(number % 128) for number in numbers]
    encoded = list(template.spans(ids, starts, ends, [texts, varints, doubles]))
    for data, (span_id, start, end, number, double) in zip(encoded, rows, strict=True):
        of: dict[str, Value] = {"text": f"{number:04}", "number": number % 128, "double": double}
        expected = head + otlp.span_own(span_id, start, end) + otlp.span_more(of)
        assert Span.FromString(data) == Span.FromString(expected)
        assert len(data) == len(expected)


def test_what_is_no_text_and_no_64_bit_integer_is_written_as_text() -> None:
    strange: dict[str, Value] = {"lone surrogate": "a\ud800", "large": 2**63}
    read = {
        each.key: each.value.string_value
        for each in Resource.FromString(otlp.resource(strange)).attributes
    }
    assert read == {"lone surrogate": "a?", "large": "9223372036854775808"}


@given(ATTRIBUTES, st.lists(SPANS, max_size=3), st.lists(TEXT, max_size=3))
def test_a_request_has_our_scope_and_those_of_others(
    attributes: dict[str, Value], ids: list[SpanId], scopes: list[str]
) -> None:
    spans = [otlp.span_head("x", each.trace_id, b"", 1) for each in ids]
    others = [ScopeSpans(spans=[Span(name=name)]) for name in scopes]
    encoded = otlp.traces_request(
        otlp.resource(attributes), spans, [other.SerializeToString() for other in others]
    )
    (told,) = ExportTraceServiceRequest.FromString(encoded).resource_spans
    assert told.resource == Resource(attributes=pairs(attributes))
    own = [scope for scope in told.scope_spans if scope.scope.name == "raysched"]
    assert [span for scope in own for span in scope.spans] == list(map(Span.FromString, spans))
    assert all(scope.scope.version for scope in own)
    assert [scope for scope in told.scope_spans if scope not in own] == others
