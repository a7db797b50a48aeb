"""What task runs need: the edges of a group, as its row tells them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from raysched.graph.group import EdgeKind
from raysched.model.rows import GroupRow

MAX_LINKS = 128
"""More links than that are not told of a span. Source: default limit of the OpenTelemetry SDKs."""


@dataclass(frozen=True, slots=True)
class Edge:
    """What the members of a group need of another one.

    Attributes:
        parent: Id of the group that is needed.
        kind: How.
        index: First of its members that is needed (for ONE_TO_ONE: the offset).
        stop: End of the range (for ONE_TO_ONE: 1); -1 where members differ in what they need.
    """

    parent: int
    kind: EdgeKind
    index: int
    stop: int

    @property
    def is_known(self) -> bool:
        """Whether it says which members are needed."""
        return self.stop >= 0

    @property
    def is_common(self) -> bool:
        """Whether all members of the group need the same."""
        return self.kind is not EdgeKind.ONE_TO_ONE

    def positions(self, of: int, size: int) -> range:
        """Return which members of a parent of this size the member at position `of` needs."""
        first, stop = self.index, self.stop
        if self.kind is EdgeKind.ONE_TO_ONE:
            first, stop = of + first, of + first + 1
        elif self.kind in {EdgeKind.SCATTER, EdgeKind.BROADCAST}:
            stop = first + 1
        return range(max(0, first), min(stop, size))


def edges_of(row: GroupRow) -> tuple[Edge, ...]:
    """Return the edges of a group."""
    return _edges(row.edges)


@lru_cache(maxsize=1024)
def _edges(text: str) -> tuple[Edge, ...]:
    return tuple(_told(json.loads(text)))


def _told(edges: list[list[object]]) -> Iterator[Edge]:
    for parent, kind, index, stop in edges:
        assert isinstance(parent, int)  # noqa: S101 - our own format
        assert isinstance(index, int)  # noqa: S101 - see above
        assert isinstance(stop, int)  # noqa: S101 - see above
        yield Edge(parent, EdgeKind(str(kind)), index, stop)
