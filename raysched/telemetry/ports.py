"""How the parts of this room meet: what they take, and where it goes."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from raysched.model.rows import Batch, FlowRunRow


class Signal(StrEnum):
    """What is exported, as OTLP's paths and `OTEL_EXPORTER_OTLP_<SIGNAL>_*` call it."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class Consumer(Protocol):
    """Makes something of what was committed. All calls come from one background thread."""

    def take(self, row: FlowRunRow, batch: Batch) -> None:
        """Take note of a committed batch of one flow run; values of task runs are not in it."""

    def flush(self, seconds: float) -> None:
        """Deliver what there is, for at most so long."""

    def close(self) -> None:
        """Let go of what it has; after the last `flush`."""


class Unavailable(Exception):
    """The collector did not take a request, but may take it later.

    Attributes:
        reason: Why, for people.
        retry_after: When it asks to be tried again (seconds), or None.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class Refused(Exception):
    """The collector will never take a request.

    Attributes:
        reason: Why, for people.
        unsupported: Whether it does not take this signal at all.
    """

    def __init__(self, reason: str, *, unsupported: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unsupported = unsupported


class Transport(Protocol):
    """Carries requests of one signal to a collector; one adapter for each protocol."""

    url: str
    """Where to, for people; without credentials."""

    def send(self, request: bytes, seconds: float) -> int:
        """Deliver an encoded OTLP `Export…ServiceRequest`; return how many items were rejected.

        Args:
            request: The request.
            seconds: How long at most; the standard timeout if that is shorter.

        Raises:
            Unavailable: It may be tried again.
            Refused: It may not.
        """

    def close(self) -> None:
        """Let go of the connection."""


class SpanSink(Protocol):
    """Where finished spans go: to a collector, or to the program's own provider."""

    def put(self, run_id: str, spans: Sequence[bytes], scopes: Sequence[bytes] = ()) -> None:
        """Deliver spans, sooner or later; may wait while too many are on their way.

        Args:
            run_id: Id of the flow run at the top, for `unsent`.
            spans: Encoded OTLP `Span`s of our own.
            scopes: Encoded OTLP `ScopeSpans` of user code.
        """

    def flush(self, seconds: float) -> None:
        """Deliver what there is, for at most so long."""

    def unsent(self) -> dict[str, int]:
        """Return how many spans were not delivered, by flow run at the top."""

    def reason(self) -> str:
        """Return why the last ones were not delivered, or ""."""

    def close(self) -> None:
        """Let go of everything."""
