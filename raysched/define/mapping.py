"""What `.map` does with its arguments: the rules of Prefect 3.

An argument is mapped over if it can be iterated, also a dict (its keys), a set or a generator;
texts, bytes, open files, defaults and what is `unmapped` go to every task run whole. A future as
an argument is waited for, and its value is mapped over.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysched.define.annotations import Annotation, allow_failure, quote, unmapped
from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.define.signature import Signature
from raysched.define.skipping import when
from raysched.errors import MapError
from raysched.graph.calls import Member


@dataclass(frozen=True, slots=True)
class Columns:
    """The arguments of a map.

    Attributes:
        size: Number of task runs.
        mapped: Elements by parameter name; of a `range`, that itself.
        aligned: Of the mapped parameters those that adjacent members of a group supply one by
            one, with the first of them.
        static: The other arguments by parameter name, defaults included.
        waited: Futures whose values were mapped over.
    """

    size: int
    mapped: Mapping[str, Sequence[Any]]
    aligned: Mapping[str, Member]
    static: Mapping[str, Any]
    waited: tuple[TaskFuture[Any], ...]


def columns(what: str, signature: Signature, bound: Mapping[str, Any]) -> Columns:
    """Sort the arguments of a map.

    Args:
        what: For messages: `task 'parse'`.
        signature: Parameters of the task.
        bound: Arguments as given, by parameter name.

    Raises:
        MapError: Nothing is iterable, or the lengths differ.
    """
    arguments = dict(bound)
    if signature.var_keyword in arguments:
        arguments.update(arguments.pop(signature.var_keyword))
    mapped: dict[str, Sequence[Any]] = {}
    aligned: dict[str, Member] = {}
    static: dict[str, Any] = {}
    waited: list[TaskFuture[Any]] = []
    for name, given in arguments.items():
        argument, rewrap = _unwrapped(given)
        if isinstance(argument, TaskFuture):
            waited.append(argument)
            argument = argument.result()
        if isinstance(argument, unmapped):
            static[name] = rewrap(argument.value)
        elif not _is_iterable(argument):
            static[name] = rewrap(argument)
        elif isinstance(argument, TaskFutureList) and rewrap is _same and _is_one(argument):
            group, indices = argument.parts[0]
            aligned[name] = group, indices.start
            mapped[name] = [None] * len(indices)
        elif isinstance(argument, range) and rewrap is _same:
            mapped[name] = argument
        else:
            mapped[name] = [rewrap(element) for element in argument]
    size = _common_size(what, mapped)
    defaults = {
        name: default
        for name, default in signature.defaults.items()
        if name not in mapped and name not in static
    }
    return Columns(size, mapped, aligned, {**static, **defaults}, tuple(waited))


def _unwrapped(argument: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return what is inside of marks, and what puts them around a part of it."""
    if not isinstance(argument, allow_failure | quote | when):
        return argument, _same
    inner, rewrap = _unwrapped(argument.value)
    if rewrap is _same:
        return inner, argument.rewrap
    return inner, lambda value: argument.rewrap(rewrap(value))


def _same(value: Any) -> Any:
    return value


def _is_iterable(argument: Any) -> bool:
    if isinstance(argument, str | bytes | io.IOBase | Annotation):
        return False
    try:
        iter(argument)
    except TypeError:
        return False
    return True


def _is_one(futures: TaskFutureList[Any]) -> bool:
    return len(futures.parts) == 1 and futures.parts[0][1].step == 1


def _common_size(what: str, mapped: Mapping[str, Sequence[Any]]) -> int:
    if not mapped:
        raise MapError(
            f"{what}: .map got nothing to iterate over: give it a list, or use .submit for one run"
        )
    sizes = {name: len(elements) for name, elements in mapped.items()}
    if len(set(sizes.values())) > 1:
        lengths = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise MapError(
            f"{what}: .map got iterables of unequal length: {lengths}. Make them equal, or wrap "
            "those that every run should get whole in unmapped(…)"
        )
    return next(iter(sizes.values()))
