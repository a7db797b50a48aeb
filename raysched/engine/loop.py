"""Turns, one at a time: posted functions, timers, and waiting for what turns make visible.

A turn runs in a thread of the loop's own or, for a pumped backend, in whichever thread of the flow
waits. Other threads only post functions to be called in the next turn.
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

from raysched.engine.ports import Clock

NANOSECONDS = 1e9

PUMP_SECONDS = 0.005
"""How long a pumped backend works before its outcomes are committed (seconds)."""


class Loop:
    """Calls what was posted, turn by turn.

    Args:
        clock: The time of timers.
        settle: Called at the end of each turn.
        pump: None for a thread of the loop's own; otherwise what a waiting thread calls to get
            work done: it returns whether there was any.
    """

    def __init__(
        self, clock: Clock, settle: Callable[[], None], pump: Callable[[], bool] | None
    ) -> None:
        self._clock = clock
        self._settle = settle
        self._pump = pump
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._wake = threading.Event()
        self._turn = threading.RLock()
        self._visible = threading.Condition()
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._broken: BaseException | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None
        if pump is None:
            self._thread = threading.Thread(target=self._work, name="raysched-engine", daemon=True)
            self._thread.start()

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """Have `function(*args)` called in the next turn; from any thread."""
        self._inbox.append((function, args))
        self._wake.set()

    def at(self, when: int, function: Callable[..., None], *args: Any) -> None:
        """Have `function(*args)` called at a time (ns since the epoch); only within a turn."""
        heappush(self._timers, (when, next(self._order), function, args))

    def made_visible(self) -> None:
        """Wake those who wait; only within a turn."""
        with self._visible:
            self._visible.notify_all()
            sleepers, self._sleepers = self._sleepers, set()
        for loop, future in sleepers:
            # The user's event loop may have been closed over the future.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_wake_sleeper, future)

    def fail(self, error: BaseException) -> None:
        """Take no more turns: all who wait now or later get `error`."""
        self._broken = error
        self.made_visible()

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Block until `done()`; return whether it is. See `RunPort.wait`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._pump is None:
            return self._wait_visible(done, deadline)
        while not self._pumped_turn(done):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            if not self._pump_once():
                self._sleep(left)
        return True

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
            if self._pumped_turn(done) if self._pump else self._check(done):
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
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
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def turn(self) -> None:
        """Take one turn, now."""
        with self._turn:
            now = self._clock.now()
            while self._timers and self._timers[0][0] <= now:
                _, _, function, args = heappop(self._timers)
                self._inbox.append((function, args))
            while self._inbox:
                function, args = self._inbox.popleft()
                function(*args)
            self._settle()

    def _work(self) -> None:
        while not self._stopped and self._broken is None:
            self._wake.wait(self._pause(None))
            self._wake.clear()
            try:
                self.turn()
            except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever it is
                self.fail(error)

    def _pumped_turn(self, done: Callable[[], bool]) -> bool:
        with self._turn:
            if self._broken is None:
                try:
                    self.turn()
                except Exception as error:
                    self.fail(error)
                    raise
            return self._check(done)

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

    def _wait_visible(self, done: Callable[[], bool], deadline: float | None) -> bool:
        with self._visible:
            while not self._check(done):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._visible.wait(left)
        return True

    def _check(self, done: Callable[[], bool]) -> bool:
        if done():
            return True
        if self._broken is not None:
            raise self._broken
        return False

    def _sleep(self, limit: float | None) -> None:
        self._wake.wait(self._pause(limit))
        self._wake.clear()

    def _pause(self, limit: float | None) -> float | None:
        """Return how long nothing can happen (seconds), or None for ever."""
        if not self._timers:
            return limit
        due = max(0.0, (self._timers[0][0] - self._clock.now()) / NANOSECONDS)
        return due if limit is None else min(due, limit)


def _wake_sleeper(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
