"""One copy of each procedure for synchronous and asynchronous callers.

A procedure is written as `async def` and waits only through `until` and `call`. With
`blocking=True` these never suspend, so `finish` can run the procedure without an event loop; that
also works beside a running one, as in Jupyter.
"""

import contextvars
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from raysched.define.deadline import DeadlinePassed, current_deadline, rearm
from raysched.define.ports import FlowEnding, FlowOutcome, RunPort
from raysched.define.stopping import current_stop, heed_stop
from raysched.errors import InternalError

T = TypeVar("T")


def finish(procedure: Coroutine[Any, Any, T]) -> T:
    """Run a procedure that does not suspend; return its result."""
    try:
        procedure.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    procedure.close()
    raise InternalError("a blocking procedure has suspended")


async def until(
    port: RunPort, done: Callable[[], bool], seconds: float | None = None, *, blocking: bool
) -> bool:
    """Wait until `done()`, at most so many seconds; return whether it is (see `RunPort.wait`).

    Raises:
        DeadlinePassed: The time of the flow function is over.
        FlowStopped: The flow run was cancelled.
    """
    if not blocking:
        return await port.wait_async(done, seconds)
    heed_stop()
    stop, deadline = current_stop(), current_deadline()
    over = done if stop is None else (lambda: stop.is_due() or done())
    left = None if deadline is None else deadline.left()
    try:
        ended = port.wait(over, _lower(left, seconds))
    finally:
        if deadline is not None:
            rearm()
    if stop is not None and stop.is_due():
        stop.deliver()
    if ended:
        return True
    if deadline is not None and not deadline.left():
        deadline.interrupted = True
        raise DeadlinePassed
    return False


def _lower(some: float | None, other: float | None) -> float | None:
    return other if some is None else some if other is None else min(some, other)


async def close(port: RunPort, ending: FlowEnding, *, blocking: bool) -> FlowOutcome:
    """End a flow function (see `RunPort.close`)."""
    if blocking:
        return port.close(ending)
    return await port.close_async(ending)


async def call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a user's function, which may be a coroutine function only for asynchronous callers."""
    result = fn(*args, **kwargs)
    return await result if inspect.iscoroutine(result) else result


async def apart(awaitable: Awaitable[T]) -> T:
    """Run something asynchronous for a blocking caller: in an event loop of another thread."""
    import asyncio  # only asynchronous code needs it, and it takes 20 ms
    from concurrent.futures import ThreadPoolExecutor

    async def run() -> T:
        return await awaitable

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, asyncio.run, run()).result()
