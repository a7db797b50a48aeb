"""What workers do for traces: spans of user code stand below the `run` span of their attempt."""

import asyncio
import threading
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from opentelemetry.context import Context, attach
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from raysched.model.traces import TraceParent, attempt_span_id
from raysched.telemetry.provider import LightProvider, install
from raysched.worker.protocol import RunHeader

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from raysched.telemetry.readable import SpanBuffer

MAX_SPANS = 1000
"""So many spans are kept between two reports; more are counted."""

MAX_BYTES = 1024**2
"""So large they may be together (bytes)."""

_EMPTY = Context()
_FLAGS = TraceFlags(TraceFlags.DEFAULT), TraceFlags(TraceFlags.SAMPLED)


class UserSpans:
    """The extension (see `worker.extensions.Extension`) of runs that are traced.

    Where the user's modules have set a provider of their own, it gets their spans, and nothing is
    collected. So it is in a driver: there its own telemetry takes them.
    """

    def __init__(self) -> None:
        self._is_ready = False
        self._making_ready = threading.Lock()
        self._around: Context | None = None

    def enter(self, header: RunHeader, task: str, index: int, attempt: int) -> None:
        """See `worker.extensions.Extension.enter`."""
        flow = _parsed(header.traceparent, header.tracestate)
        if flow is None:
            return
        if not self._is_ready:
            self._make_ready()
        span = _AttemptSpan(flow, (header.run_id, header.execution, task, index, attempt))
        context = set_span_in_context(span, _EMPTY)
        attach(context)
        # Only where one item runs at a time, it is known whose a thread without a context is.
        alone = asyncio._get_running_loop() is None and (  # noqa: SLF001 - documented, does not raise
            threading.get_ident() == threading.main_thread().ident
        )
        self._around = context if alone else _below_flow(flow)

    def collect(self) -> tuple[Sequence[bytes], int]:
        """See `worker.extensions.Extension.collect`."""
        buffer: SpanBuffer | None = vars(self).get("buffer")
        if buffer is None:
            return (), 0
        scopes, dropped = buffer.take()
        return [scope for _, scope in scopes], dropped

    @cached_property
    def buffer(self) -> "SpanBuffer":
        """Where spans wait that have ended."""
        # The SDK is there by now, and OTLP's messages are needed only from here on.
        from raysched.telemetry.readable import SpanBuffer

        # Several threads may end their first spans at once; setdefault lets one of them win.
        buffer: SpanBuffer = vars(self).setdefault("buffer", SpanBuffer(MAX_SPANS, MAX_BYTES))
        return buffer

    def _make_ready(self) -> None:
        # Items in threads begin at once, and none may run before its spans are taken.
        with self._making_ready:
            if not self._is_ready:
                install(LightProvider(self._take, lambda: self._around))
                self._is_ready = True

    def _take(self, span: "ReadableSpan") -> None:
        self.buffer.put(span)


class _AttemptSpan(NonRecordingSpan):
    """The `run` span of an attempt: its id is derived when something below it asks.

    Few task runs have spans of their own, and that is most of what an item would pay.

    Args:
        flow: The flow span.
        of: What the id derives from, see `attempt_span_id`.
    """

    def __init__(self, flow: TraceParent, of: tuple[str, int, str, int, int]) -> None:
        self._flow = flow
        self._of = of

    def get_span_context(self) -> SpanContext:
        """See `NonRecordingSpan`."""
        return span_context(self._flow._replace(span_id=attempt_span_id(*self._of)), remote=True)

    def __repr__(self) -> str:
        return f"_AttemptSpan({self.get_span_context()!r})"


_parsed = lru_cache(maxsize=64)(TraceParent.parse)


def context_below(place: TraceParent, around: Context = _EMPTY, *, remote: bool = False) -> Context:
    """Return a context of OpenTelemetry for what is below a span that is not made by the SDK.

    Args:
        place: The span, and whether its trace is sampled.
        around: What else is in the context: baggage.
        remote: Whether it belongs to another process.
    """
    return set_span_in_context(NonRecordingSpan(span_context(place, remote=remote)), around)


def span_context(place: TraceParent, *, remote: bool) -> SpanContext:
    """Return what OpenTelemetry knows a span by.

    Args:
        place: The span.
        remote: Whether it belongs to another process.
    """
    trace_id, span_id, sampled, state = place
    return SpanContext(
        int.from_bytes(trace_id),
        int.from_bytes(span_id),
        remote,
        _FLAGS[sampled],
        trace_state(state),
    )


@lru_cache(maxsize=64)
def trace_state(header: str) -> TraceState:
    """Return a `tracestate`; "" for an empty one. Many spans have the same."""
    return TraceState.from_header([header])


@lru_cache(maxsize=64)
def _below_flow(flow: TraceParent) -> Context:
    """Return the context for what is below the flow span itself."""
    return context_below(flow, remote=True)


user_spans = UserSpans()
"""The one of this process: `raysched.telemetry.workers:user_spans`."""
