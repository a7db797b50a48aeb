"""Results of classes that the flow's own file defines: found again under another module name.

One file is `__main__` in `python flow.py`, and the module `flow` in `raysched run flow.py` and
`raysched resume`. A class that workers cannot import is pickled with the name of its file's module
and by value: whoever reads it takes the class of that file, if it is loaded there, under whatever
name, and else the copy. A class that was pickled as `flow.Row` is looked up in `__main__` where
that is the file `flow.py`.
"""

import pickle
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any
from weakref import WeakKeyDictionary

from raysched.graph.naming import BY_VALUE_PREFIX, MAIN, main_name
from raysched.graph.payload import dumps_by_value, is_by_value


@dataclass(slots=True)
class _Elsewhere:
    """The driver's `__main__`, in its workers.

    Attributes:
        name: What the module of its file is called, "" if it has none; None in a driver.
        namespaces: Globals of functions that have come by value, with the name of their module.
    """

    name: str | None = None
    namespaces: Sequence[tuple[str, Mapping[str, Any]]] = ()


_elsewhere = _Elsewhere()

_by_value: "WeakKeyDictionary[type, bytes]" = WeakKeyDictionary()
"""Classes that went by value: it takes 0.2 ms each."""


def works_for(name: str, functions: Iterable[Callable[..., Any]]) -> None:
    """Take note, in a worker, of whose `__main__` the classes of that name are.

    Args:
        name: `main_name()` of the driver.
        functions: The functions of tasks that run next.
    """
    _elsewhere.name = name
    modules = [(getattr(each, "__module__", None) or "", each) for each in functions]
    _elsewhere.namespaces = [
        (name if module == MAIN else module.removeprefix(BY_VALUE_PREFIX), function.__globals__)
        for module, function in modules
        if is_by_value(module) or module.startswith(BY_VALUE_PREFIX)
        if hasattr(function, "__globals__")
    ]
    _searches.cache_clear()


def dumps(
    value: object, buffer_callback: Callable[[pickle.PickleBuffer], bool] | None = None
) -> bytes:
    """Pickle `value` by cloudpickle, with the names of classes that go by value.

    Raises:
        SerializationError: It cannot be pickled.
    """
    return dumps_by_value(value, buffer_callback, _pickler())


def loads(data: Any, buffers: Iterable[Any] = ()) -> Any:
    """Unpickle what `dumps` or the C pickler has written.

    Args:
        data: The pickle, as bytes or a buffer.
        buffers: Its buffers out of band.

    Raises:
        Exception: Whatever a class raises.
    """
    for search in _searches():
        if search(data):
            return _Unpickler(BytesIO(data), buffers=buffers).load()
    return pickle.loads(data, buffers=buffers)


def class_of(module: str, qualname: str, by_value: bytes) -> Any:
    """Return a class of a flow's file: what unpickling calls.

    Args:
        module: What the module of the file is called.
        qualname: The name of the class there.
        by_value: The class, pickled by value.
    """
    name = module.removeprefix(BY_VALUE_PREFIX)
    if name in _names():
        found = _in_script(name, qualname)
    else:
        loaded = [sys.modules.get(each) for each in (name, BY_VALUE_PREFIX + name)]
        namespaces = [vars(module) for module in loaded if module is not None]
        found = _lookup(namespaces, qualname)
    return pickle.loads(by_value) if found is None else found


class _Unpickler(pickle.Unpickler):
    """Looks classes of the module that the script is elsewhere up in the script."""

    def find_class(self, module: str, name: str) -> Any:
        found = _in_script(module.removeprefix(BY_VALUE_PREFIX), name)
        return super().find_class(module, name) if found is None else found


@lru_cache(maxsize=1)
def _pickler() -> type[pickle.Pickler]:
    import cloudpickle  # often not needed, and slow to import

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
        """Writes the names of classes that go by value."""

        def reducer_override(self, obj: Any) -> Any:
            reduced = _reduce(obj) if isinstance(obj, type) else None
            return super().reducer_override(obj) if reduced is None else reduced

    return Pickler


def _reduce(found: type) -> tuple[Any, ...] | None:
    """Return how a class is pickled that goes by value, None for all others."""
    module = found.__module__
    goes_by_value = is_by_value(module) or module.startswith(BY_VALUE_PREFIX)
    if not goes_by_value or "<" in found.__qualname__:
        return None
    if module == MAIN:
        module = _name()
    if not module:
        return None
    if found not in _by_value:
        _by_value[found] = dumps_by_value(found)
    return class_of, (module, found.__qualname__, _by_value[found])


def _name() -> str:
    return main_name() if _elsewhere.name is None else _elsewhere.name


@lru_cache(maxsize=1)
def _searches() -> list[Callable[[Any], object]]:
    """Return for each of `_names` what looks for it in a pickle."""
    # Unlike `in`, this takes all kinds of buffers.
    return [re.compile(re.escape(name.encode())).search for name in _names() if name]


def _names() -> tuple[str, ...]:
    """Return the names of modules whose classes are to be looked up here under another one."""
    if _elsewhere.name is None:
        return (main_name(),)
    return (_elsewhere.name, *(name for name, _ in _elsewhere.namespaces))


def _in_script(name: str, qualname: str) -> type | None:
    """Return a class of a module of `_names`, None of others."""
    if _elsewhere.name is not None:
        return _lookup([there for each, there in _elsewhere.namespaces if each == name], qualname)
    return _lookup([vars(sys.modules[MAIN])], qualname) if name == main_name() else None


def _lookup(namespaces: Iterable[Mapping[str, Any]], qualname: str) -> type | None:
    first, *rest = qualname.split(".")
    for namespace in namespaces:
        found = namespace.get(first)
        for part in rest:
            found = getattr(found, part, None)
        if isinstance(found, type):
            return found
    return None
