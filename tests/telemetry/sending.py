"""Spans for tests, and what sends them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from raysched.telemetry import otlp
from raysched.telemetry.sending.environment import Destination
from raysched.telemetry.sending.sender import ignore
from raysched.telemetry.sending.spans import SpanSender
from raysched.telemetry.sending.transports import open_transport


@contextmanager
def sending(
    destination: Destination,
    delivered: Callable[[str], None] = ignore,
    max_bytes: int = 2**20,
) -> Iterator[SpanSender]:
    """Run a sender of spans."""
    encode = partial(otlp.traces_request, otlp.resource({"service.name": "test"}))
    sender = SpanSender(open_transport(destination), encode, delivered, max_bytes=max_bytes)
    try:
        yield sender
    finally:
        sender.close()


def spans(*names: str, padding: int = 0) -> list[bytes]:
    """Return encoded spans of these names."""
    return [
        Span(
            name=name, trace_id=os.urandom(16), span_id=os.urandom(8), trace_state="x" * padding
        ).SerializeToString()
        for name in names
    ]


def names(start: int, stop: int) -> list[str]:
    """Return the names of spans by number."""
    return [f"span {number}" for number in range(start, stop)]
