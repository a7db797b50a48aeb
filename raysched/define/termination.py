"""SIGTERM, as a supervisor or `kill` sends it, cancels a flow as Ctrl-C does.

Python's own answer to it would be to end at once: no `finally`, and a run whose driver was lost.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from raysched.define.context import attempt_context

EXIT_CODE = 128 + signal.SIGTERM
"""By the shells' custom."""


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; whatever knows how to end by Ctrl-C ends by it, too."""


@contextmanager
def terminable(*, blocking: bool) -> Iterator[Callable[[BaseException], BaseException]]:
    """Have SIGTERM cancel the flow in the block, and then end the process.

    Where the program has a handler of its own, that one stays.

    Args:
        blocking: Whether the flow blocks this thread; otherwise the current asyncio task is
            cancelled.

    Yields:
        Returns the true reason for an exception that has ended the flow.

    Raises:
        SystemExit: It has come; with the exit code 143.
    """
    if not _is_free():
        yield lambda error: error
        return
    task = None if blocking else asyncio.current_task()
    came: list[Terminated] = []

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        came.append(Terminated())
        # Code that holds on to the event loop would let a cancelled task wait.
        if task is None or len(came) > 1 or asyncio.current_task(task.get_loop()) is not None:
            raise came[-1]
        task.get_loop().call_soon_threadsafe(task.cancel)

    def reason(error: BaseException) -> BaseException:
        return came[0] if came and isinstance(error, asyncio.CancelledError) else error

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield reason
    except Terminated:
        raise SystemExit(EXIT_CODE) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_free() -> bool:
    """Whether SIGTERM is nobody's here: Ray puts an immediate exit into every driver."""
    if threading.current_thread() is not threading.main_thread():
        return False
    handler: Any = signal.getsignal(signal.SIGTERM)
    is_rays = str(getattr(handler, "__module__", "")).partition(".")[0] == "ray"
    return handler is signal.SIG_DFL or (is_rays and attempt_context.get() is None)
