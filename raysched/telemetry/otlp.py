"""OTLP, encoded directly: spans and the requests that carry them.

The protobuf of opentelemetry-proto (trace/v1, common/v1, resource/v1, collector/trace/v1),
written as bytes without making its messages: 100,000 spans are templates with a few holes each.
Source of the wire format: https://protobuf.dev/programming-guides/encoding. Numbers of fields are
those of the `.proto` files; their order in a message is free, so what spans have in common comes
first.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, repeat
from struct import Struct
from typing import Any, NamedTuple, TypeAlias

from raysched.model.traces import NO_SPAN

SCOPE = "raysched"
"""Name of the instrumentation scope."""

SAMPLED = 0x01
"""Trace flag of W3C Trace Context."""

LOCAL_PARENT = 0x100
"""Flag of OTLP: it is known whether the parent is remote, and it is not."""

Value: TypeAlias = str | bool | int | float | Sequence[str]
"""Value of an attribute. An integer of more than 64 bits is written as text."""

Attributes: TypeAlias = Mapping[str, Value]

_INT64 = range(-(2**63), 2**63)
_UINT64_MASK = 2**64 - 1
_SMALL = [bytes((n,)) for n in range(128)]

_U64 = Struct("<Q").pack
_U32 = Struct("<I").pack
_DOUBLE = Struct("<d").pack

_KIND_INTERNAL = b"\x30\x01"
"""Field 6, `SPAN_KIND_INTERNAL`."""


class SpanId(NamedTuple):
    """Which span: its trace (16 bytes) and its id there (8 bytes)."""

    trace_id: bytes
    span_id: bytes


def varint(number: int) -> bytes:
    """Return an integer as base 128 varint, a negative one as its 64 bit two's complement."""
    if 0 <= number < 128:  # noqa: PLR2004 - what fits into 7 bits
        return _SMALL[number]
    number &= _UINT64_MASK
    data = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - 7 bits a byte
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def field(number: int, data: bytes) -> bytes:
    """Return a length-delimited field: bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def text(value: str) -> bytes:
    """Return text as UTF-8; what is none (a lone surrogate) becomes a question mark."""
    return value.encode("utf-8", "replace")


def any_value(value: Value) -> bytes:
    """Return an `AnyValue`."""
    if isinstance(value, str):
        return field(1, text(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + varint(value) if value in _INT64 else field(1, text(str(value)))
    if isinstance(value, float):
        return b"\x21" + _DOUBLE(value)
    return field(5, b"".join(field(1, any_value(each)) for each in value))


def key_value(key: str, value: Value) -> bytes:
    """Return a `KeyValue`."""
    return field(1, text(key)) + field(2, any_value(value))


def attributes(number: int, of: Attributes) -> bytes:
    """Return attributes as the repeated field of this number."""
    return b"".join(field(number, key_value(key, value)) for key, value in of.items())


def event(at: int, name: str, of: Attributes) -> bytes:
    """Return a `Span.Event`.

    Args:
        at: When (ns since the epoch).
        name: Name of the event.
        of: Its attributes.
    """
    return b"\x09" + _U64(at) + field(2, text(name)) + attributes(3, of)


def link(to: SpanId, of: Attributes | None = None) -> bytes:
    """Return a `Span.Link` to a sampled span."""
    return link_head(to.trace_id) + to.span_id + attributes(4, of or {})


def link_head(trace_id: bytes) -> bytes:
    """Return a `Span.Link` to a sampled span, up to the span's id (8 bytes), which is its end."""
    return field(1, trace_id) + b"\x35" + _U32(SAMPLED) + b"\x12\x08"


def error_status(message: str) -> bytes:
    """Return the `Status` of what failed."""
    return field(2, text(message)) + b"\x18\x02"


def span_head(name: str, trace_id: bytes, parent: bytes, flags: int, state: str = "") -> bytes:
    """Return the fields of a `Span` that many have in common: name, kind, trace and parent.

    Args:
        name: Name of the span.
        trace_id: Id of its trace.
        parent: Id of its parent; `NO_SPAN` for none, b"" where a hole of a template tells it.
        flags: `SAMPLED` and its like.
        state: Its `trace_state`, or "".
    """
    above = field(4, parent) if parent and parent != NO_SPAN else b""
    shown = b"\x85\x01" + _U32(flags)
    stated = field(3, text(state)) if state else b""
    return field(1, trace_id) + stated + above + field(5, text(name)) + _KIND_INTERNAL + shown


def span_own(span_id: bytes, start: int, end: int) -> bytes:
    """Return the fields of a `Span` that no two have in common: id, start and end (ns)."""
    return field(2, span_id) + b"\x39" + _U64(start) + b"\x41" + _U64(end)


def span_more(
    of: Attributes,
    events: Iterable[bytes] = (),
    links: Iterable[bytes] = (),
    status: bytes = b"",
) -> bytes:
    """Return the other fields of a `Span`: attributes, and encoded events, links and status."""
    parts = [attributes(9, of)]
    parts += (field(11, each) for each in events)
    parts += (field(13, each) for each in links)
    if status:
        parts.append(field(15, status))
    return b"".join(parts)


class SpanTemplate:
    """A `Span` with holes, for many that differ in little.

    The holes are the span's id, start and end, and then those that `holes` tells of.

    Args:
        head: Constant fields.
        holes: For each further hole the constant bytes before it, and its code in `struct`:
            `d`, or `<n>s` for so many bytes.
    """

    def __init__(self, head: bytes, holes: Sequence[tuple[bytes, str]] = ()) -> None:
        more = "".join(f"{len(constant)}s{code}" for constant, code in holes)
        self._pack = Struct(f"<{len(head) + 2}s8s1sQ1sQ{more}").pack
        self._head = head + b"\x12\x08"
        self._constants = [constant for constant, _ in holes]

    def spans(
        self,
        ids: Iterable[bytes],
        starts: Iterable[int],
        ends: Iterable[int],
        columns: Iterable[Iterable[Any]] = (),
    ) -> Iterator[bytes]:
        """Return spans, lazily.

        Args:
            ids: Their ids.
            starts: When they start (ns).
            ends: When they end (ns).
            columns: For each hole what is in it.
        """
        more = (
            each
            for constant, column in zip(self._constants, columns, strict=True)
            for each in (repeat(constant), column)
        )
        return map(
            self._pack,
            repeat(self._head),
            ids,
            repeat(b"\x39"),
            starts,
            repeat(b"\x41"),
            ends,
            *more,
        )


def hole_of(number: int, key: str, code: str, size: int) -> bytes:
    """Return the constant bytes before a hole that is the value of an attribute.

    Args:
        number: Number of the repeated field that attributes are here.
        key: Key of the attribute.
        code: `s` for text, `v` for an integer as varint, `d` for a double.
        size: Length of the hole (bytes).
    """
    tag = {"s": b"\x0a" + varint(size), "v": b"\x18", "d": b"\x21"}[code]
    value = b"\x12" + varint(len(tag) + size) + tag
    before = field(1, text(key)) + value
    return varint(number << 3 | 2) + varint(len(before) + size) + before


def resource(of: Attributes) -> bytes:
    """Return a `Resource`."""
    return attributes(1, of)


def scope_spans(spans: Iterable[bytes]) -> bytes:
    """Return the `ScopeSpans` of encoded spans of our own."""
    return _scope() + _repeated(2, spans)


def traces_request(resource: bytes, spans: Sequence[bytes], scopes: Iterable[bytes] = ()) -> bytes:
    """Return an `ExportTraceServiceRequest`.

    Args:
        resource: Encoded `Resource`.
        spans: Encoded `Span`s of our own.
        scopes: Encoded `ScopeSpans` of others.
    """
    own = (scope_spans(spans),) if spans else ()
    return field(1, field(1, resource) + _repeated(2, (*own, *scopes)))


def _repeated(number: int, messages: Iterable[bytes]) -> bytes:
    """Return a repeated field."""
    messages = list(messages)
    tag, sizes = varint(number << 3 | 2), list(map(len, messages))
    before = {size: tag + varint(size) for size in set(sizes)}
    pieces = zip(map(before.__getitem__, sizes), messages, strict=True)
    return b"".join(chain.from_iterable(pieces))


@cache
def _scope() -> bytes:
    """Return the field of `ScopeSpans` and `ScopeLogs` that says whose they are."""
    from importlib.metadata import version

    return field(1, field(1, text(SCOPE)) + field(2, text(version("raysched"))))
