"""The shape of a pickled call without its objects: where the values to come have their places.

Unpickling calls whatever the classes of the arguments want called, and wants their modules. To see
which argument a value belongs to, it is enough to know what is inside of what.
"""

import pickle
from collections.abc import Iterable
from io import BytesIO
from typing import Any, Self

from raysched.graph.payload import slot

_SLOT = slot.__module__, slot.__qualname__


class Place:
    """The place of the value of a slot."""

    def __init__(self, number: int) -> None:
        self.number = number


class Stub:
    """An object of any class: it only knows what is inside of it."""

    inside: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make one; unpickling does not always call `__init__`."""
        stub = super().__new__(cls)
        stub.inside = [*args, *kwargs.values()]
        return stub

    def __call__(self, *args: Any, **kwargs: Any) -> "Stub":
        """Stand for what a stub of a function returns."""
        return Stub(self, *args, **kwargs)

    def __setstate__(self, state: Any) -> None:
        self.inside.append(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.inside += (key, value)

    def __hash__(self) -> int:
        return id(self)

    def append(self, element: Any) -> None:
        """Take an element of a class that is a list."""
        self.inside.append(element)

    def extend(self, elements: Iterable[Any]) -> None:
        """Take elements of a class that is a list."""
        self.inside += elements

    def add(self, element: Any) -> None:
        """Take an element of a class that is a set."""
        self.inside.append(element)


def _class(*args: Any) -> type[Stub]:
    """Stand for the functions by which cloudpickle makes a class that travels by value."""
    del args
    return Stub


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return what stands for a class or function."""
        if (module_name, global_name) == _SLOT:
            return Place
        is_class_by_value = module_name.startswith("cloudpickle") and "class" in global_name
        return _class if is_class_by_value else Stub

    def persistent_load(self, pid: Any) -> Any:
        """Return what stands for an object that is kept elsewhere."""
        return Stub(pid)


def skeleton(payload: bytes) -> Any:
    """Return what a payload consists of: plain data, and stubs and places in it."""
    return _Unpickler(BytesIO(payload)).load()


def slots_in(part: Any) -> frozenset[int]:
    """Return the numbers of the slots in a part of a skeleton."""
    numbers: set[int] = set()
    seen: set[int] = set()
    left = [part]
    while left:
        found = left.pop()
        if isinstance(found, Place):
            numbers.add(found.number)
        elif (
            isinstance(found, Stub | list | tuple | set | frozenset | dict)
            and id(found) not in seen
        ):
            seen.add(id(found))
            if isinstance(found, dict):
                left += (*found.keys(), *found.values())
            else:
                left += found.inside if isinstance(found, Stub) else found
    return frozenset(numbers)
