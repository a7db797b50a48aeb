"""How a user's function reaches a worker: by its name where it can be imported, else by value."""

import functools
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from raysched.errors import SerializationError
from raysched.graph.payload import dumps, is_by_value

BY_VALUE_WARNING_BYTES = 1024**2
"""A function that travels by value and is larger than this (bytes) is worth a warning."""

_log = logging.getLogger(__name__)


class Reference(Protocol):
    """Something that stands for a function until it is called."""

    def resolve(self) -> Callable[..., Any]:
        """Return the function in this process.

        Raises:
            SerializationError: It cannot be imported or unpickled here.
        """


@dataclass(frozen=True, slots=True)
class LocalFunction:
    """A function that stays in its process, for the backend that runs units there."""

    function: Callable[..., Any]

    def resolve(self) -> Callable[..., Any]:
        """Return the function."""
        return self.function


@dataclass(frozen=True, slots=True)
class FunctionReference:
    """A function on its way to a worker.

    Attributes:
        name: `module:qualname`, for people and, if `pickled` is empty, for the import.
        pickled: The function by value, or b"".
    """

    name: str
    pickled: bytes = b""

    def resolve(self) -> Callable[..., Any]:
        """See `Reference.resolve`."""
        try:
            return self._load()
        except Exception as error:
            message = (
                f"function {self.name!r} cannot be loaded on the worker: "
                f"{type(error).__name__}: {error}. Install its module on every node, or keep it "
                "in the directory of the flow, which is shipped"
            )
            raise SerializationError(message) from error

    def _load(self) -> Callable[..., Any]:
        function: Callable[..., Any]
        if self.pickled:
            function = pickle.loads(self.pickled)
        else:
            module, qualname = self.name.split(":")
            function = _plain(_lookup(module, qualname))
        return function


def refer(function: Callable[..., Any]) -> FunctionReference:
    """Return a reference to `function` that workers can resolve.

    Functions of `__main__` and of notebooks, lambdas, closures and bound methods travel by value
    with the globals that they name; all others by name.

    Raises:
        SerializationError: It has to travel by value and cannot be pickled.
    """
    module = getattr(function, "__module__", None) or ""
    qualname = getattr(function, "__qualname__", None) or type(function).__qualname__
    name = f"{module}:{qualname}"
    if not is_by_value(module) and _is_at(function, module, qualname):
        return FunctionReference(name)
    try:
        pickled = dumps(function)
    except SerializationError as error:
        message = (
            f"function {name!r} cannot be pickled: {error}. It travels by value, so what it "
            "captures does too: create such objects inside the function"
        )
        raise SerializationError(message) from error
    if len(pickled) > BY_VALUE_WARNING_BYTES:
        _log.warning(
            "function %r travels by value with %.1f MB of what it captures: pass large data as "
            "an argument, or load it inside the function",
            name,
            len(pickled) / 1e6,
        )
    return FunctionReference(name, pickled)


def _lookup(module: str, qualname: str) -> Any:
    return functools.reduce(getattr, qualname.split("."), import_module(module))


def _is_at(function: Callable[..., Any], module: str, qualname: str) -> bool:
    if "<" in qualname:
        return False
    try:
        return _plain(_lookup(module, qualname)) is function
    except (ImportError, AttributeError, ValueError):
        return False


def _plain(found: Any) -> Any:
    """Return the user's function of what a module holds under its name: itself, or its Task."""
    return getattr(found, "fn", found)
