"""Log records that tell the span they belong to, for the handlers of the user's own."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from raysched.define.context import current_span

_TRACE_ID, _SPAN_ID, _SAMPLED = "otelTraceID", "otelSpanID", "otelTraceSampled"
"""What OpenTelemetry's own instrumentation of `logging` calls them. Source:
opentelemetry-instrumentation-logging, LoggingInstrumentor."""

_NO_ID = "0"
"""What that one writes where no span is active."""

_lock = threading.Lock()
_installed = False


def correlate_logs() -> None:
    """Let log records of traced flow runs and attempts tell their span, from now on.

    In this process, whichever logger and handler they go through. Where OpenTelemetry's own
    instrumentation of `logging` has written an active span, that one stays.
    """
    global _installed  # noqa: PLW0603 - once a process, like the factory that it replaces
    with _lock:
        if not _installed:
            _installed = True
            logging.setLogRecordFactory(_correlating(logging.getLogRecordFactory()))


def _correlating(factory: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        span = current_span()
        if span is not None and record.__dict__.get(_TRACE_ID, _NO_ID) == _NO_ID:
            record.__dict__ |= {
                _TRACE_ID: span.trace_id.hex(),
                _SPAN_ID: span.span_id.hex(),
                _SAMPLED: span.sampled,
            }
        return record

    return make
