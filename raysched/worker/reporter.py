"""The thread beside the user's code: reports live, takes orders, and ends what does not react."""

import logging
import os
import select
import threading
import time
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import NoReturn

from raysched.worker.channel import Channel
from raysched.worker.context import Endpoint
from raysched.worker.deadman import DeadMan
from raysched.worker.deadman import file_of as dead_man_file
from raysched.worker.ending import end_items
from raysched.worker.extensions import COLLECT_SECONDS
from raysched.worker.interrupt import Signals
from raysched.worker.objects import objects
from raysched.worker.outbox import Outbox
from raysched.worker.processes import end_processes
from raysched.worker.progress import WorkerIdentity
from raysched.worker.runner import UnitRun
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
    WireError,
)

TICK_SECONDS = 0.05
"""What runs longer than this is announced; outcomes are sent this often."""

CLOSE_SECONDS = 2.0
"""How long the last report of a worker that is ended has time to leave."""

LOGS_AT_ONCE = 200
"""Log records a tick that are sent by the thread that logs; a flood goes in batches, a tick late,
or logging would cost each of them a system call and the driver a message."""

DEAD_MAN_SECONDS = 1.0
"""How much later than this thread would end the process it is ended without its help: it gets no
turn while native code holds the GIL."""

END_SECONDS = 10.0
"""How long this thread may take to report, and to end what was started, before it ends itself."""

SIGNS_PER_TIMEOUT = 4
"""Signs of life within `heartbeat_timeout_seconds`: one of them may be late, and one be lost."""

ORDERS_KEPT = 1000
"""Cancellations of units that have not begun here, and mostly never will."""

_AWAKE_SECONDS = 1.0
"""How long the thread goes on ticking between units: waking it costs more than a tick."""

_RECONNECT_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Reporter:
    """Watches the unit that runs in this process.

    Quick units never meet it: it looks every `TICK_SECONDS` while units come, and sleeps when
    nothing changes any more. Log records are sent by the thread that logs, so that they survive
    whatever that thread does next.

    Args:
        endpoint: Where the driver listens.
        identity: Where this process is.
        traces: File of what this process leaves behind when it dies, see `backends.ray.traces`.
        signals: How to reach the main thread.
    """

    def __init__(
        self, endpoint: Endpoint, identity: WorkerIdentity, traces: str, signals: Signals
    ) -> None:
        self._endpoint = endpoint
        self._identity = identity
        self._traces = traces
        self._signals = signals
        self._outbox = Outbox()
        self._tried = 0.0
        self._run: UnitRun | None = None
        self._changed_at = 0.0
        self._logs_sent = 0
        self._asleep = False
        self._closed = False
        self._told: Channel | None = None
        self._objects_closed = False
        self._orders: dict[int, list[tuple[Sequence[int] | None, bool]]] = {}
        self._ordering = threading.Lock()
        self._silence = 0.0
        self._sign_due = 0.0
        self._dead_man = DeadMan(dead_man_file(Path(traces).parent, os.getpid()))
        self._arming = threading.RLock()
        self._is_ending = False
        self._armed_until = inf
        self._wake_up, self._wake = os.pipe()
        signals.report_to(self._wake)
        self._connect()
        threading.Thread(target=self._loop, name="raysched reporter", daemon=True).start()

    def begin(self, run: UnitRun) -> None:
        """See `runner.Watcher`."""
        self._silence = 0.0
        run.progress.on_log = self._on_log
        limited = run.deadlines.has_heartbeat or run.deadlines.has_timeout
        run.progress.on_change = self._on_limited_change if limited else self._on_change
        self._run = run
        # After that line: an order that is not seen here is carried out by the thread it came to.
        if self._orders:
            self._carry_out(run)
        self._on_change()

    def end(self) -> None:
        """See `runner.Watcher`."""
        with self._arming:
            if self._silence and self._run is not None:
                # Nothing speaks while Ray takes what the unit returns.
                self._silence = 0.0
                self._give_sign(self._run)
            self._run = None
            if self._armed_until < inf:
                self._dead_man.disarm()
                self._armed_until = inf
        channel = self._outbox.channel
        if objects.are_there and channel is not None and channel is not self._told:
            self._told = channel
            channel.send(HOLDS)

    def close(self) -> None:
        """End the thread and its channel: another driver, or another engine of it, took over."""
        self._closed = True
        os.write(self._wake, b"\0")

    def _on_change(self) -> None:
        if self._asleep:
            self._asleep = False
            os.write(self._wake, b"\0")

    def _on_limited_change(self) -> None:
        """Have the limits of what runs now kept from its first line on: it may hold the GIL then.

        In the thread of the item.
        """
        run = self._run
        running = () if run is None else tuple(run.progress.running.items())
        # Between two items nothing changes. What overlaps is of one stage, the oldest comes first.
        if run is not None and running:
            position, started = running[0]
            until = run.deadlines.end_of_grace(position, started) + DEAD_MAN_SECONDS
            # Not for each of many quick ones: it costs more than they do. Never armed too early.
            if until != self._armed_until and abs(until - self._armed_until) > DEAD_MAN_SECONDS:
                self._arm(run)
            silence = run.deadlines.heartbeat_seconds(position) or 0.0
            if silence != self._silence:
                self._silence = silence
                self._give_sign(run)
        self._on_change()

    def _arm(self, run: UnitRun) -> None:
        """Have the process ended, even if this thread gets no turn, after what is due first."""
        with self._arming:
            # In here, or what is known of an item could come after that of the next one.
            due = run.deadlines.due()
            first = min(due, key=due.__getitem__, default=None)
            until = inf if first is None else due[first] + DEAD_MAN_SECONDS
            # Not once the unit has ended: nobody would disarm it.
            if self._run is not run or until == self._armed_until or self._is_ending:
                return
            self._armed_until = until
            if first is None:
                self._dead_man.disarm()
            else:
                limit = run.deadlines.timeout_seconds(first) or 0.0
                left = max(until - time.monotonic(), DEAD_MAN_SECONDS)
                self._dead_man.arm(run.progress.key(first), limit, left)

    def _give_sign(self, run: UnitRun) -> None:
        with self._arming:
            # In here, or it could come after the last one.
            if self._run is not run:
                return
            self._sign_due = time.monotonic() + self._silence / SIGNS_PER_TIMEOUT
            running = next(iter(tuple(run.progress.running)), None)
            key = "" if running is None else run.progress.key(running)
            self._outbox.send(ALIVE, run.progress.unit.id, self._silence, key)

    def _on_log(self) -> None:
        run = self._run
        if run is not None and self._logs_sent < LOGS_AT_ONCE:
            self._logs_sent += 1
            self._outbox.send_unsent(run.progress)
        self._on_change()

    def _loop(self) -> None:
        poll = select.poll()
        poll.register(self._wake_up, select.POLLIN)
        while not self._closed:
            # Before it looks: what changes from here on wakes it.
            self._asleep = True
            wait = self._tick()
            if wait == TICK_SECONDS:
                self._asleep = False
            channel = self._outbox.channel
            if channel is not None:
                poll.register(channel, channel.events)
            ready = poll.poll(None if wait is None else max(wait, 0) * 1000)
            self._asleep = False
            if channel is not None:
                poll.unregister(channel)
            for descriptor, _ in ready:
                if descriptor == self._wake_up:
                    self._signals.heard(os.read(self._wake_up, 64))
                elif channel is not None:
                    self._serve(channel)
        if self._outbox.channel is not None:
            self._outbox.channel.close()
        self._dead_man.close()

    def _tick(self) -> float | None:
        """Do what is due; return when to look again (seconds), or None if nothing will be."""
        run, now = self._run, time.monotonic()
        self._logs_sent = 0
        if self._objects_closed:
            self._objects_closed = False
            self._outbox.send(CLOSED)
        patience = _RECONNECT_SECONDS
        if run is not None and self._silence:
            patience = min(patience, self._silence / SIGNS_PER_TIMEOUT)
        if self._outbox.channel is None and now - self._tried > patience:
            self._connect()
        if run is None:
            idle = now - self._changed_at
            return TICK_SECONDS if idle < _AWAKE_SECONDS else None
        self._changed_at = now
        lease_left = run.lease_left()
        if lease_left is not None and lease_left <= 0:
            run.hand_back()
        # What rides may begin before it is told that what it needs has ended.
        self._outbox.send_unsent(run.progress)
        self._announce(run)
        self._end_overdue(run)
        self._arm(run)
        if self._silence and now >= self._sign_due:
            self._give_sign(run)
        unannounced = run.progress.running.keys() - run.progress.announced
        if run.progress.has_unsent() or unannounced or run.lease_left() is not None:
            return TICK_SECONDS
        return self._next_due(run)

    def _announce(self, run: UnitRun) -> None:
        now = time.time_ns()
        running = dict(run.progress.running)
        late = [
            position
            for position, started in running.items()
            if position not in run.progress.announced and now - started > TICK_SECONDS * 1e9
        ]
        run.progress.announced.update(late)
        for position in late:
            self._outbox.send(BEGAN, run.progress.unit.id, (position,), running[position])

    def _serve(self, channel: Channel) -> None:
        channel.flush()
        for message in channel.receive():
            run = self._run
            if message == (CLOSE,):
                self._close_objects()
                continue
            kind, unit, *arguments = message
            if kind == CANCEL:
                self._take_order(unit, *arguments)
            elif kind == ACKNOWLEDGE and run is not None and run.progress.unit.id == unit:
                run.progress.acknowledge(*arguments)
        if not channel.is_open:
            channel.close()
            self._outbox.channel, self._tried = None, time.monotonic()

    def _take_order(self, unit: int, positions: Sequence[int] | None, force: bool) -> None:  # noqa: FBT001 - as it travels
        """Cancel items of a unit: of the one that runs now, of another one if it begins here."""
        with self._ordering:
            while len(self._orders) >= ORDERS_KEPT:
                del self._orders[next(iter(self._orders))]
            self._orders.setdefault(unit, []).append((positions, force))
        run = self._run
        if run is not None and run.progress.unit.id == unit:
            self._carry_out(run)

    def _carry_out(self, run: UnitRun) -> None:
        with self._ordering:
            orders = self._orders.pop(run.progress.unit.id, ())
        for positions, force in orders:
            every = range(run.progress.unit.size)
            run.deadlines.cancel(every if positions is None else positions, force=force)
            run.cancel(positions)
            run.end_unbegun()
        if orders:
            self._outbox.send(HEARD, run.progress.unit.id)

    def _close_objects(self) -> None:
        if self._run is None:
            self._signals.send(self._close_on_main)
        else:
            # Whoever leaves while units run has given them up, and Ray ends them.
            self._outbox.send(CLOSED)

    def _close_on_main(self) -> None:
        """Close objects where they were made; some may not be touched by another thread."""
        objects.close()
        self._told = None
        # In a signal handler: the other thread may be sending.
        self._objects_closed = True
        os.write(self._wake, b"\0")

    def _end_overdue(self, run: UnitRun) -> None:
        # A unit that ends meanwhile waits here: nothing else may begin in a process that is ended.
        with self._arming:
            now = time.monotonic()
            overdue = [position for position, at in run.deadlines.due().items() if at <= now]
            if overdue and self._run is run:
                self._dead_man.extend(END_SECONDS)
                self._is_ending = True
                if end_items(run, overdue):
                    self._end_process(run)
                self._is_ending = False

    def _next_due(self, run: UnitRun) -> float | None:
        """Return when an item is overdue, or something is due to be sent, first (seconds)."""
        due = list(run.deadlines.due().values())
        if self._silence:
            due.append(self._sign_due)
        if self._outbox.channel is None:
            due.append(self._tried + _RECONNECT_SECONDS)
        if run.progress.collect is not None:
            due.append(time.monotonic() + COLLECT_SECONDS)
        return min(due) - time.monotonic() if due else None

    def _end_process(self, run: UnitRun) -> NoReturn:
        """End this process, which runs code that cannot be interrupted, and say why before."""
        channel = self._outbox.channel
        if channel is not None:
            channel.drain(CLOSE_SECONDS)
            self._outbox.send_unsent(run.progress)
            channel.drain(CLOSE_SECONDS)
        end_processes()
        is_told = channel is not None and channel.is_open and channel.is_clear
        if not is_told or run.progress.has_unsent():
            self._dead_man.fire()
        os._exit(1)

    def _connect(self) -> None:
        self._tried = time.monotonic()
        try:
            channel = Channel(self._endpoint)
        except (OSError, WireError) as error:
            _log.warning(
                "the driver at %s:%d does not answer: %s. Log records of this worker come when "
                "their task run has ended, not live",
                self._endpoint.host,
                self._endpoint.port,
                error,
            )
            return
        channel.send(HERE, *self._identity, self._traces)
        run = self._run
        self._outbox.connect(channel, None if run is None else run.progress)
        for unit, positions, force in channel.orders:
            self._take_order(unit, positions, force)
        if self._silence and run is not None:
            self._give_sign(run)
        # What came with the last of the introduction is not polled for.
        self._serve(channel)
