"""Looking into users' values: containers, dataclasses and pydantic models."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, TypeGuard

from raysched.graph.payload import ATOMS


def visit(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Apply `replace` to every leaf of `value`, whatever its nesting.

    Lists, tuples, sets, dicts (keys and values), dataclasses and pydantic models are looked into;
    everything else is a leaf.

    Returns:
        `value` itself where no leaf was replaced, otherwise copies of the containers around it.
    """
    return _visit(value, replace, set())


def _visit(value: Any, replace: Callable[[Any], Any], around: set[int]) -> Any:
    kind = type(value)
    if kind in ATOMS:
        return value
    parts, rebuild = _parts(value, kind)
    if parts is None or id(value) in around:
        return replace(value) if parts is None else value
    around.add(id(value))
    visited = [part if type(part) in ATOMS else _visit(part, replace, around) for part in parts]
    around.discard(id(value))
    if all(map(_is, visited, parts)):
        return value
    return rebuild(visited)


def _is(some: object, other: object) -> bool:
    return some is other


def _parts(value: Any, kind: type) -> tuple[list[Any] | None, Callable[[list[Any]], Any]]:
    if kind in {list, set, frozenset, tuple}:
        return list(value), kind
    if kind is dict:
        size = len(value)
        return [*value, *value.values()], lambda both: dict(
            zip(both[:size], both[size:], strict=True)
        )
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return list(value), lambda parts: kind(*parts)
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind) if hasattr(value, field.name)]
        return [getattr(value, name) for name in names], lambda parts: _rebuilt(
            value, dict(zip(names, parts, strict=True))
        )
    if _is_model(value):
        attributes = value.__dict__
        return list(attributes.values()), lambda parts: value.model_copy(
            update=dict(zip(attributes, parts, strict=True))
        )
    return None, list


def _rebuilt(value: Any, attributes: dict[str, Any]) -> Any:
    # Not `dataclasses.replace`: __post_init__ has run already, and init=False fields exist.
    copy = object.__new__(type(value))
    for name, attribute in {**getattr(value, "__dict__", {}), **attributes}.items():
        object.__setattr__(copy, name, attribute)
    return copy


def _is_model(value: Any) -> TypeGuard[Any]:
    # Without pydantic loaded there is no model either.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.BaseModel)
