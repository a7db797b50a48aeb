"""Requests of one signal on their way to a collector: bounded, retried, counted."""

import logging
import os
import random
import threading
import time
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter
from typing import Generic, TypeVar

from raysched.telemetry.ports import Refused, Transport, Unavailable

logger = logging.getLogger("raysched.telemetry")

REQUEST_BYTES = 1024**2
"""About so large is a request (bytes); collectors take up to 4 MiB by gRPC."""

REQUEST_ITEMS = 4096
"""Most spans, data points or log records in a request; collectors batch up to 8192 of them, and
some lose what is larger than two of their batches."""

MAX_BYTES = 32 * 1024**2
"""So much may be on its way (bytes)."""

LINGER_SECONDS = 1.0
"""How long a request that is not full waits for more (seconds)."""

RETRY_SECONDS = 60.0
"""How long a request is tried again that a collector does not take while it takes others (seconds):
as long as OpenTelemetry's exporters in Go try one (`MaxElapsedTime`)."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
"""Pauses between tries: the first and the longest (seconds), each twice the one before."""

_CLOSING_SECONDS = 0.2
"""How long `close` waits for a call that it has ended (seconds)."""

_NO_END = float("inf")

Piece = TypeVar("Piece")


@dataclass(slots=True, eq=False)
class _Request(Generic[Piece]):
    """Pieces that travel together, all of one run.

    Attributes:
        number: Requests are sent by their numbers.
        run_id: The run.
        due: When it waits no longer: for more pieces, or after a try (monotonic).
        pieces: What is in it, until it is first tried.
        body: What is in it from then on, encoded.
        bytes: Size of its pieces.
        items: How many items are in them.
        tries: How often the collector did not take it.
        since: When it first did not (monotonic).
    """

    number: int
    run_id: str
    due: float
    pieces: list[Piece] = field(default_factory=list)
    body: bytes = b""
    bytes: int = 0
    items: int = 0
    tries: int = 0
    since: float = 0.0


@dataclass(slots=True)
class _Count:
    """Items of one run: how many are on their way, and how many are lost."""

    waiting: int = 0
    lost: int = 0


def ignore(run_id: str) -> None:
    """Nobody wants to know."""


class Sender(Generic[Piece]):
    """Sends what it is given, about in order, from a thread of its own.

    What the collector cannot take now is tried again, with growing pauses, for as long as this
    process lives: a collector that is away for long gets all that has found room. Others are tried
    in the pauses of a request, so one that is never taken holds up none of them, and if they are
    taken it is given up after a while. A fork of the process sends nothing.

    Args:
        transport: What carries requests; closed with this.
        encode: Makes a request of pieces.
        linger_seconds: How long a piece waits for others that travel with it (seconds).
        request_bytes: Most that pieces travel together (bytes); 0 for one piece each.
        max_bytes: How much may be on its way (bytes).
        retry_seconds: How long a request is tried again while others are taken (seconds).
        delivered: Called with a run id, from the thread that sends, when all that was put of a run
            has arrived; more of it may follow.
    """

    def __init__(  # noqa: PLR0913 - its bounds
        self,
        transport: Transport,
        encode: Callable[[Sequence[Piece]], bytes],
        *,
        linger_seconds: float = LINGER_SECONDS,
        request_bytes: int = REQUEST_BYTES,
        max_bytes: int = MAX_BYTES,
        retry_seconds: float = RETRY_SECONDS,
        delivered: Callable[[str], None] = ignore,
    ) -> None:
        self._transport = transport
        self._encode = encode
        self._linger = linger_seconds
        self._request_bytes = request_bytes
        self._max_bytes = max_bytes
        self._retry_seconds = retry_seconds
        self._delivered = delivered
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._numbers = count()
        self._queue: list[_Request[Piece]] = []
        self._bytes = 0
        self._counts: dict[str, _Count] = {}
        self._reason = ""
        self._is_sending = self._is_down = self._is_off = self._is_closed = False
        # When the collector may be asked again (monotonic): by our own pauses, and by its wish.
        self._next_try = self._not_before = 0.0
        # Since the last answer, tries in a row that it did not take; and when that was (monotonic).
        self._failures = 0
        self._answered = 0.0
        self._thread = threading.Thread(
            target=self._work, name=f"raysched-send {transport.url}", daemon=True
        )
        self._thread.start()

    def put(self, piece: Piece, size: int, items: int, run_id: str = "") -> None:
        """Send a piece, sooner or later.

        Waits while too much is on its way, unless the collector is known to be down: what then
        finds no room is lost, and counted.

        Args:
            piece: What to send.
            size: Its size (bytes).
            items: How many spans, data points or log records are in it.
            run_id: Id of the flow run at the top, for `unsent`.
        """
        if self._is_fork():
            return
        with self._changed:
            if self._is_full(size):
                self._hurry()
            while self._is_full(size) and not (self._is_down or self._is_off or self._is_closed):
                self._changed.wait()
            counted = self._counts.setdefault(run_id, _Count())
            if self._is_off or self._is_closed or self._is_full(size):
                counted.lost += items
                return
            counted.waiting += items
            self._bytes += size
            request = self._request_for(run_id, size, items)
            request.pieces.append(piece)
            request.bytes += size
            request.items += items
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Send what there is, for at most so long; return whether all of it is settled.

        Pauses are cut short, but not those that the collector has asked for.
        """
        if self._is_fork():
            return True
        end = time.monotonic() + seconds
        with self._changed:
            self._next_try = 0.0
            for request in self._queue:
                request.due = 0.0
            self._changed.notify_all()
            while (self._queue or self._is_sending) and not self._is_closed:
                left = end - time.monotonic()
                # There is no use in waiting for a collector that asks for more patience.
                if left <= 0 or self._not_before >= end:
                    return False
                self._changed.wait(left)
            return not self._is_closed

    def unsent(self) -> dict[str, int]:
        """Return how many items were not delivered, by run: what was lost, and what still waits."""
        if self._is_fork():
            return {}
        with self._changed:
            counts = {run: each.waiting + each.lost for run, each in self._counts.items()}
        return {run: number for run, number in counts.items() if number}

    def reason(self) -> str:
        """Return why the last ones were not delivered, with where to; "" if nothing is missing."""
        if not self.unsent():
            return ""
        return f"{self._transport.url}: {self._reason or 'it has not answered yet'}"

    @property
    def is_off(self) -> bool:
        """Whether the collector has said that it does not take this signal at all."""
        return self._is_off

    def close(self) -> None:
        """Let go of everything; what was not sent stays counted."""
        if self._is_fork():
            return
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._drop(self._queue)
            self._queue = []
            self._changed.notify_all()
        self._transport.close()
        # A call of gRPC has been ended by that; one of HTTP may hang for its timeout.
        self._thread.join(_CLOSING_SECONDS)

    def _is_fork(self) -> bool:
        # Its copies of locks may be held for ever, and the thread is not there.
        return os.getpid() != self._process

    def _is_full(self, size: int) -> bool:
        return bool(self._bytes) and self._bytes + size > self._max_bytes

    def _hurry(self) -> None:
        """Let no request wait for more."""
        for request in self._queue:
            if not request.tries:
                request.due = 0.0
        self._changed.notify_all()

    def _request_for(self, run_id: str, size: int, items: int) -> _Request[Piece]:
        """Return the request that the next piece of a run goes into; one that is full may go."""
        for request in reversed(self._queue):
            if request.run_id == run_id and not request.tries:
                fits = request.bytes + size <= self._request_bytes
                if fits and request.items + items <= REQUEST_ITEMS:
                    return request
                request.due = 0.0
                break
        request = _Request[Piece](next(self._numbers), run_id, time.monotonic() + self._linger)
        self._queue.append(request)
        return request

    def _work(self) -> None:
        while (request := self._take()) is not None:
            try:
                if not request.tries:
                    request.body = self._encode(request.pieces)
                    request.pieces = []
            except Exception as error:
                logger.exception("spans, metrics or log records cannot be encoded")
                self._settle(request, request.items, f"{type(error).__name__}: {error}")
            else:
                self._deliver(request)

    def _take(self) -> _Request[Piece] | None:
        """Return the next request that waits no longer; None when this is closed."""
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                begin = max(self._next_try, self._not_before)
                for request in self._queue if begin <= now else ():
                    is_full = not request.tries and request.bytes >= self._request_bytes
                    if is_full or request.due <= now:
                        self._queue.remove(request)
                        self._is_sending = True
                        return request
                due = min((request.due for request in self._queue), default=_NO_END)
                due = max(due, begin)
                self._changed.wait(None if due == _NO_END else due - now)
            return None

    def _deliver(self, request: _Request[Piece]) -> None:
        """Try once."""
        try:
            rejected = self._transport.send(request.body, _NO_END)
        except Unavailable as error:
            self._put_off(request, error)
        except Refused as error:
            if error.unsupported:
                self._switch_off(error.reason)
            self._settle(request, request.items, error.reason)
        except Exception as error:
            logger.exception("sending to %s failed", self._transport.url)
            self._settle(request, request.items, f"{type(error).__name__}: {error}")
        else:
            said = f"it rejected {rejected} of them" if rejected else ""
            self._settle(request, max(0, min(rejected, request.items)), said)

    def _put_off(self, request: _Request[Piece], error: Unavailable) -> None:
        """Let a request wait for its next try, if there is one."""
        with self._changed:
            self._is_sending = False
            if self._is_closed:
                # That is why: not a reason for people.
                self._count(request, request.items)
                return
            now = time.monotonic()
            request.tries += 1
            request.since = request.since or now
            self._failures += 1
            self._reason = error.reason
            self._next_try = now + _pause(self._failures)
            self._not_before = now + (error.retry_after or 0.0)
            # One failure may be that request's own.
            self._is_down = self._failures > 1 or bool(error.retry_after)
            logger.debug("%s is not available: %s", self._transport.url, error.reason)
            if request.since < self._answered and now - request.since >= self._retry_seconds:
                self._count(request, request.items)
            else:
                # Longer than the sender's, so that others are tried before it.
                request.due = now + 2 * _pause(request.tries)
                insort(self._queue, request, key=attrgetter("number"))
            # Who waits for room need not any more, nor who waits longer than the collector wants.
            self._changed.notify_all()

    def _switch_off(self, reason: str) -> None:
        """Take nothing any more: the collector does not want this signal."""
        logger.debug("%s does not take this: %s", self._transport.url, reason)
        with self._changed:
            self._is_off = True
            self._drop(self._queue)
            self._queue = []

    def _settle(self, request: _Request[Piece], lost: int, reason: str = "") -> None:
        with self._changed:
            if not self._is_closed:
                self._is_down, self._failures = False, 0
                self._next_try = self._not_before = 0.0
                self._answered = time.monotonic()
                self._reason = reason or self._reason
            self._is_sending = False
            self._count(request, lost)
            self._changed.notify_all()
        self._tell(request.run_id)

    def _drop(self, requests: Sequence[_Request[Piece]]) -> None:
        for request in requests:
            self._count(request, request.items)

    def _count(self, request: _Request[Piece], lost: int) -> None:
        """Note that a request is not on its way any more."""
        self._bytes -= request.bytes
        # A run of which only pieces without items are on their way may be forgotten by now.
        counted = self._counts.setdefault(request.run_id, _Count())
        counted.waiting -= request.items
        counted.lost += lost

    def _tell(self, run_id: str) -> None:
        """Say that a run has arrived, if it has, and forget it."""
        with self._changed:
            counted = self._counts.get(run_id)
            if counted is None or counted.waiting or counted.lost:
                return
            del self._counts[run_id]
        try:
            self._delivered(run_id)
        except Exception:
            logger.exception("what follows the delivery of a run raised")


def _pause(tries: int) -> float:
    """Return how long to wait after so many tries (seconds), at random, which spreads load."""
    longest = min(_FIRST_PAUSE * (1 << min(tries - 1, 10)), _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311
