"""Time limits of flow functions.

While a flow waits, its deadline is a limit of the wait. While its own code runs, the deadline
interrupts that code: on the main thread by SIGALRM, elsewhere by an asynchronous exception, which
takes effect when the thread next runs Python code. Never inside raysched itself: then it is tried
again a moment later. An `async def` flow is cancelled at an `await`, see `flow_runs`.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Any

from raysched.define.interrupting import RETRY_SECONDS, is_users, raise_in, take_late_one


class DeadlinePassed(BaseException):
    """Ends a flow function whose time is over; no Exception, so that users' handlers let it go."""


class Deadline:
    """When a flow function has to end.

    Args:
        seconds: From now.
        around: The deadline of the flow around it, or None.
    """

    def __init__(self, seconds: float, around: "Deadline | None") -> None:
        self.at = time.monotonic() + seconds
        self.around = around
        self.interrupted = False

    def left(self) -> float:
        """Return the seconds to the earliest of this deadline and those around it."""
        mine = max(0.0, self.at - time.monotonic())
        return mine if self.around is None else min(mine, self.around.left())

    def passed(self) -> bool:
        """Whether this one, not only one around it, has passed."""
        return time.monotonic() >= self.at


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def current_deadline() -> Deadline | None:
    """Return the deadline of the running flow function, or of one around it."""
    return _current.get()


@contextmanager
def under(deadline: Deadline | None, user_code: CodeType, *, interrupt: bool) -> Iterator[None]:
    """Run the block under a deadline.

    Args:
        deadline: The deadline, or None.
        user_code: The code of the function of ours that calls users' flow functions.
        interrupt: Whether to interrupt the block; otherwise only `current_deadline` knows of it.

    Raises:
        DeadlinePassed: It has passed.
    """
    if deadline is None:
        yield
        return
    token = _current.set(deadline)
    try:
        with _interrupting(deadline, user_code) if interrupt else nullcontext():
            yield
        if deadline.interrupted:  # and the user's code has swallowed that
            raise DeadlinePassed
    finally:
        _current.reset(token)


def rearm() -> None:
    """Set the alarm again, after code ran that may have used the timer for itself."""
    deadline = _current.get()
    if deadline is not None and threading.current_thread() is threading.main_thread():
        _arm(deadline)


def _interrupting(deadline: Deadline, user_code: CodeType) -> Any:
    if threading.current_thread() is threading.main_thread():
        return _by_signal(deadline, user_code)
    return _by_exception(deadline, user_code)


@contextmanager
def _by_signal(deadline: Deadline, user_code: CodeType) -> Iterator[None]:
    def on_alarm(_number: int, frame: FrameType | None) -> None:
        if deadline.left() > 0:
            _arm(deadline)
        elif is_users(frame, user_code):
            deadline.interrupted = True
            raise DeadlinePassed

    previous = signal.signal(signal.SIGALRM, on_alarm)
    remaining, interval = signal.getitimer(signal.ITIMER_REAL)
    began = time.monotonic()
    _arm(deadline)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if remaining:
            spent = time.monotonic() - began
            signal.setitimer(signal.ITIMER_REAL, max(RETRY_SECONDS, remaining - spent), interval)


def _arm(deadline: Deadline) -> None:
    left = deadline.left()
    signal.setitimer(signal.ITIMER_REAL, max(left, RETRY_SECONDS), RETRY_SECONDS)


@contextmanager
def _by_exception(deadline: Deadline, user_code: CodeType) -> Iterator[None]:
    thread = threading.get_ident()
    lock = threading.Lock()
    over = threading.Event()

    def watch() -> None:
        pause = deadline.left()
        while not over.wait(pause):
            pause = max(deadline.left(), RETRY_SECONDS)
            with lock:
                frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, in CPython
                if not over.is_set() and not deadline.left() and is_users(frame, user_code):
                    deadline.interrupted = True
                    raise_in(thread, DeadlinePassed)
                    return

    threading.Thread(target=watch, name="raysched-deadline", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        with lock:
            pass
        take_late_one()
