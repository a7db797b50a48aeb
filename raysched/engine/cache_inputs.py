"""The arguments of task runs as cache keys see them: by their content, wherever the values are."""

import functools
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from raysched.define.signature import Signature
from raysched.errors import RayschedError
from raysched.graph.digest import digest, digests
from raysched.graph.group import Edge, EdgeKind, Group, elements
from raysched.graph.payload import are_atoms, load_call, slot
from raysched.model.ids import IDENTITY_BYTES
from raysched.model.options import TaskSpec
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import StoredValue, UnkeptValue, Value

FETCHED_BYTES = 64 * 1024**2
"""Larger results of other tasks are not fetched into the driver for a cache key (bytes)."""


class NotKeyable(Exception):
    """A task run has no cache key, for the reason that is said."""


class Content:
    """Stands for a value of which only the digest is known."""

    __slots__ = ("digest",)

    def __init__(self, digest: bytes) -> None:
        self.digest = digest

    def __reduce__(self) -> tuple[Any, ...]:
        return slot, (self.digest,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)


class _Place:
    """Stands for the value of a slot, in what all rows of a map have in common."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Contents:
    """Digests of results; of those that many task runs need, each is looked at once."""

    def __init__(self) -> None:
        self._of_all: dict[Edge, bytes | NotKeyable] = {}

    def of(self, edge: Edge, index: int) -> bytes:
        """Return the digest of what an edge brings to a member.

        Raises:
            NotKeyable: It is not known, or it is no result.
        """
        if edge.kind is EdgeKind.ONE_TO_ONE:
            return _digest_of(edge.parent, index + edge.index)
        known = self._of_all.get(edge)
        if known is None:
            try:
                known = self._of_range(edge)
            except NotKeyable as error:
                known = error
            self._of_all[edge] = known
        if isinstance(known, NotKeyable):
            raise known
        return known

    def stand_in(self, edge: Edge, index: int) -> Content:
        """Return what stands for the value that an edge brings to a member; raises as `of`."""
        return Content(self.of(edge, index))

    def column(self, edge: Edge, indices: Sequence[int]) -> list[bytes]:
        """Return the digests of what an item-wise edge brings to these members."""
        return [_digest_of(edge.parent, index + edge.index) for index in indices]

    def _of_range(self, edge: Edge) -> bytes:
        if edge.kind is not EdgeKind.GATHER:
            return _digest_of(edge.parent, edge.index)
        states = edge.parent.states
        hasher = blake2b(b"gathered", digest_size=IDENTITY_BYTES)
        for member in range(edge.index, edge.stop):
            if edge.parent.min_success is None or states[member] != StateType.SKIPPED:
                hasher.update(_digest_of(edge.parent, member))
        return hasher.digest()


def _digest_of(parent: Group, index: int) -> bytes:
    if parent.states[index] not in SUCCESSES:
        raise NotKeyable(f"{parent.key(index)}, which it needs, has no result")
    value = _value_of(parent, index)
    if isinstance(value, bytes):
        return blake2b(value, digest_size=IDENTITY_BYTES).digest()
    location = "" if isinstance(value, UnkeptValue) else value.location
    if not location:
        raise NotKeyable(f"the result of {parent.key(index)}, which it needs, is not kept")
    return StoredValue(location, value.size).digest


def _value_of(parent: Group, index: int) -> Value:
    try:
        return parent.value(index)
    except RayschedError as error:
        raise NotKeyable(f"the result of {parent.key(index)} cannot be had: {error}") from error


@functools.lru_cache(maxsize=1024)
def signature_of(spec: TaskSpec) -> Signature:
    """Return the parameters of a task."""
    return Signature(f"task {spec.name!r}", spec.fn)


def arguments(
    group: Group, index: int, values: Callable[[Edge], Any], objects: Callable[[str, bytes], Any]
) -> dict[str, Any]:
    """Return the arguments of a member by parameter name, with defaults.

    Args:
        group: Its group.
        index: Its position there.
        values: Supplies the value that an edge brings.
        objects: Supplies what stands for what is made once per worker.

    Raises:
        NotKeyable: They cannot be unpickled here.
    """
    edges = list(group.slots_of(index))
    signature = signature_of(group.spec)

    def load(payload: bytes) -> Any:
        try:
            return load_call(payload, lambda number: values(edges[number]), objects)
        except NotKeyable:
            raise
        except Exception as error:
            raise NotKeyable(
                f"its arguments cannot be looked at: {type(error).__name__}: {error}"
            ) from error

    if not group.mapped:
        args, kwargs = load(group.payloads[index] or b"")
        return _flat(signature, signature.complete(signature.bind(args, kwargs)))
    names, static = load(group.shared)
    row = (
        [column[index] for column in group.columns]
        if group.columns
        else load(group.payloads[index] or b"")
    )
    return _flat(signature, signature.complete({**static, **dict(zip(names, row, strict=True))}))


def _flat(signature: Signature, bound: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with those of `**kwargs` among the others, where a map has them, too."""
    extra = bound.get(signature.var_keyword or "")
    if not isinstance(extra, Mapping):
        return bound
    return {**{n: v for n, v in bound.items() if n != signature.var_keyword}, **extra}


def stand_in(token: str, _: bytes) -> Content:
    """Return what stands for an object that is made once per worker: its token is a digest."""
    return Content(digest(token))


def content_of(name: str, value: object) -> bytes:
    """Return the digest of an argument.

    Raises:
        NotKeyable: It cannot be pickled.
    """
    if isinstance(value, Content):
        return value.digest
    try:
        return digest(value)
    except Exception as error:
        raise NotKeyable(f"argument {name!r} has no digest: {error}") from error


class RowsAlike:
    """Members of a map that differ in immutable elements, or in results that they need, only.

    Args:
        contents: Digests of results.
        fixed: The arguments that all have in common, by parameter name.
        columns: Columns of elements, by parameter name.
        edges: Item-wise edges, by parameter name.

    Attributes:
        fixed: See above.
        may_name_files: Whether there may be paths in what differs.
    """

    def __init__(
        self,
        contents: Contents,
        fixed: Mapping[str, Any],
        columns: Mapping[str, Sequence[Any]],
        edges: Mapping[str, Edge],
    ) -> None:
        self.fixed = fixed
        self.may_name_files = bool(edges)
        self._contents = contents
        self._columns = columns
        self._edges = edges

    def columns(self, indices: Sequence[int], without: frozenset[str]) -> dict[str, list[bytes]]:
        """Return the digests of what differs, by parameter name, but for some parameters.

        Raises:
            NotKeyable: The content of a result is not known.
        """
        found = {
            name: digests(elements(column, indices))
            for name, column in self._columns.items()
            if name not in without
        }
        results = {
            name: self._contents.column(edge, indices)
            for name, edge in self._edges.items()
            if name not in without
        }
        return found | results


def rows_alike(group: Group, index: int, contents: Contents) -> RowsAlike | None:
    """Return what the members of a map have in common, if they are like this one; else None.

    Raises:
        NotKeyable: What they have in common cannot be looked at.
    """
    if not group.mapped or group.member_edges:
        return None
    edges = list(group.slots_of(0))
    of_all = {number for number, edge in enumerate(edges) if edge.kind is not EdgeKind.ONE_TO_ONE}
    if group.columns:
        if not all(map(are_atoms, group.columns)):
            return None
    elif not all(payload is group.payloads[index] for payload in group.payloads if payload):
        return None

    def value(edge: Edge) -> Any:
        number = edges.index(edge)
        return Content(contents.of(edge, 0)) if number in of_all else _Place(number)

    found = arguments(group, index, value, stand_in)
    names, _ = load_call(group.shared, _Place, stand_in)
    if group.columns:
        columns = dict(zip(names, group.columns, strict=True))
        fixed = {name: each for name, each in found.items() if name not in columns}
        return RowsAlike(contents, fixed, columns, {})
    places = {name: each.number for name, each in found.items() if isinstance(each, _Place)}
    fixed = {name: each for name, each in found.items() if name not in places}
    if set(names) != set(places):
        return None
    by_name = {name: edges[number] for name, number in places.items()}
    return RowsAlike(contents, fixed, {}, by_name)
