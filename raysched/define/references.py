"""Pickling of decorated functions: by their name where that leads back to them."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from raysched.graph.payload import is_by_value


def reduce_decorated(
    decorated: Any, rebuild: Callable[..., Any], parts: tuple[Any, ...]
) -> str | tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return what `__reduce__` of a flow or task returns.

    Args:
        decorated: The flow or task.
        rebuild: Makes an equal one from `parts`.
        parts: What it is made of, for those that workers cannot import by name.
    """
    module, name = decorated.__module__, decorated.__qualname__
    if not is_by_value(module) and "<" not in name and _found(module, name) is decorated:
        return str(name)
    return rebuild, parts


def _found(module: str, name: str) -> Any:
    try:
        return functools.reduce(getattr, name.split("."), sys.modules[module])
    except (AttributeError, KeyError):
        return None
