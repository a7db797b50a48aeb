"""Marks on arguments: `unmapped`, `allow_failure`, `quote`."""

import pickle
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.define.ranges import flatten
from raysched.define.states import State
from raysched.define.visit import visit
from raysched.graph.group import Edge
from raysched.graph.payload import Dependency, dumps, is_digesting, reduce_dependency, without_slots
from raysched.model.ids import IDENTITY_BYTES

T = TypeVar("T")


class Annotation(Generic[T]):
    """A mark on an argument. The task gets the bare value.

    Attributes:
        value: What is marked.
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def unwrap(self) -> T:
        """Return what is marked."""
        return self.value

    def rewrap(self, value: Any) -> "Annotation[Any]":
        """Return the same mark on another value."""
        return type(self)(value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bool(other.value == self.value)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self.value,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(Annotation[T]):  # noqa: N801 - Prefect's word
    """An argument of `.map` that every task run gets whole."""

    __slots__ = ()


class quote(Annotation[T]):  # noqa: N801 - Prefect's word
    """An argument that is not searched for futures; a future in it raises `FutureError`."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        if is_digesting():
            return _same, (self.value,)
        with without_slots():
            return pickle.loads, (dumps(self.value),)


class allow_failure(Annotation[T]):  # noqa: N801 - Prefect's word
    """An argument whose failed futures hand over their exceptions, instead of failing the task.

    Also of those inside another mark: `allow_failure(when(future, predicate))` is the same as
    `when(allow_failure(future), predicate)`, and `predicate` may be asked about an exception.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (visit(self.value, _allow),)


class Allowed:
    """A dependency that may fail.

    Args:
        dependency: The dependency.
    """

    __slots__ = ("dependency",)

    def __init__(self, dependency: Dependency) -> None:
        self.dependency = dependency

    def identity(self) -> bytes:
        """Return a digest of its own: here a failure is an input too."""
        return blake2b(
            self.dependency.identity(), digest_size=IDENTITY_BYTES, person=b"allow_failure"
        ).digest()

    def edge(self) -> Edge:
        """Return the dependency's edge, which a failure may cross."""
        edge = self.dependency.edge()
        return Edge(edge.parent, edge.kind, edge.index, edge.stop, allow_failure=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_dependency(self)


class _AllowedList:
    """The futures of a map, each of which may fail."""

    def __init__(self, futures: TaskFutureList[Any]) -> None:
        self._futures = futures

    def __reduce__(self) -> tuple[Any, ...]:
        if is_digesting():
            return Allowed(self._futures).__reduce__()
        return flatten, ([Allowed(part) for part in self._futures.dependencies()],)


def _allow(leaf: Any) -> Any:
    if isinstance(leaf, TaskFuture):
        return Allowed(leaf)
    if isinstance(leaf, State):
        return leaf.result(raise_on_failure=False)
    if isinstance(leaf, Annotation) and not isinstance(leaf, quote):
        return leaf.rewrap(visit(leaf.value, _allow))
    return _AllowedList(leaf) if isinstance(leaf, TaskFutureList) else leaf


def _same(value: Any) -> Any:
    return value
