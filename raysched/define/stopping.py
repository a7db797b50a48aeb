"""Cancelling a flow run of this process from outside of its flow function.

While the function waits, it is told there. While its own code runs, that is interrupted: on the
main thread by SIGURG, which nobody else uses and which breaks system calls off, elsewhere by an
asynchronous exception, which takes effect when the thread next runs Python code. Never inside
raysched itself: then it is tried again a moment later. An `async def` flow is cancelled at an
`await`. A flow that nobody cancels pays a few microseconds for all that.
"""

import _signal  # type: ignore[import-not-found] # CPython's own, without stubs
import signal
import sys
import threading
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


class FlowStopped(BaseException):
    """Ends a flow function that was cancelled; no Exception, so that users' handlers let it go."""


class Stop:
    """Whether somebody wants a flow run to end.

    It is delivered once: what the function does in its `finally` is not interrupted again.

    Args:
        run_id: The flow run.
        wake: Given who it is, makes a wait of the flow function look again.
        blocking: Whether the flow function blocks its thread.
        around: Of the flow run around it, or None.

    Attributes:
        by: Who wants it, for people; None as long as nobody does.
        is_own: Whether that concerns this flow run itself, not only one around it.
        delivered: Whether the flow function was told.
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
        self.user_code: CodeType | None = None
        self.thread = threading.get_ident()
        self.task: asyncio.Task[Any] | None = None
        self.cancels = 0

    def is_due(self) -> bool:
        """Whether the flow function is running and has to be told."""
        return self.by is not None and not self.delivered and self.user_code is not None

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


@contextmanager
def stoppable(run_id: str, wake: Callable[[str], None], *, blocking: bool) -> Iterator[Stop]:
    """Let `stop_flow` end the flow run in the block.

    Args:
        run_id: The flow run.
        wake: Given who it is, makes a wait of the flow function look again; from any thread.
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


def stop_flow(run_id: str, by: str) -> None:
    """End the flow function of a run of this process, and those of the subflows in it.

    It gets a `FlowStopped`, its `finally` blocks run, and its run ends with `FlowRunCancelled`.
    From any thread; returns at once. A run that is not open, or whose function has ended, is let
    be. Asking again interrupts also a `finally` block.

    Args:
        run_id: The flow run.
        by: Who asks for it, for people.
    """
    with _lock:
        stops = [stop for stop in tuple(_open.values()) if _is_within(stop, run_id)]
        for stop in stops:
            stop.by, stop.delivered = by, False
            stop.is_own = stop.is_own or stop.run_id == run_id
    for stop in stops:
        stop.wake(by)
        if stop.task is not None and stop.is_own:
            stop.task.get_loop().call_soon_threadsafe(stop.cancel_task)
    if stops:
        threading.Thread(
            target=_interrupt, args=(stops,), name="raysched-stop", daemon=True
        ).start()


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


def _interrupt(stops: list[Stop]) -> None:
    """Interrupt what is users' code of these flow functions, until all were told."""
    main = threading.main_thread().ident
    pause = threading.Event()
    # One whose function is between two attempts is told when the next one begins.
    while stops := [stop for stop in stops if not stop.delivered and stop.run_id in _open]:
        for stop in stops:
            with _lock:
                frame = sys._current_frames().get(stop.thread)  # noqa: SLF001 - documented
                code = stop.user_code
                if code is None or not stop.is_due() or not is_users(frame, code):
                    continue
                if stop.thread == main:
                    signal.pthread_kill(main, signal.SIGURG)
                elif stop.blocking and stop is _innermost(stop.thread):
                    stop.delivered = True
                    raise_in(stop.thread, FlowStopped)
        pause.wait(RETRY_SECONDS)


def _innermost(thread: int) -> Stop | None:
    inside = [each for each in tuple(_open.values()) if each.thread == thread and each.user_code]
    return inside[-1] if inside else None


def _on_signal(_number: int, frame: FrameType | None) -> None:
    stop = _current.get()
    if stop is not None and stop.is_due() and stop.user_code and is_users(frame, stop.user_code):
        stop.deliver()
