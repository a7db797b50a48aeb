"""Ending user code that runs too long or is not wanted any more, from the outside.

On the main thread by signals, which also interrupt system calls; elsewhere by an asynchronous
exception, which takes effect when the thread next runs Python code. Either way one exception is
raised inside the user's function, once, and never inside the code around it.
"""

import _signal  # type: ignore[import-not-found] # CPython's own, without stubs
import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_SLACK_SECONDS = 0.001
"""The timer and the clock that it is compared with may differ by a rounding."""


_AGAIN_SECONDS = 0.05
"""Between repeats of a signal. One that comes just before a system call does not interrupt it."""


_INSISTED = 100
"""Repeats at most: user code may have set a handler of its own."""


class Interrupted(BaseException):
    """Raised inside user code to end it; no Exception, so that `except Exception` lets it pass."""


class DeadlinePassed(Interrupted):
    """The attempt's `timeout_seconds` passed."""


class CancelRequested(Interrupted):
    """Somebody cancelled the task run."""


class Interruption:
    """The means to interrupt one run of user code. `interrupt` is for other threads."""

    def __init__(self) -> None:
        self.reason: type[Interrupted] | None = None
        self._armed = False
        self._raised = False
        self._shields = 0

    def run(self, call: Callable[[], T], timeout: float | None) -> T:
        """Return `call()`.

        Args:
            call: The user's code.
            timeout: Seconds, or None.

        Raises:
            Interrupted: It was interrupted, also if the user's code swallowed that.
        """
        raise NotImplementedError

    def interrupt(self, reason: type[Interrupted]) -> None:
        """Raise `reason` inside the user's code, at once or when it begins."""
        raise NotImplementedError

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """Let nothing be raised inside the block, but at its end: for our code under the user's."""
        self._enter_shield()
        try:
            yield
        finally:
            self._shields -= 1
            if self.reason is not None and self._armed and not (self._shields or self._raised):
                self._raised = True
                raise self.reason

    def _enter_shield(self) -> None:
        self._shields += 1

    def _raise_late(self) -> None:
        if self.reason is not None:
            raise self.reason


class ThreadInterruption(Interruption):
    """For user code on any thread: an asynchronous exception, so never during a system call."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()

    def run(self, call: Callable[[], T], timeout: float | None) -> T:
        """See `Interruption.run`."""
        timer = threading.Timer(timeout, self.interrupt, (DeadlinePassed,)) if timeout else None
        self._thread = threading.get_ident()
        try:
            with self._lock:
                self._armed = True
                self._raise_late()
            if timer:
                timer.daemon = True
                timer.start()
            value = call()
        finally:
            self._disarm()
            if timer:
                timer.cancel()
        self._raise_late()
        return value

    def interrupt(self, reason: type[Interrupted]) -> None:
        """See `Interruption.interrupt`."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
            if self._armed and not self._shields:
                self._raised = True
                _raise_in(self._thread, reason)

    def _enter_shield(self) -> None:
        # The lock: `interrupt` may just have seen no shield, and is about to raise.
        with self._lock:
            self._shields += 1

    def _disarm(self) -> None:
        while self._armed:
            with contextlib.suppress(Interrupted):
                with self._lock:
                    self._armed = False
                # One that was sent at the last moment is raised at a jump back: here, not in what
                # follows. Taking it back instead would leave CPython 3.11 looking for it for ever,
                # under a tracer in an endless loop (its flag of pending exceptions stays set).
                for _ in range(10):
                    pass


class Signals:
    """Our handlers of SIGALRM, SIGINT and SIGTERM on the main thread.

    Args:
        dedicated: Whether this process is there for units only: then SIGINT is how Ray cancels the
            one that runs, and SIGTERM is Ray's. Otherwise they are a person's, and go to the
            handlers that were there before, but never while our own code runs.
    """

    def __init__(self, *, dedicated: bool) -> None:
        self.current: SignalInterruption | None = None
        self.cancel_unit: Callable[[], None] | None = None
        """Cancels the unit that runs, if one does."""
        self.passed_on = False
        """Whether a signal went to the handler that was there before, during user code."""
        self._dedicated = dedicated
        self._errand: Callable[[], None] | None = None
        self._previous_alarm: Any = None
        self._previous_interrupt: Any = None
        self._previous_termination: Any = None
        self._deferred = 0
        self._installed = False
        self._woken = False
        self._lock = threading.Lock()
        self._thread = threading.get_ident()

    def install(self) -> None:
        """Take the place of the handlers that are there."""
        self._previous_alarm = signal.signal(signal.SIGALRM, self.on_alarm)
        self._previous_interrupt = signal.signal(signal.SIGINT, self._on_interrupt)
        if not self._dedicated:
            self._previous_termination = signal.signal(signal.SIGTERM, self._on_interrupt)
            if not callable(self._previous_termination):
                # Nobody here handles it: it ends the process at once.
                signal.signal(signal.SIGTERM, self._previous_termination)
        self._installed = True

    def uninstall(self) -> None:
        """Restore the handlers that were there before; what was held back goes to them."""
        with self._lock:
            self._installed = False
        if not self._dedicated:
            signal.signal(signal.SIGTERM, self._previous_termination)
        signal.signal(signal.SIGINT, self._previous_interrupt)
        signal.signal(signal.SIGALRM, self._previous_alarm)
        deferred, self._deferred = self._deferred, 0
        if deferred:
            _pass_on(self._before(deferred), deferred, None)

    def wake(self) -> None:
        """Have the main thread run `on_alarm`, even if it is in a system call."""
        # Without the lock the signal could arrive after the handler is gone, which is fatal.
        with self._lock:
            if self._installed:
                self._woken = True
                signal.pthread_kill(self._thread, signal.SIGALRM)

    def report_to(self, descriptor: int) -> None:
        """Have each signal written to a descriptor, as it comes, for `heard`; on the main thread.

        Ray cancels by `_thread.interrupt_main`, which interrupts no system call.
        """
        os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)

    def heard(self, numbers: bytes) -> None:
        """Take what came through the descriptor; on another thread."""
        if signal.SIGINT in numbers:
            threading.Thread(target=self._insist, name="raysched insist", daemon=True).start()

    def _insist(self) -> None:
        for _ in range(_INSISTED):
            self.wake()
            time.sleep(_AGAIN_SECONDS)
            # The handler of SIGINT, which came before, has run then, too.
            if not self._woken:
                return

    def send(self, errand: Callable[[], None]) -> None:
        """Have the main thread call `errand` soon, unless a unit runs there then."""
        self._errand = errand
        self.wake()

    def on_alarm(self, number: int, frame: FrameType | None) -> None:
        """Raise in the current run of user code what is due."""
        woken, self._woken = self._woken, False
        errand, self._errand = self._errand, None
        if errand is not None and self.cancel_unit is None:
            errand()
        if self.current is not None:
            self.current.deliver()
        # It may be meant for the run of user code around this one, a task that calls a task; or
        # for somebody whose timer ran before.
        around = isinstance(getattr(self._previous_alarm, "__self__", None), Signals)
        foreign = not woken and (self.current is None or self.current.is_outer_due)
        if around or foreign:
            _pass_on(self._previous_alarm, number, frame)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._dedicated and self.cancel_unit is not None:
            self.cancel_unit()
        elif self._dedicated or (self.current is not None and self.current.is_open):
            self.passed_on = True
            _pass_on(self._before(number), number, frame)
        else:
            self._deferred = number

    def _before(self, number: int) -> Any:
        return self._previous_interrupt if number == signal.SIGINT else self._previous_termination


class SignalInterruption(Interruption):
    """For user code on the main thread, inside `Signals.installed`."""

    def __init__(self, signals: Signals) -> None:
        super().__init__()
        self._signals = signals
        self._requested: type[Interrupted] | None = None
        self._deadline: float | None = None
        self._outer_deadline: float | None = None
        self._outer_again = 0.0

    @property
    def is_outer_due(self) -> bool:
        """Whether the time is over that the timer had left before this run."""
        return self._outer_deadline is not None and time.monotonic() >= self._outer_deadline

    @property
    def is_open(self) -> bool:
        """Whether something may be raised now."""
        return self._armed and not self._shields

    def run(self, call: Callable[[], T], timeout: float | None) -> T:
        """See `Interruption.run`."""
        # The user's code of an earlier run may have changed the handler.
        # Without signal.getsignal's search for an enum member, which takes 4 us.
        if _signal.getsignal(signal.SIGALRM) != self._signals.on_alarm:
            signal.signal(signal.SIGALRM, self._signals.on_alarm)
        self._signals.current = self
        (outer, self._outer_again), began = signal.getitimer(signal.ITIMER_REAL), time.monotonic()
        self._outer_deadline = began + outer - _SLACK_SECONDS if outer else None
        try:
            try:
                self._armed = True
                self.deliver()
                if timeout:
                    self._deadline = began + timeout
                    if not outer or timeout < outer:
                        signal.setitimer(signal.ITIMER_REAL, timeout, _AGAIN_SECONDS)
                value = call()
            finally:
                self._armed = False
        finally:
            self._signals.current = None
            self._give_timer_back()
        self._raise_late()
        return value

    def interrupt(self, reason: type[Interrupted]) -> None:
        """See `Interruption.interrupt`."""
        self._requested = reason
        if self._signals.current is self:
            if threading.current_thread() is threading.main_thread():
                self.deliver()
            else:
                threading.Thread(target=self._insist, name="raysched insist", daemon=True).start()

    def deliver(self) -> None:
        """Raise what is due, at most once."""
        if self.reason is not None:
            return
        if self._requested is not None:
            self.reason = self._requested
        elif self._deadline is not None and time.monotonic() >= self._deadline - _SLACK_SECONDS:
            self.reason = DeadlinePassed
        if self.reason is None:
            return
        self._give_timer_back()
        if self.is_open:
            self._raised = True
            raise self.reason

    def _give_timer_back(self) -> None:
        """Go on with the timer of the run around this one.

        Without one, this also ends an alarm that the user's code has set and forgotten.
        """
        left = 0.0
        if self._outer_deadline is not None:
            left = max(self._outer_deadline + _SLACK_SECONDS - time.monotonic(), _SLACK_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, left, self._outer_again)

    def _insist(self) -> None:
        while self._signals.current is self and self.reason is None:
            self._signals.wake()
            time.sleep(_AGAIN_SECONDS)


def _pass_on(handler: Any, number: int, frame: FrameType | None) -> None:
    # It is SIG_DFL, SIG_IGN or None where nobody has asked for the signal.
    if callable(handler):
        handler(number, frame)


def _raise_in(thread: int, reason: type[Interrupted]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(reason))
