"""The driver's end of the workers' channels: one thread for all of them."""

import contextlib
import logging
import secrets
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from raysched.engine.ports import Began, Progressed, Sink
from raysched.worker.context import Endpoint
from raysched.worker.protocol import VERSION
from raysched.worker.wire import (
    ACKNOWLEDGE,
    BEGAN,
    CANCEL,
    CLOSE,
    CLOSED,
    FRAME_MAX_BYTES,
    HOLDS,
    PROGRESSED,
    FrameReader,
    WireError,
    check,
    frame,
    new_nonce,
    proof,
)

ACKNOWLEDGE_EVERY = 500
"""Outcomes and log records of a unit after which its worker may forget them. Each costs the worker
a wake-up; those of smaller units come again in the report, where their numbers tell them apart."""

HANDSHAKE_SECONDS = 5.0
"""How long a connection has time to prove that it is a worker."""

CLOSE_SECONDS = 5.0
"""How long workers may take to close the objects that they keep, before Ray ends them."""

LAST_WORDS_SECONDS = 1.0
"""How long the channel of a dead worker may take to end before its unit is given up as lost."""

_READ_BYTES = 256 * 1024

_log = logging.getLogger(__name__)


class _Worker:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = FrameReader()
        self.unsent = b""
        self.nonce = b""
        self.their_nonce = b""
        self.is_known = False
        self.deadline = time.monotonic() + HANDSHAKE_SECONDS
        self.unacknowledged: dict[int, tuple[int, int]] = {}


class Listener:
    """Takes what workers report while units run, and gives them orders.

    Args:
        host: Address of this machine at which workers reach it.
        sink: Where reports go; called in the listener's thread.
        is_open: Whether a unit has not come back: reports of others are too late to matter.
    """

    def __init__(self, host: str, sink: Sink, is_open: Callable[[int], bool]) -> None:
        self._sink = sink
        self._is_open = is_open
        self._server = socket.create_server((host, 0), backlog=1024)
        self._server.settimeout(0)
        self.endpoint = Endpoint(host, self._server.getsockname()[1], secrets.token_bytes(32))
        self._selector = selectors.DefaultSelector()
        self._workers: set[_Worker] = set()
        self._worker_of: dict[int, _Worker] = {}
        self._cancelled: dict[int, bool] = {}
        """Units that were cancelled, and whether by force."""
        self._orders: deque[Callable[[], None]] = deque()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._wake_up, self._wake = socket.socketpair()
        self._wake_up.settimeout(0)
        self._closed = False
        self._holding: set[_Worker] = set()
        """Workers that keep objects."""
        self._none_holds = threading.Event()
        self._none_holds.set()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._selector.register(self._wake_up, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._loop, name="raysched listener", daemon=True)
        self._thread.start()

    def cancel(self, unit: int, *, force: bool) -> bool:
        """Tell the worker that runs a unit to end it; returns at once.

        Args:
            unit: The unit.
            force: Whether to end the worker if it does not react at once.

        Returns:
            Whether that worker is known; otherwise all are told, and it again once it is known: it
            may have been about to begin the unit.
        """
        self._order(lambda: self._send_cancel(unit, force=force))
        return unit in self._worker_of

    def after_last_words(self, unit: int, then: Callable[[], None], *, died: bool) -> None:
        """Call `then` in the listener's thread, once a unit's reports are all in.

        Args:
            unit: The unit.
            then: What is to be called.
            died: Whether its worker has died, so that its channel will end.
        """
        self._order(lambda: self._await_end(unit, then, died=died))

    def forget(self, unit: int) -> None:
        """Take note that a unit has come back."""
        self._worker_of.pop(unit, None)
        self._cancelled.pop(unit, None)

    def close_objects(self) -> None:
        """Have the workers close the objects that they keep; return when they have.

        Ray ends the workers of a driver that leaves by SIGKILL, so that they could not by
        themselves. What takes longer than `CLOSE_SECONDS` is given up, with a warning.
        """
        if self._none_holds.is_set():
            return
        self._order(self._send_close)
        if not self._none_holds.wait(CLOSE_SECONDS):
            _log.warning(
                "%d workers did not close what once_per_worker had made within %g s",
                len(self._holding),
                CLOSE_SECONDS,
            )

    def close(self) -> None:
        """Close all channels and end the thread."""
        self._order(self._stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def _stop(self) -> None:
        self._closed = True

    def _send_close(self) -> None:
        for worker in self._holding:
            self._send(worker, CLOSE)

    def _hold(self, worker: _Worker) -> None:
        self._holding.add(worker)
        self._none_holds.clear()

    def _hold_no_more(self, worker: _Worker) -> None:
        self._holding.discard(worker)
        if not self._holding:
            self._none_holds.set()

    def _loop(self) -> None:
        while not self._closed:
            try:
                self._serve(self._selector.select(self._patience()))
                while self._orders:
                    self._orders.popleft()()
                self._give_up()
            except Exception:  # noqa: BLE001
                # Live reports are a comfort; the units' own reports do not depend on them.
                _log.exception("the listener for workers' channels stumbled")
        for worker in tuple(self._workers):
            self._drop(worker)
        for each in (self._server, self._wake_up, self._wake, self._selector):
            each.close()

    def _patience(self) -> float | None:
        deadlines = [deadline for deadline, _, _ in self._waiting]
        deadlines += [worker.deadline for worker in self._workers if not worker.is_known]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _serve(self, ready: Sequence[tuple[selectors.SelectorKey, int]]) -> None:
        for key, events in ready:
            if key.fileobj is self._server:
                self._accept()
            elif key.fileobj is self._wake_up:
                with contextlib.suppress(BlockingIOError):
                    self._wake_up.recv(_READ_BYTES)
            elif key.data in self._workers:
                if events & selectors.EVENT_WRITE:
                    self._push(key.data)
                if events & selectors.EVENT_READ:
                    self._receive(key.data)

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        connection.settimeout(0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        worker = _Worker(connection)
        self._workers.add(worker)
        self._selector.register(connection, selectors.EVENT_READ, worker)

    def _receive(self, worker: _Worker) -> None:
        try:
            data = worker.connection.recv(_READ_BYTES)
            for message in worker.reader.feed(data):
                if worker.is_known:
                    self._take(worker, message)
                else:
                    self._introduce(worker, message)
        except BlockingIOError:
            return
        except WireError as error:
            _log.warning("a connection to the workers' port was refused: %s", error)
            self._drop(worker)
            return
        except OSError:
            data = b""
        if not data:
            self._drop(worker)

    def _introduce(self, worker: _Worker, message: tuple[Any, ...]) -> None:
        key = self.endpoint.key
        match message:
            case (int() as version, bytes() as nonce) if not worker.nonce:
                if version != VERSION:
                    raise WireError(f"it speaks version {version} of the protocol, not {VERSION}")
                worker.nonce, worker.their_nonce = new_nonce(), nonce
                self._send(worker, worker.nonce, proof(key, b"driver", nonce, worker.nonce))
            case (bytes() as theirs,) if worker.nonce:
                check(theirs, proof(key, b"worker", worker.nonce, worker.their_nonce))
                worker.is_known = True
                worker.reader.limit = FRAME_MAX_BYTES
            case _:
                raise WireError("it does not introduce itself")

    def _take(self, worker: _Worker, message: tuple[Any, ...]) -> None:
        match message:
            case (kind,) if kind == HOLDS:
                self._hold(worker)
            case (kind,) if kind == CLOSED:
                self._hold_no_more(worker)
            case (kind, int() as unit, *_) if not self._is_open(unit):
                worker.unacknowledged.pop(unit, None)
            case (kind, int() as unit, tuple() as positions, int() as at) if kind == BEGAN:
                self._know(unit, worker)
                self._sink(Began(unit, positions, at))
            case (kind, int() as unit, bytes() as report, int() as outcomes, int() as logs) if (
                kind == PROGRESSED
            ):
                self._know(unit, worker)
                self._sink(Progressed(unit, report))
                self._acknowledge(worker, unit, outcomes, logs)
            case _:
                raise WireError("a worker's message is none that is known")

    def _know(self, unit: int, worker: _Worker) -> None:
        if unit not in self._worker_of and unit in self._cancelled:
            self._send(worker, CANCEL, unit, None, self._cancelled[unit])
        self._worker_of[unit] = worker

    def _acknowledge(self, worker: _Worker, unit: int, outcomes: int, logs: int) -> None:
        before = worker.unacknowledged.get(unit, (0, 0))
        total = before[0] + outcomes, before[1] + logs
        if sum(total) >= ACKNOWLEDGE_EVERY:
            self._send(worker, ACKNOWLEDGE, unit, *total)
            total = (0, 0)
        # A worker runs one unit at a time.
        worker.unacknowledged = {unit: total}

    def _send_cancel(self, unit: int, *, force: bool) -> None:
        known = self._worker_of.get(unit)
        if known is None and self._is_open(unit):
            self._cancelled[unit] = force
        for worker in (known,) if known is not None else tuple(self._workers):
            if worker.is_known:
                self._send(worker, CANCEL, unit, None, force)

    def _await_end(self, unit: int, then: Callable[[], None], *, died: bool) -> None:
        # The kernel has what a process on this machine sent before it died.
        while ready := [key for key in self._selector.select(0) if key[0].data in self._workers]:
            self._serve(ready)
        if died and self._worker_of.get(unit) in self._workers:
            self._waiting.append((time.monotonic() + LAST_WORDS_SECONDS, unit, then))
        else:
            then()

    def _give_up(self) -> None:
        now = time.monotonic()
        for worker in [each for each in self._workers if not each.is_known]:
            if worker.deadline <= now:
                self._drop(worker)
        waiting, self._waiting = self._waiting, []
        for deadline, unit, then in waiting:
            if deadline <= now or self._worker_of.get(unit) not in self._workers:
                then()
            else:
                self._waiting.append((deadline, unit, then))

    def _send(self, worker: _Worker, *message: Any) -> None:
        worker.unsent += frame(*message)
        self._push(worker)

    def _push(self, worker: _Worker) -> None:
        try:
            while worker.unsent:
                worker.unsent = worker.unsent[worker.connection.send(worker.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            # Its end is read next, with what it has said before.
            worker.unsent = b""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.unsent else 0)
        self._selector.modify(worker.connection, events, worker)

    def _drop(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        self._hold_no_more(worker)
        self._selector.unregister(worker.connection)
        worker.connection.close()
