"""One copy of each procedure for synchronous and asynchronous callers.

A procedure is written as `async def` and waits only through `until` and `call`. With
`blocking=True` these never suspend, so `finish` can run the procedure without an event loop; that
also works beside a running one, as in Jupyter.
"""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from raysched.define.deadline import DeadlinePassed, current_deadline, rearm
from raysched.define.ports import FlowEnding, FlowOutcome, RunPort
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
    """
    if not blocking:
        return await port.wait_async(done, seconds)
    deadline = current_deadline()
    if deadline is None:
        return port.wait(done, seconds)
    left = deadline.left()
    limit = left if seconds is None else min(left, seconds)
    try:
        if port.wait(done, limit):
            return True
    finally:
        rearm()
    if not deadline.left():
        deadline.interrupted = True
        raise DeadlinePassed
    return False


async def close(port: RunPort, ending: FlowEnding, *, blocking: bool) -> FlowOutcome:
    """End a flow function (see `RunPort.close`)."""
    if blocking:
        return port.close(ending)
    return await port.close_async(ending)


async def call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a user's function, which may be a coroutine function only for asynchronous callers."""
    result = fn(*args, **kwargs)
    return await result if inspect.iscoroutine(result) else result
