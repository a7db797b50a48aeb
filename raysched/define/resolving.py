"""Putting values in the places of futures: in parameters of subflows and in what flows return."""

from collections.abc import Iterable
from typing import Any

from raysched.define.annotations import Annotation, allow_failure, quote
from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.define.skipping import when
from raysched.define.states import State
from raysched.define.visit import visit
from raysched.errors import ParameterError


async def resolved(value: Any, *, blocking: bool, raising: bool = True) -> Any:
    """Return `value` with values in the places of the futures in it, whatever their nesting.

    Args:
        value: The value.
        blocking: Whether nothing else is to run in this thread meanwhile.
        raising: Whether a task run that failed raises; otherwise its exception is its value.

    Raises:
        Exception: That of a task run that failed, or a `TaskRunError`.
    """
    found: dict[int, Any] = {}

    def collect(leaf: Any) -> Any:
        if isinstance(leaf, TaskFuture | TaskFutureList | Annotation):
            found[id(leaf)] = leaf
        return leaf

    visit(value, collect)
    if not found:
        return value
    values = {
        key: await _value(leaf, blocking=blocking, raising=raising) for key, leaf in found.items()
    }
    return visit(value, lambda leaf: values.get(id(leaf), leaf) if id(leaf) in found else leaf)


async def awaited(what: str, wait_for: Iterable[Any] | None, *, blocking: bool) -> None:
    """Wait for the futures of a flow's `wait_for`.

    Raises:
        ParameterError: Something in it is no future.
        Exception: That of a task run that failed, or a `TaskRunError`.
    """
    for future in wait_for or ():
        if isinstance(future, list | tuple | set | frozenset):
            await awaited(what, future, blocking=blocking)
        elif isinstance(future, State):
            future.result()
        elif isinstance(future, TaskFuture | TaskFutureList | allow_failure):
            await _value(future, blocking=blocking, raising=True)
        else:
            raise ParameterError(
                f"{what}: wait_for has {future!r}, which is no future: list what .submit() or "
                ".map() returned"
            )


async def _value(leaf: Any, *, blocking: bool, raising: bool) -> Any:
    if isinstance(leaf, TaskFuture | TaskFutureList):
        return await leaf.outcome(None, raising=raising, blocking=blocking)
    if isinstance(leaf, quote):
        return leaf.value
    raising = raising and not isinstance(leaf, allow_failure)
    value = await resolved(leaf.value, blocking=blocking, raising=raising)
    return leaf.asked(value) if isinstance(leaf, when) else value
