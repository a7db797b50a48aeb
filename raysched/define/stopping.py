"""Cancelling a flow run of this process from outside of its flow function.

While the function waits, it is told there. While its own code runs, that is interrupted: on the
main thread by SIGURG, which nobody else uses and which breaks system calls off, elsewhere by an
asynchronous exception, which takes effect when the thread next runs Python code. Never inside
raysched itself: then it is tried again a moment later. An `async def` flow is cancelled at an
`await`. A flow that nobody cancels pays a few microseconds for all that.

What a function does in its `finally`, or in the `except` that has caught it, is not interrupted
again, and may call tasks. One that goes on behind that has swallowed it: from then on whatever it
calls of raysched raises at once, and after `PATIENCE_SECONDS` its handlers are interrupted, too.
"""

import _signal  # type: ignore[import-not-found] # CPython's own, without stubs
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from raysched.define.interrupting import RETRY_SECONDS, is_users, raise_in, take_late_one
from raysched.errors import FlowRunCancelled

if TYPE_CHECKING:
    import asyncio

_SIGNAL = int(signal.SIGURG)

PATIENCE_SECONDS = 10.0
"""How long a function that has swallowed its end is interrupted only outside of its handlers."""

INSIST_SECONDS = 1.0
"""How long its handlers have between two interruptions after that (seconds)."""


class FlowStopped(BaseException):
    """Ends a flow function that was cancelled; no Exception, so that users' handlers let it go."""


class Stop:
    """Whether somebody wants a flow run to end.

    It is delivered once, unless the function swallows it: what it does in its `finally` is not
    interrupted again.

    Args:
        run_id: The flow run.
        wake: Given what to say, makes a wait of the flow function look again.
        blocking: Whether the flow function blocks its thread.
        around: Of the flow run around it, or None.

    Attributes:
        by: Who wants it, for people; None as long as nobody does.
        is_own: Whether that concerns this flow run itself, not only one around it.
        delivered: Whether the flow function was told.
        ruthless_at: When its handlers are interrupted, too (monotonic seconds); None as long as it
            has not swallowed that it was told.
    """

    def __init__(
        self, run_id: str, wake: Callable[[str], None], around: "Stop | None", *, blocking: bool
    ) -> None:
        self.run_id = run_id
        self.wake = wake
        self.blocking = blocking
        self.around = around
        self.by: str | None = None
        self.is_own = False
        self.delivered = False
        self.ruthless_at: float | None = None
        self.user_code: CodeType | None = None
        self.thread = threading.get_ident()
        self.task: asyncio.Task[Any] | None = None
        self.cancels = 0

    def is_due(self) -> bool:
        """Whether the flow function is running and has to be told."""
        return self.by is not None and not self.delivered and self.user_code is not None

    def heed(self) -> None:
        """Tell a flow function again that goes on as if it had not been told; in its thread.

        Raises:
            FlowStopped: It does.
        """
        if not (self.delivered and self.blocking and self.user_code):
            return
        if _is_handled() and not self.is_ruthless():
            return
        if self.ruthless_at is None:
            self.ruthless_at = time.monotonic() + PATIENCE_SECONDS
            self.wake(
                "the flow function goes on although it was cancelled: what it calls now raises, "
                f"and in {PATIENCE_SECONDS:g} s its exception handlers are interrupted, too"
            )
            _start_interrupting([self])
        raise FlowStopped

    def is_ruthless(self) -> bool:
        """Whether its handlers are interrupted, too."""
        return self.ruthless_at is not None and time.monotonic() >= self.ruthless_at

    def deliver(self) -> None:
        """Tell the flow function.

        Raises:
            FlowStopped: Always.
        """
        self.delivered = True
        raise FlowStopped

    def has_ended(self, error: BaseException) -> bool:
        """Whether this is why the flow function ended with `error`."""
        if not isinstance(error, FlowStopped) and not (
            self.cancels and type(error).__name__ == "CancelledError"
        ):
            return False
        while self.task is not None and self.cancels:
            self.cancels -= 1
            self.task.uncancel()
        return True

    def cancel_task(self) -> None:
        """Cancel the asyncio task of the flow; in the thread of its event loop."""
        if self.task is not None and self.is_due():
            self.delivered = True
            self.cancels += 1
            self.task.cancel(f"cancelled by {self.by}")

    def error(self) -> FlowRunCancelled:
        """Return the exception that the flow run ends with."""
        return FlowRunCancelled(f"cancelled by {self.by}", by=self.by or "")

    def pass_on(self) -> None:
        """Go on in the flow around, if that is what has to end.

        Raises:
            FlowStopped: It has.
        """
        if self.by is not None and not self.is_own and self.around is not None:
            self.around.deliver()

    @contextmanager
    def heeded(self, user_code: CodeType) -> Iterator[None]:
        """Run the flow function in the block.

        Args:
            user_code: The code of the function of ours that calls users' flow functions.

        Raises:
            FlowStopped: Somebody wants it to end.
        """
        if self.by is not None:
            self.deliver()
        self.user_code = user_code
        try:
            yield
        finally:
            self.user_code = None
            if self.delivered and self.blocking:
                with _lock:
                    pass
                take_late_one()
        if self.by is not None:  # and the user's code has swallowed that, or was quicker
            self.deliver()


_current: ContextVar[Stop | None] = ContextVar("stop", default=None)
_open: dict[str, Stop] = {}
_lock = threading.Lock()


def current_stop() -> Stop | None:
    """Return what may end the flow function that this code runs in."""
    return _current.get()


def heed_stop() -> None:
    """End the flow function that this code runs in, if it has swallowed that it has to end.

    Raises:
        FlowStopped: It has.
    """
    stop = _current.get()
    if stop is not None and stop.delivered:
        stop.heed()


@contextmanager
def stoppable(run_id: str, wake: Callable[[str], None], *, blocking: bool) -> Iterator[Stop]:
    """Let `stop_flow` end the flow run in the block.

    Args:
        run_id: The flow run.
        wake: Given what to say, makes a wait of the flow function look again; from any thread.
        blocking: Whether the flow function blocks this thread; otherwise the current asyncio task
            is cancelled.
    """
    stop = Stop(run_id, wake, _current.get(), blocking=blocking)
    if not blocking:
        import asyncio  # an asynchronous flow has imported it

        stop.task = asyncio.current_task()
    token = _current.set(stop)
    with _lock:
        if stop.around is not None and not stop.around.delivered:
            # One that begins while the flow around it is about to end; not in its `finally`.
            stop.by = stop.around.by
        _open[run_id] = stop
    is_main = threading.current_thread() is threading.main_thread()
    # Without signal's own search for enum members, which takes ten times as long.
    before = _signal.getsignal(_SIGNAL) if is_main else None
    # One that is not Python's, which is None here too, could not be put back.
    is_ours = before is not None and before is not _on_signal
    if is_ours:
        _signal.signal(_SIGNAL, _on_signal)
    try:
        yield stop
    finally:
        del _open[run_id]
        _current.reset(token)
        if is_ours:
            _signal.signal(_SIGNAL, before)


def stop_flow(run_id: str, by: str, *, force: bool = False) -> None:
    """End the flow function of a run of this process, and those of the subflows in it.

    It gets a `FlowStopped`, its `finally` blocks run, and its run ends with `FlowRunCancelled`.
    From any thread; returns at once. A run that is not open, or whose function has ended, is let
    be. Asking again interrupts also a `finally` block.

    Args:
        run_id: The flow run.
        by: Who asks for it, for people.
        force: Whether to go on interrupting, handlers and `finally` blocks too, until it ends.
    """
    with _lock:
        stops = [stop for stop in tuple(_open.values()) if _is_within(stop, run_id)]
        for stop in stops:
            stop.by, stop.delivered = by, False
            stop.is_own = stop.is_own or stop.run_id == run_id
            if force:
                stop.ruthless_at = time.monotonic()
    for stop in stops:
        stop.wake(f"cancelled by {by}")
        if stop.task is not None and stop.is_own:
            stop.task.get_loop().call_soon_threadsafe(stop.cancel_task)
    if stops:
        _start_interrupting(stops)


def stopped(run_id: str) -> str | None:
    """Return who wants an open flow run to end, for people; None if nobody does."""
    stop = _open.get(run_id)
    return None if stop is None else stop.by


def was_told(run_id: str) -> bool:
    """Whether a flow run that somebody wants to end has ended, or its function was told."""
    stop = _open.get(run_id)
    return stop is None or stop.delivered


def _is_within(stop: Stop | None, run_id: str) -> bool:
    while stop is not None:
        if stop.run_id == run_id:
            return True
        stop = stop.around
    return False


def _start_interrupting(stops: list[Stop]) -> None:
    threading.Thread(target=_interrupt, args=(stops,), name="raysched-stop", daemon=True).start()


def _interrupt(stops: list[Stop]) -> None:
    """Interrupt what is users' code of these flow functions, until all were told, and heed it."""
    pause = threading.Event()
    # One whose function is between two attempts is told when the next one begins.
    while stops := [stop for stop in stops if not _has_heeded(stop) and stop.run_id in _open]:
        for stop in stops:
            with _lock:
                frame = sys._current_frames().get(stop.thread)  # noqa: SLF001 - documented
                if stop.user_code is not None and is_users(frame, stop.user_code):
                    _interrupt_one(stop)
        insists = all(stop.delivered and stop.is_ruthless() for stop in stops)
        pause.wait(INSIST_SECONDS if insists else RETRY_SECONDS)


def _has_heeded(stop: Stop) -> bool:
    return stop.delivered and (stop.ruthless_at is None or not stop.blocking)


def _interrupt_one(stop: Stop) -> None:
    main = threading.main_thread().ident
    if stop.thread == main:
        signal.pthread_kill(main, signal.SIGURG)
    # Only a signal's handler can see whether it would interrupt a handler of an exception.
    elif (
        stop.blocking and stop is _innermost(stop.thread) and (stop.is_due() or stop.is_ruthless())
    ):
        stop.delivered = True
        raise_in(stop.thread, FlowStopped)


def _innermost(thread: int) -> Stop | None:
    inside = [each for each in tuple(_open.values()) if each.thread == thread and each.user_code]
    return inside[-1] if inside else None


def _on_signal(_number: int, frame: FrameType | None) -> None:
    stop = _current.get()
    if stop is None or not stop.user_code or not is_users(frame, stop.user_code):
        return
    swallowed = stop.delivered and stop.ruthless_at is not None and stop.blocking
    if stop.is_due() or (swallowed and (stop.is_ruthless() or not _is_handled())):
        stop.deliver()


def _is_handled() -> bool:
    """Whether this thread handles a `FlowStopped`, or what was raised because of one."""
    error, seen = sys.exception(), set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, FlowStopped):
            return True
        seen.add(id(error))
        error = error.__context__
    return False
