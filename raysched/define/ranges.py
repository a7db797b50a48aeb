"""Ranges of task runs as dependencies, and slices of lists of ranges."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

from raysched.graph.calls import Part
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.graph.payload import reduce_dependency
from raysched.model.ids import IDENTITY_BYTES


class FutureRange:
    """Adjacent members of a group as one dependency: their values as a list.

    Args:
        group: The group.
        indices: Positions, with step 1.
    """

    __slots__ = ("group", "indices")

    def __init__(self, group: Group, indices: range) -> None:
        self.group = group
        self.indices = indices

    def identity(self) -> bytes:
        """Return the digest that stands for the values in digests of inputs."""
        start, stop = self.indices.start * IDENTITY_BYTES, self.indices.stop * IDENTITY_BYTES
        identities = self.group.identities[start:stop]
        return blake2b(b"list" + identities, digest_size=IDENTITY_BYTES).digest()

    def edge(self) -> Edge:
        """Return the edge to whoever needs the list."""
        return Edge(self.group, EdgeKind.GATHER, self.indices.start, self.indices.stop)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return reduce_dependency(self)


def flatten(lists: Sequence[list[Any]]) -> list[Any]:
    """Return one list of the elements of all: how a list of futures of several groups arrives."""
    return list(chain.from_iterable(lists))


def sliced(parts: Sequence[Part], cut: slice) -> list[Part]:
    """Return the parts of a slice of the list that `parts` make up."""
    located: list[tuple[Group, range, int]] = []
    size = 0
    for group, indices in parts:
        located.append((group, indices, size))
        size += len(indices)
    positions = range(size)[cut]
    step = positions.step
    sliced: list[Part] = []
    for group, indices, offset in located if step > 0 else reversed(located):
        ends = offset, offset + len(indices) - 1
        near, far = ends if step > 0 else ends[::-1]
        first = max(0, -((positions.start - near) // step))
        last = (far - positions.start) // step
        chosen = positions[first : max(first, last + 1)]
        if chosen:
            begin = indices[chosen[0] - offset]
            stride = indices.step * step if len(chosen) > 1 else 1
            sliced.append((group, range(begin, begin + stride * len(chosen), stride)))
    return sliced
