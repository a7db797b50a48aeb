"""What an exporter of the program's own has got, by names."""

from typing import Any, TypeAlias

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from raysched import wiring
from telemetry.receiver import Receiver

Ended: TypeAlias = Any
"""A `ReadableSpan`; by its types nearly everything in it may be None, and in tests nothing is."""


class Seen:
    """Spans that have arrived.

    Args:
        exporter: Where.
    """

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> tuple[Ended, ...]:
        """Return all spans, after everything was delivered."""
        wiring.disconnect()
        return self._exporter.get_finished_spans()

    @staticmethod
    def of(receiver: Receiver) -> dict[str, int]:
        """Return how many spans of each name a collector has got, after all was delivered."""
        wiring.disconnect()
        return receiver.names()

    def named(self, name: str) -> list[Ended]:
        """Return the spans of that name, in the order of their starts."""
        found = [span for span in self.all() if span.name == name]
        return sorted(found, key=lambda span: span.start_time or 0)

    def one(self, name: str) -> Ended:
        """Return the only span of that name."""
        (span,) = self.named(name)
        return span

    def parent(self, span: Ended) -> Ended:
        """Return the span that a span is below of; None for the top."""
        if span.parent is None:
            return None
        (parent,) = [
            other
            for other in self.all()
            if other.context.span_id == span.parent.span_id
            and other.context.trace_id == span.parent.trace_id
        ]
        return parent

    def path(self, span: Ended) -> list[str]:
        """Return the names from the top to a span."""
        names: list[str] = []
        above: Ended = span
        while above is not None:
            names.insert(0, above.name)
            above = self.parent(above)
        return names
