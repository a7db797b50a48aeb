"""Sending the traces of runs that were kept to a collector: for a person, or for who has died."""

import logging
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysched import private
from raysched.errors import RayschedError, TelemetryError
from raysched.settings import settings

if TYPE_CHECKING:
    from raysched.store.reader import Reader
    from raysched.store.views import RunView
    from raysched.telemetry.sending.environment import Destination

SEND_SECONDS = 5.0
"""How long the last spans that are sent may take to arrive (seconds)."""

ANSWER_SECONDS = 5.0
"""How long a collector may take to answer whether it is there (seconds)."""

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
    from raysched.telemetry.sending.transports import open_transport
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
    from raysched.telemetry.ports import Signal
    from raysched.telemetry.sending import environment
    from raysched.telemetry.wanted import traces_destination

    if endpoint:
        found = environment.destination(Signal.TRACES, endpoint=endpoint)
    else:
        found = traces_destination(settings())
    if found is not None:
        return found
    if environment.is_off(Signal.TRACES):
        raise TelemetryError(
            "OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER says that traces are not exported"
        )
    raise TelemetryError(
        "nothing says where traces go: raysched jaeger starts a Jaeger on this machine; "
        "--endpoint http://host:4318, or OTEL_EXPORTER_OTLP_ENDPOINT, names a collector"
    )


def deliver(run_id: str, spans: Iterable[Sequence[bytes]], to: "Destination") -> Delivery:
    """Send the spans of a run.

    Args:
        run_id: Id of the run.
        spans: All of its spans, encoded, in parts.
        to: Where to.
    """
    from raysched.telemetry.sending.spans import SpanSender, encoder
    from raysched.telemetry.sending.transports import open_transport

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


def tell_lost() -> None:
    """Have the traces of runs whose driver died sent, by a process of its own, if there are any.

    Whoever looks at runs notices them. Nothing waits for that process, of which a home has one at a
    time, and what it cannot do is left to the next one: it sends to where runs do, and nothing
    happens where nothing says so.
    """
    from raysched.client import reader_of
    from raysched.telemetry.wanted import traces_destination

    try:
        if traces_destination(settings()) is None or not _lost(reader_of(None)):
            return
        with private.tried(settings().home / "lost", TelemetryError) as lock:
            if lock is not None:
                _start_sending(lock)
    except (RayschedError, OSError) as error:
        logger.debug("traces of lost runs are not sent: %s", error)


def _start_sending(lock: int) -> None:
    """Start a process that holds a lock as long as it lives."""
    os.set_inheritable(lock, True)  # noqa: FBT003 - its only argument beside the descriptor
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    command = [sys.executable, "-m", "raysched", "trace", "--lost"]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=null, setsid=True)


def send_lost() -> None:
    """Send the traces of runs whose driver died, until a collector does not take one.

    Raises:
        TelemetryError: Nothing says where to.
        StoreError: The database cannot be read or written.
    """
    from raysched.client import reader_of
    from raysched.client.trace import RunTrace

    to, reader = destination(), reader_of(None)
    for run in _lost(reader):
        if RunTrace(reader, run).send(to, undelivered=True).unsent:
            return


def _lost(reader: "Reader") -> "list[RunView]":
    from raysched.telemetry.history import MAX_AGE_NS, MAX_RUNS

    since = time.time_ns() - MAX_AGE_NS
    return reader.undelivered(since, limit=MAX_RUNS, only_lost=True)
