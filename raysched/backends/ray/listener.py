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
from typing import Any, NamedTuple

from raysched.backends.ray.hearts import Hearts, Silence, Whereabouts
from raysched.backends.ray.links import Link
from raysched.backends.ray.orders import Order, Orders
from raysched.engine.ports import Began, Progressed, Sink
from raysched.worker.context import Endpoint
from raysched.worker.wire import (
    ACKNOWLEDGE,
    ALIVE,
    BEGAN,
    CANCEL,
    CLOSE,
    CLOSED,
    HEARD,
    HERE,
    HOLDS,
    PROGRESSED,
    READY,
    WireError,
    frame,
)

ACKNOWLEDGE_EVERY = 500
"""Outcomes and log records of a unit after which its worker may forget them. Each costs the worker
a wake-up; those of smaller units come again in the report, where their numbers tell them apart."""

CLOSE_SECONDS = 5.0
"""How long workers may take to close the objects that they keep, before Ray ends them."""

LAST_WORDS_SECONDS = 1.0
"""How long the channel of a dead worker may take to end before its unit is given up as lost."""

ENDED_KEPT = 64
"""Workers whose channel has ended, kept for whoever asks which of them had a unit that was lost."""

_READ_BYTES = 256 * 1024

_log = logging.getLogger(__name__)


class Alarms(NamedTuple):
    """What a listener calls, in its own thread, each time once.

    Attributes:
        on_silence: For each worker that does not give the signs of life that it owes.
        on_deafness: For each cancelled unit whose worker, if there is one, does not hear.
        on_end: For each worker whose channel has ended.
    """

    on_silence: Callable[[Silence], None]
    on_deafness: Callable[[int], None]
    on_end: Callable[[Whereabouts], None]


class Listener:
    """Takes what workers report while units run, and gives them orders.

    Args:
        host: Address of this machine at which workers reach it.
        sink: Where reports go; called in the listener's thread.
        is_open: Whether a unit has not come back: reports of others are too late to matter.
        alarms: Whom to call about workers that fall silent.
    """

    def __init__(
        self,
        host: str,
        sink: Sink,
        is_open: Callable[[int], bool],
        alarms: Alarms,
    ) -> None:
        self._sink = sink
        self._is_open = is_open
        self._server = socket.create_server((host, 0), backlog=1024)
        self._server.settimeout(0)
        self.endpoint = Endpoint(host, self._server.getsockname()[1], secrets.token_bytes(32))
        self._selector = selectors.DefaultSelector()
        self._workers: set[Link] = set()
        self._worker_of: dict[int, Link] = {}
        self._cancelled = Orders()
        self._alarms = alarms
        self._hearts = Hearts(alarms.on_silence)
        self._ended: deque[Whereabouts] = deque(maxlen=ENDED_KEPT)
        self._orders: deque[Callable[[], None]] = deque()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._wake_up, self._wake = socket.socketpair()
        self._wake_up.settimeout(0)
        self._closed = False
        self._holding: set[Link] = set()
        """Workers that keep objects."""
        self._none_holds = threading.Event()
        self._none_holds.set()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._selector.register(self._wake_up, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._loop, name="raysched listener", daemon=True)
        self._thread.start()

    def cancel(self, unit: int, positions: Sequence[int] | None, *, force: bool) -> bool:
        """Tell the worker that runs a unit to end items of it; returns at once.

        Args:
            unit: The unit.
            positions: Which items, or None for all.
            force: Whether to end the worker if it does not react at once.

        Returns:
            Whether that worker is known; otherwise all are told, those that come later, too, and
            whichever begins the unit begins it without these items.
        """
        order = Order(unit, positions, force)
        self._order(lambda: self._send_cancel(order))
        return unit in self._worker_of

    def carriers(self, unit: int) -> Sequence[Whereabouts]:
        """Return which workers may have had a unit that was lost; in the listener's thread.

        The one that had told of it; else those whose channels have ended lately, the last one
        first, and then all others.
        """
        worker = self._worker_of.get(unit)
        if worker is not None:
            return () if worker.whereabouts is None else (worker.whereabouts,)
        others = [each.whereabouts for each in self._workers if each.whereabouts is not None]
        return (*reversed(self._ended), *others)

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
        self._cancelled.forget(unit)
        self._hearts.forget(unit)

    def close_objects(self) -> None:
        """Have the workers close the objects that they keep; return when they have.

        Ray ends the workers of a driver that leaves by SIGKILL, so that they could not by
        themselves. What takes longer than `CLOSE_SECONDS` is given up, with a warning.
        """
        asked = threading.Event()
        self._order(lambda: self._send_close(asked))
        asked.wait(CLOSE_SECONDS)
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

    def _send_close(self, asked: threading.Event) -> None:
        # The reply of its last unit may have overtaken a worker's word that it keeps some.
        self._hear_all()
        for worker in tuple(self._holding):
            self._send(worker, CLOSE)
        asked.set()

    def _hold(self, worker: Link) -> None:
        self._holding.add(worker)
        self._none_holds.clear()

    def _hold_no_more(self, worker: Link) -> None:
        self._holding.discard(worker)
        if not self._holding:
            self._none_holds.set()

    def _loop(self) -> None:
        while not self._closed:
            try:
                self._listen()
                while self._orders:
                    self._orders.popleft()()
                now = time.monotonic()
                if self._patience() == 0:
                    # What was said while this thread could not listen is still there.
                    self._hear_all()
                self._give_up(now)
                self._hearts.tell()
                for unit in self._cancelled.take_unheard(now):
                    self._alarms.on_deafness(unit)
            except Exception:  # noqa: BLE001
                # Live reports are a comfort; the units' own reports do not depend on them.
                _log.exception("the listener for workers' channels stumbled")
        for worker in tuple(self._workers):
            self._drop(worker)
        for each in (self._server, self._wake_up, self._wake, self._selector):
            each.close()

    def _listen(self) -> None:
        patience, since = self._patience(), time.monotonic()
        ready = self._selector.select(patience)
        if patience is not None:
            self._hearts.pass_time(min(time.monotonic() - since, patience))
        self._serve(ready)

    def _patience(self) -> float | None:
        deadlines = [deadline for deadline, _, _ in self._waiting]
        deadlines += [worker.deadline for worker in self._workers if not worker.is_known]
        if self._cancelled.due is not None:
            deadlines.append(self._cancelled.due)
        patience = min(deadlines) - time.monotonic() if deadlines else None
        limits = [limit for limit in (patience, self._hearts.patience) if limit is not None]
        return max(0.0, min(limits)) if limits else None

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
                    if key.data in self._workers:
                        self._hearts.hear(key.data.whereabouts)

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        connection.settimeout(0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        worker = Link(connection)
        self._workers.add(worker)
        self._selector.register(connection, selectors.EVENT_READ, worker)

    def _receive(self, worker: Link) -> None:
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

    def _introduce(self, worker: Link, message: tuple[Any, ...]) -> None:
        answer = worker.introduce(message, self.endpoint.key)
        self._send(worker, *(answer or (READY, self._cancelled.given())))

    def _take(self, worker: Link, message: tuple[Any, ...]) -> None:
        match message:
            case (kind,) if kind == HOLDS:
                self._hold(worker)
            case (kind,) if kind == CLOSED:
                self._hold_no_more(worker)
            case (
                kind,
                str() as node_id,
                str() as worker_id,
                int() as pid,
                str() as host,
                str() as file,
            ) if kind == HERE:
                worker.whereabouts = Whereabouts(node_id, worker_id, pid, host, file)
            case (kind, int() as unit, *_) if not self._is_open(unit):
                worker.acknowledged.pop(unit, None)
            case (kind, int() as unit, tuple() as positions, int() as at) if kind == BEGAN:
                self._know(unit, worker)
                self._sink(Began(unit, positions, at))
            case (
                kind,
                int() as unit,
                bytes() as report,
                int() as outcomes,
                int() as logs,
                int() as spans,
            ) if kind == PROGRESSED:
                self._know(unit, worker)
                self._sink(Progressed(unit, report))
                self._acknowledge(worker, unit, outcomes, logs, spans)
            case (kind, int() as unit) if kind == HEARD:
                self._know(unit, worker)
                self._cancelled.heard(unit)
            case (kind, int() as unit, float() as seconds, str() as key) if (
                kind == ALIVE and worker.whereabouts is not None
            ):
                self._know(unit, worker)
                self._hearts.watch(unit, worker.whereabouts, key, seconds)
            case _:
                raise WireError("a worker's message is none that is known")

    def _know(self, unit: int, worker: Link) -> None:
        self._worker_of[unit] = worker
        # It has the orders: they went to all.
        self._cancelled.known(unit)

    def _acknowledge(self, worker: Link, unit: int, outcomes: int, logs: int, spans: int) -> None:
        known = worker.acknowledged.get(unit, (0, 0, 0))
        # Messages of spans are few, and may be large.
        if spans > known[2] or outcomes - known[0] + logs - known[1] >= ACKNOWLEDGE_EVERY:
            known = outcomes, logs, spans
            self._send(worker, ACKNOWLEDGE, unit, *known)
        # A worker runs one unit at a time.
        worker.acknowledged = {unit: known}

    def _send_cancel(self, order: Order) -> None:
        if not self._is_open(order.unit):
            return
        self._cancelled.give(order)
        known = self._worker_of.get(order.unit)
        for worker in (known,) if known is not None else tuple(self._workers):
            if worker.is_known and worker in self._workers:
                self._send(worker, CANCEL, *order)

    def _await_end(self, unit: int, then: Callable[[], None], *, died: bool) -> None:
        self._hear_all()
        if died and self._worker_of.get(unit) in self._workers:
            self._waiting.append((time.monotonic() + LAST_WORDS_SECONDS, unit, then))
        else:
            then()

    def _hear_all(self) -> None:
        """Take what workers have said: the kernel has it, even if they have died since."""
        while ready := [key for key in self._selector.select(0) if key[0].data in self._workers]:
            self._serve(ready)

    def _give_up(self, now: float) -> None:
        for worker in [each for each in self._workers if not each.is_known]:
            if worker.deadline <= now:
                self._drop(worker)
        waiting, self._waiting = self._waiting, []
        for deadline, unit, then in waiting:
            if deadline <= now or self._worker_of.get(unit) not in self._workers:
                then()
            else:
                self._waiting.append((deadline, unit, then))

    def _send(self, worker: Link, *message: Any) -> None:
        worker.unsent += frame(*message)
        self._push(worker)

    def _push(self, worker: Link) -> None:
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

    def _drop(self, worker: Link) -> None:
        self._workers.discard(worker)
        if worker.whereabouts is not None:
            self._ended.append(worker.whereabouts)
            self._alarms.on_end(worker.whereabouts)
        self._hold_no_more(worker)
        self._selector.unregister(worker.connection)
        worker.connection.close()
