"""What is measured: every instrument, with its unit, its meaning and its buckets."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

NANOSECONDS = 1_000_000_000
"""Of one second."""

SCOPE = "raysched"
"""Instrumentation scope of everything that is told of runs."""

FLOW_NAME = "raysched.flow.name"
FLOW_STATE = "raysched.flow.state"
TASK_NAME = "raysched.task.name"
TASK_STATE = "raysched.task.state"
ERROR_TYPE = "error.type"
SIGNAL = "raysched.telemetry.signal"

Attributes: TypeAlias = tuple[tuple[str, str], ...]
"""What a measurement is about, as names and values. Ids and keys of runs are never among them:
every combination of values is a series that is kept, sent and stored for good."""

OVERFLOW: Attributes = (("otel.metric.overflow", "true"),)
"""Where the measurements go for which there is no room. Source: OpenTelemetry Metrics SDK, overflow
attribute (sent as a boolean)."""

MOST_SERIES = 2000
"""Series of one instrument, `OVERFLOW` among them. Source: OpenTelemetry Metrics SDK, cardinality
limits, default."""


class Kind(Enum):
    """Kind of an instrument, by the name that OpenTelemetry gives it."""

    COUNTER = "counter"
    UP_DOWN_COUNTER = "up-down counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Instrument:
    """An instrument.

    Attributes:
        name: Name.
        kind: Kind.
        unit: Unit, as UCUM writes it; what is counted stands in braces.
        description: What it measures, for people.
    """

    name: str
    kind: Kind
    unit: str
    description: str


BOUNDARIES = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    *(30, 60, 120, 300, 600, 1800, 3600, 7200, 21600),
)
"""Upper bounds of all histograms' buckets (seconds), each of them inclusive.

The steps of OpenTelemetry's conventions for durations of requests (0.005 to 10 s), but for those
that stand close together, since each bucket is a series. Tasks are quicker than requests, and take
longer: it begins at a millisecond, and goes on to six hours in steps that people say.
"""


def _histogram(name: str, description: str) -> Instrument:
    return Instrument(name, Kind.HISTOGRAM, "s", description)


TASK_DURATION = _histogram(
    "raysched.task.duration",
    "Time from the first attempt's start to the end of a task run that ran, "
    "waiting for retries included",
)
ATTEMPT_DURATION = _histogram("raysched.attempt.duration", "Duration of an attempt of a task run")
QUEUE_DURATION = _histogram(
    "raysched.task.queue.duration",
    "Time that a task run waited for its first attempt once it was called and all that it needed "
    "had ended",
)
FLOW_DURATION = _histogram("raysched.flow.duration", "Duration of an execution of a flow run")
TASKS = Instrument(
    "raysched.tasks", Kind.COUNTER, "{task_run}", "Task runs that have ended, by state"
)
RETRIES = Instrument(
    "raysched.task.retries",
    Kind.COUNTER,
    "{attempt}",
    "Attempts that have ended and that followed one that failed",
)
ACTIVE = Instrument(
    "raysched.task.active",
    Kind.UP_DOWN_COUNTER,
    "{task_run}",
    "Task runs that are known to be running: quick ones are told when they have ended",
)
DROPPED = Instrument(
    "raysched.telemetry.dropped",
    Kind.COUNTER,
    "{item}",
    "Spans, log records and metric points that were not delivered, by signal",
)

INSTRUMENTS = (
    TASK_DURATION,
    ATTEMPT_DURATION,
    QUEUE_DURATION,
    FLOW_DURATION,
    TASKS,
    RETRIES,
    ACTIVE,
    DROPPED,
)


class Recorder(Protocol):
    """Takes measurements."""

    def record(
        self, instrument: Instrument, attributes: Attributes, durations: Sequence[int]
    ) -> None:
        """Record durations (ns) with a histogram."""

    def add(self, instrument: Instrument, attributes: Attributes, amount: int) -> None:
        """Add to a counter, or an up-down counter."""
