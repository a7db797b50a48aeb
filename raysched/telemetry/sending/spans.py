"""Spans on their way to a collector."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from raysched.telemetry import otlp
from raysched.telemetry.ports import Transport
from raysched.telemetry.sending import environment
from raysched.telemetry.sending.sender import (
    MAX_BYTES,
    REQUEST_BYTES,
    REQUEST_ITEMS,
    Sender,
    ignore,
)

Encode = Callable[[Sequence[bytes], Sequence[bytes]], bytes]


@dataclass(frozen=True, slots=True)
class _Piece:
    spans: Sequence[bytes]
    scopes: Sequence[bytes]


def encoder() -> Encode:
    """Return what makes a request of encoded spans, with what the environment says of this service.

    Raises:
        SettingsError: An `OTEL_*` variable has an impossible value.
    """
    attributes = cast("otlp.Attributes", environment.traces_resource().attributes)
    return partial(otlp.traces_request, otlp.resource(attributes))


class SpanSender:
    """The sink (`SpanSink`) that sends spans to a collector.

    Args:
        transport: What carries requests; closed with this.
        encode: Makes a request of encoded `Span`s and `ScopeSpans`: `otlp.traces_request` of a
            resource.
        delivered: Called with the id of a flow run, from another thread, when all that was put of
            it has arrived; more of it may follow.
        max_bytes: How much may be on its way (bytes).
    """

    def __init__(
        self,
        transport: Transport,
        encode: Encode,
        delivered: Callable[[str], None] = ignore,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        def join(pieces: Sequence[_Piece]) -> bytes:
            return encode(
                [span for piece in pieces for span in piece.spans],
                [scope for piece in pieces for scope in piece.scopes],
            )

        self._sender = Sender(transport, join, max_bytes=max_bytes, delivered=delivered)

    def put(self, run_id: str, spans: Sequence[bytes], scopes: Sequence[bytes] = ()) -> None:
        """See `SpanSink.put`."""
        for size, part in _parts(spans):
            self._sender.put(_Piece(part, ()), size, len(part), run_id)
        for scope in scopes:
            items = len(ScopeSpans.FromString(scope).spans)
            self._sender.put(_Piece((), (scope,)), len(scope), items, run_id)

    def flush(self, seconds: float) -> None:
        """See `SpanSink.flush`."""
        self._sender.flush(seconds)

    def unsent(self) -> dict[str, int]:
        """See `SpanSink.unsent`."""
        return self._sender.unsent()

    def reason(self) -> str:
        """See `SpanSink.reason`."""
        return self._sender.reason()

    def close(self) -> None:
        """See `SpanSink.close`."""
        self._sender.close()


def _parts(spans: Sequence[bytes]) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Yield spans in parts that fit into a request, with the size of each (bytes)."""
    start = size = 0
    for end, span in enumerate(spans):
        if end > start and (size + len(span) > REQUEST_BYTES or end - start == REQUEST_ITEMS):
            yield size, spans[start:end]
            start, size = end, 0
        size += len(span)
    if spans:
        yield size, spans[start:]
