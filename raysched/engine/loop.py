"""Turns, one at a time: posted functions, timers, and waiting for what turns make visible.

Whoever waits takes the turns: the thread of the flow that waits for a result compiles, dispatches,
commits and sees that it is done, without a hop to another thread. While nobody waits, a thread of
the loop's own takes them. For a pumped backend there is no such thread, and the waiting thread also
runs the units.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from typing import Any

from raysched.engine.interrupts import Interrupts
from raysched.engine.ports import Clock
from raysched.errors import InternalError, RayschedError

PUMP_SECONDS = 0.005
"""How long a pumped backend works before its outcomes are committed (seconds)."""

NEVER = 1 << 63
"""Later than all times (ns)."""

GATHER_SECONDS = 0.002
"""How long a busy loop lets messages gather, so that they share a turn and a commit (seconds)."""


class Loop:
    """Calls what was posted, turn by turn.

    Args:
        clock: The time of timers.
        settle: Called at the end of each turn.
        busy: Whether so much is on its way that a turn should wait for more messages.
        pump: None for a thread of the loop's own; otherwise what a waiting thread calls to get
            work done: it returns whether there was any.
        attend: Called by a waiting thread before it sleeps, with the seconds that nothing else can
            happen in, and with 0 by one that goes on: see `Backend.attend`.
        broke: Given the error that has ended the loop.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a turn is made of
        self,
        clock: Clock,
        settle: Callable[[], None],
        busy: Callable[[], bool],
        pump: Callable[[], bool] | None,
        attend: Callable[[float | None], None],
        broke: Callable[[BaseException], None],
    ) -> None:
        self._clock = clock
        self._settle = settle
        self._busy = busy
        self._pump = pump
        self._attend = attend
        self._broke = broke
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._turn = threading.RLock()
        self._lead = threading.Lock()
        self._own_wake = threading.Event()
        self._own_until = NEVER
        self._leader_wake: threading.Event | None = None
        self._visible = threading.Condition()
        self._followers = 0
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._interrupts = Interrupts()
        self._broken: BaseException | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None
        if pump is None:
            self._thread = threading.Thread(target=self._work, name="raysched-engine", daemon=True)
            self._thread.start()

    @property
    def is_broken(self) -> bool:
        """Whether an error has ended the loop."""
        return self._broken is not None

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """Have `function(*args)` called in the next turn; from any thread."""
        self._inbox.append((function, args))
        # In this order: a leader that resigns looks at the inbox after it has taken its event away.
        self._wake()

    def defer(self, function: Callable[..., None], *args: Any) -> None:
        """Have `function(*args)` called in the next turn, which `wait` will take at once."""
        self._inbox.append((function, args))

    def at(self, when: int, function: Callable[..., None], *args: Any) -> None:
        """Have `function(*args)` called at a time (ns since the epoch); only within a turn."""
        heappush(self._timers, (when, next(self._order), function, args))

    def made_visible(self) -> None:
        """Wake those who wait; only within a turn."""
        if self._followers:
            with self._visible:
                self._visible.notify_all()
        self._wake_sleepers()

    def fail(self, error: BaseException) -> None:
        """Take no more turns: all who wait now or later get `error`."""
        self._broken = error
        self._broke(error)
        self.made_visible()

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Block until `done()`; return whether it is. See `RunPort.wait`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._interrupts.held_back_in_turns():
            while True:
                # A lead that is taken is given back, whenever Ctrl-C comes.
                with self._interrupts.held_back():
                    if self._lead.acquire(blocking=False):
                        try:
                            return self._wait_leading(done, deadline)
                        finally:
                            self._resign()
                self._wake()
                if self._wait_following(done, deadline):
                    return True
                if _left(deadline) == 0:
                    return False

    async def wait_async(
        self,
        done: Callable[[], bool],
        timeout: float | None,  # noqa: ASYNC109 - False instead of raising
    ) -> bool:
        """Do as `wait`, without blocking the running event loop."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            with self._visible:
                self._sleepers.add((asyncio.get_running_loop(), future))
            if self._pump:
                with self._interrupts.held_back_in_turns():
                    self.turn()
            if self._check(done):
                return True
            left = _left(deadline)
            if left == 0:
                return False
            if self._pump is None:
                await asyncio.wait([future], timeout=left)
            elif self._pump_once():
                await asyncio.sleep(0)
            else:
                await asyncio.wait([future], timeout=self._pause(left))

    def stop(self) -> None:
        """Take no more turns and end the thread. Idempotent."""
        self._stopped = True
        self._own_wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def turn(self) -> None:
        """Take one turn, now. An error in it ends the loop, and is what all who wait get."""
        with self._turn, self._interrupts.held_back():
            if self._broken is not None or self._stopped:
                return
            try:
                self._take_turn()
            except BaseException as error:  # whoever waits must be told, whatever it is
                self.fail(_told(error))
                # A second Ctrl-C, which has left the tracker torn.
                if not isinstance(error, Exception):
                    raise

    def _take_turn(self) -> None:
        now = self._clock.now()
        while self._timers and self._timers[0][0] <= now:
            _, _, function, args = heappop(self._timers)
            self._inbox.append((function, args))
        while self._inbox:
            function, args = self._inbox.popleft()
            function(*args)
        self._settle()

    def _work(self) -> None:
        limit: float | None = None
        while not self._stopped and self._broken is None:
            self._sleep(self._own_wake, limit)
            # From here on a leader that resigns wakes this thread for whatever it leaves behind.
            self._own_until = NEVER
            if not self._lead.acquire(blocking=False):
                limit = None
                continue
            try:
                if self._is_due():
                    self.turn()
                    self._attend(0)
                limit = self._pause(None)
                self._own_until = self._timers[0][0] if self._timers else NEVER
            finally:
                self._lead.release()
            if self._followers:
                with self._visible:
                    self._visible.notify_all()

    def _is_due(self) -> bool:
        now = self._clock.now()
        return bool(self._inbox) or bool(self._timers and self._timers[0][0] <= now)

    def _wait_leading(self, done: Callable[[], bool], deadline: float | None) -> bool:
        wake = self._leader_wake = threading.Event()
        while True:
            self.turn()
            if self._check(done):
                return True
            left = _left(deadline)
            if left == 0:
                return False
            if self._pump is not None:
                with self._interrupts.let_through():
                    if not self._pump_once():
                        self._sleep(wake, self._pause(left))
                continue
            # Whoever else waits here must not be kept from the lead's events meanwhile.
            self._attend(0 if self._followers or self._sleepers else self._pause(left))
            with self._interrupts.let_through():
                self._sleep(wake, 0 if self._inbox else self._pause(left))

    def _wake(self) -> None:
        (self._leader_wake or self._own_wake).set()
        if self._pump is not None:
            # There is no thread that would take the turn: whoever sleeps has to.
            self._wake_sleepers()

    def _wake_sleepers(self) -> None:
        if not self._sleepers:
            return
        with self._visible:
            sleepers, self._sleepers = self._sleepers, set()
        for loop, future in sleepers:
            # The user's event loop may have been closed over the future.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_wake_sleeper, future)

    def _resign(self) -> None:
        self._attend(0)
        self._leader_wake = None
        self._lead.release()
        # What came too late for the leader, and its timers, are now for the loop's own thread.
        if self._inbox or (self._timers and self._timers[0][0] < self._own_until):
            self._own_wake.set()
        if self._followers:
            with self._visible:
                self._visible.notify_all()

    def _wait_following(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until `done()`, the timeout, or the lead is free."""
        with self._visible:
            self._followers += 1
            try:
                while self._is_led():
                    if self._check(done):
                        return True
                    left = _left(deadline)
                    if left == 0:
                        return False
                    self._visible.wait(left)
            finally:
                self._followers -= 1
        return self._check(done)

    def _is_led(self) -> bool:
        # Not `locked()`: it says no while the thread that has the lock still waits for the GIL.
        if self._lead.acquire(blocking=False):
            self._lead.release()
            # The loop's own thread may have found it taken just now, and gone to sleep again.
            self._own_wake.set()
            return False
        return True

    def _pump_once(self) -> bool:
        assert self._pump is not None  # noqa: S101 - the callers have looked
        with self._turn:
            worked = bool(self._inbox)
            until = time.monotonic() + PUMP_SECONDS
            # Small units share a turn, and so a commit.
            while self._pump():
                worked = True
                if time.monotonic() > until:
                    break
        return worked

    def _check(self, done: Callable[[], bool]) -> bool:
        if done():
            return True
        if self._broken is not None:
            raise self._broken
        return False

    def _sleep(self, wake: threading.Event, limit: float | None) -> None:
        if wake.wait(limit) and self._busy():
            time.sleep(GATHER_SECONDS)
        wake.clear()

    def _pause(self, limit: float | None) -> float | None:
        """Return how long nothing can happen (seconds), or None for ever."""
        if not self._timers:
            return limit
        due = self._clock.seconds_until(self._timers[0][0])
        return due if limit is None else min(due, limit)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _wake_sleeper(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _told(error: BaseException) -> BaseException:
    """Return what those are told who wait while a turn fails."""
    if isinstance(error, RayschedError) or not isinstance(error, Exception):
        return error
    broken = InternalError(
        f"raysched itself broke, by {type(error).__name__}: {error}. What was committed is kept. "
        "Please report it with the traceback, which RAYSCHED_DEBUG=true shows"
    )
    broken.__cause__ = error
    return broken
