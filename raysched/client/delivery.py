"""Sending the traces of runs that were kept to a collector: for a person, or beside a command."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from raysched.errors import TelemetryError
from raysched.settings import settings

if TYPE_CHECKING:
    from raysched.telemetry.environment import Destination
    from raysched.telemetry.spans import Encode

SEND_SECONDS = 5.0
"""How long the last spans that are sent may take to arrive (seconds)."""

ANSWER_SECONDS = 5.0
"""How long a collector may take to answer whether it is there (seconds)."""

LOST_SECONDS = 1.0
"""How long a command goes on at most for the traces of runs that it has noticed to be lost."""

MOST_LOST = 20
"""Lost runs that one command looks after, the newest ones."""

LARGEST_LOST = 20_000
"""Task runs of the largest of them: the trace of a larger one would not be sent in that time."""

LOST_DAYS = 7
"""Runs that were lost earlier are left to `raysched trace --unsent`."""

_DAY = 24 * 3600 * 10**9

logger = logging.getLogger("raysched.telemetry")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of spans that were sent.

    Attributes:
        spans: How many there are.
        unsent: How many of them did not arrive.
        reason: Why not, or "".
    """

    spans: int
    unsent: int
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a collector said to an empty request.

    Attributes:
        endpoint: Where it is, without credentials.
        reason: Why it takes no traces, or "" if it does.
    """

    endpoint: str
    reason: str = ""


def ask_collector() -> Answer | None:
    """Send an empty request to where traces go; return what became of it, None if they go nowhere.

    Raises:
        SettingsError: An `OTEL_*` variable has an impossible value.
    """
    from raysched.telemetry.ports import Refused, Unavailable
    from raysched.telemetry.transports import open_transport
    from raysched.telemetry.wanted import traces_destination

    to = traces_destination(settings())
    if to is None:
        return None
    transport = open_transport(to)
    try:
        # An `ExportTraceServiceRequest` without spans has no bytes.
        transport.send(b"", ANSWER_SECONDS)
    except (Unavailable, Refused) as error:
        return Answer(transport.url, error.reason)
    finally:
        transport.close()
    return Answer(transport.url)


def destination(endpoint: str = "") -> "Destination":
    """Return where a person's traces go.

    Args:
        endpoint: What that person has named: `http://host:4318`; by default where runs send theirs.

    Raises:
        TelemetryError: Nothing says where to.
        SettingsError: An `OTEL_*` variable has an impossible value.
    """
    from raysched.telemetry import environment
    from raysched.telemetry.ports import Signal
    from raysched.telemetry.wanted import traces_destination

    if endpoint:
        found = environment.destination(Signal.TRACES, endpoint=endpoint)
    else:
        found = traces_destination(settings())
    if found is None:
        raise TelemetryError(
            "OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER says that traces are not exported"
            if endpoint
            else "nothing says where traces go: raysched jaeger starts a Jaeger on this machine; "
            "--endpoint http://host:4318, or OTEL_EXPORTER_OTLP_ENDPOINT, names a collector"
        )
    return found


def encoder() -> "Encode":
    """Return what makes a request of encoded spans, with what the environment says of this service.

    Raises:
        SettingsError: An `OTEL_*` variable has an impossible value.
    """
    from raysched.telemetry import environment, otlp

    resource = cast("otlp.Attributes", environment.resource().attributes)
    return partial(otlp.traces_request, otlp.resource(resource))


def deliver(run_id: str, spans: Iterable[Sequence[bytes]], to: "Destination") -> Delivery:
    """Send the spans of a run.

    Args:
        run_id: Id of the run.
        spans: All of its spans, encoded, in parts.
        to: Where to.
    """
    from raysched.telemetry.spans import SpanSender
    from raysched.telemetry.transports import open_transport

    sender = SpanSender(open_transport(to), encoder())
    count = 0
    try:
        for part in spans:
            sender.put(run_id, part)
            count += len(part)
        sender.flush(SEND_SECONDS)
        return Delivery(count, sender.unsent().get(run_id, 0), sender.reason())
    finally:
        sender.close()


@contextmanager
def sending_lost() -> Iterator[None]:
    """Beside what is done in the block, send the traces of runs whose driver died.

    Where spans go is that of runs; nothing happens where nothing says so. A thread does it, which
    the end of the block waits for until `LOST_SECONDS` after its beginning. What does not work, or
    is not ready then, is left to the next command.
    """
    began = time.monotonic()
    thread = threading.Thread(target=_send_lost, name="raysched-lost", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(max(0.0, began + LOST_SECONDS - time.monotonic()))


def _send_lost() -> None:
    from raysched.client.trace import RunTrace
    from raysched.store import open_reader

    try:
        to = destination()
        # One of its own: the command's is in use.
        reader = open_reader(settings().resolved_database_url())
        try:
            found = reader.undelivered(time.time_ns() - LOST_DAYS * _DAY, limit=MOST_LOST)
            for run in found:
                small = sum(run.counts.values()) <= LARGEST_LOST
                if run.lost and small and RunTrace(reader, run).send(to, undelivered=True).unsent:
                    return
        finally:
            reader.close()
    except Exception as error:  # noqa: BLE001 - nobody has asked for it
        logger.debug("traces of lost runs cannot be sent: %r", error)
