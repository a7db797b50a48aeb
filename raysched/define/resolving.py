"""Putting values in the places of futures: in parameters of subflows and in what flows return."""

from collections.abc import Iterable
from typing import Any

from raysched.define.annotations import Annotation, allow_failure
from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.define.skipping import when
from raysched.define.states import State
from raysched.define.visit import visit
from raysched.errors import ParameterError


async def resolved(value: Any, *, blocking: bool) -> Any:
    """Return `value` with values in the places of the futures in it, whatever their nesting.

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
    values = {key: await _value(leaf, blocking=blocking) for key, leaf in found.items()}
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
            await _value(future, blocking=blocking)
        else:
            raise ParameterError(
                f"{what}: wait_for has {future!r}, which is no future: list what .submit() or "
                ".map() returned"
            )


async def _value(leaf: Any, *, blocking: bool) -> Any:
    if isinstance(leaf, TaskFuture | TaskFutureList):
        return await leaf.outcome(None, raising=True, blocking=blocking)
    if isinstance(leaf, allow_failure):
        if isinstance(leaf.value, TaskFuture | TaskFutureList):
            return await leaf.value.outcome(None, raising=False, blocking=blocking)
        return await resolved(leaf.value, blocking=blocking)
    if isinstance(leaf, when):
        return leaf.asked(await resolved(leaf.value, blocking=blocking))
    return leaf.value
