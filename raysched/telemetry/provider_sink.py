"""Spans on their way through the span processors of a provider that the program has set."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from threading import RLock

from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace import Tracer
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from raysched.telemetry.readable import Replayer, scope_of

BURST = 256
"""So many spans are handed over at once: `BatchSpanProcessor` forgets what its queue (2,048 by
default, and the program's own spans are in it, too) has no room for."""

FLUSH_SECONDS = 30.0
"""How long the exporters of the program may take for them (seconds), the SDK's own default."""


class ProviderSink:
    """The span processors of the program's provider, as a `telemetry.ports.SpanSink`.

    What they have taken counts as sent: whether their exporters succeed, they tell nobody. Once
    they have flushed it counts as delivered.

    Args:
        tracer: A tracer of the provider.
        delivered: Called with the id of a flow run when all that was put of it has been taken.
    """

    def __init__(self, tracer: Tracer, delivered: Callable[[str], None]) -> None:
        self._processor = tracer.span_processor
        self._delivered = delivered
        own = InstrumentationScope(
            tracer.instrumentation_info.name, tracer.instrumentation_info.version
        )
        self._replayer = Replayer(tracer.span_processor, tracer.resource, own)
        self._lock = RLock()
        self._begun: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._reason = ""

    def put(self, run_id: str, spans: Sequence[bytes], scopes: Sequence[bytes] = ()) -> None:
        """See `SpanSink.put`."""
        for span, scope in _decoded(spans, scopes):
            with self._lock:
                if self._begun.total() >= BURST:
                    self.flush(FLUSH_SECONDS)
                try:
                    self._replayer.replay(span, scope)
                except Exception as error:  # noqa: BLE001 - of processors that are the program's
                    self._failed(Counter([run_id]), f"{type(error).__name__}: {error}")
                else:
                    self._begun[run_id] += 1

    def flush(self, seconds: float) -> None:
        """See `SpanSink.flush`."""
        with self._lock:
            if not self._begun or seconds <= 0:
                # Processors also send in the background, and say that they failed without time.
                return
            begun, self._begun = self._begun, Counter()
            flushed = False
            try:
                # Also false where the program has shut its provider down, which flushed before.
                flushed = self._processor.force_flush(int(seconds * 1000))
            except Exception as error:  # noqa: BLE001 - as above
                self._failed(begun, f"{type(error).__name__}: {error}")
        for run_id in begun if flushed else ():
            if not self.unsent().get(run_id):
                self._delivered(run_id)

    def unsent(self) -> dict[str, int]:
        """See `SpanSink.unsent`."""
        # Without the lock, which an exporter that hangs would keep.
        return dict(self._lost)

    def reason(self) -> str:
        """See `SpanSink.reason`."""
        return self._reason

    def close(self) -> None:
        """See `SpanSink.close`: the provider is the program's."""

    def _failed(self, counts: Counter[str], reason: str) -> None:
        self._lost += counts
        self._reason = reason


def _decoded(
    spans: Sequence[bytes], scopes: Sequence[bytes]
) -> Iterator[tuple[trace_pb2.Span, InstrumentationScope | None]]:
    for data in spans:
        yield trace_pb2.Span.FromString(data), None
    for data in scopes:
        message = trace_pb2.ScopeSpans.FromString(data)
        scope = scope_of(message)
        for span in message.spans:
            yield span, scope
