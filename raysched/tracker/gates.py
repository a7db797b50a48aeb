"""Gates: what waits until a range of a group's members has ended."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raysched.tracker.run import Node


@dataclass(slots=True, eq=False)
class Gate:
    """Opens for all who wait when a range of members has ended.

    Attributes:
        start: First member of the range.
        stop: End of the range.
        remaining: How many of the range are still open.
        waiting: Members that wait, by node. A member is in it once for each edge.
    """

    start: int
    stop: int
    remaining: int
    waiting: "dict[Node, Sequence[int]]" = field(default_factory=dict)

    def add(self, node: "Node", members: Sequence[int]) -> None:
        """Let members of a node wait."""
        there = self.waiting.get(node)
        if there is None:
            self.waiting[node] = members
        elif isinstance(there, list):
            there.extend(members)
        else:
            self.waiting[node] = [*there, *members]


class Gates:
    """The gates on one group, one for each range.

    They are kept by the length of their ranges, in buckets as wide as that, so that a member that
    ends finds its gates in at most two buckets a length, however many gates there are.
    """

    __slots__ = ("_by_range", "_levels")

    def __init__(self) -> None:
        self._by_range: dict[tuple[int, int], Gate] = {}
        self._levels: dict[int, dict[int, list[Gate]]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_range)

    def find(self, start: int, stop: int) -> Gate | None:
        """Return the gate on a range, if there is one."""
        return self._by_range.get((start, stop))

    def add(self, gate: Gate) -> None:
        """Put up a gate."""
        self._by_range[gate.start, gate.stop] = gate
        level = (gate.stop - gate.start - 1).bit_length()
        self._levels.setdefault(level, {}).setdefault(gate.start >> level, []).append(gate)

    def opened(self, ended: Iterable[int]) -> list[Gate]:
        """Account for members that have ended; return the gates that this has opened."""
        opened = []
        if isinstance(ended, range) and len(self._by_range) < len(ended):
            for gate in self._by_range.values():
                met = min(gate.stop, ended.stop) - max(gate.start, ended.start)
                if met > 0:
                    gate.remaining -= met
                    if not gate.remaining:
                        opened.append(gate)
        else:
            for index in ended:
                for gate in self._around(index):
                    gate.remaining -= 1
                    if not gate.remaining:
                        opened.append(gate)
        for gate in opened:
            self._remove(gate)
        return opened

    def _around(self, index: int) -> Iterator[Gate]:
        for level, buckets in self._levels.items():
            bucket = index >> level
            for gate in buckets.get(bucket, ()):
                if gate.start <= index < gate.stop:
                    yield gate
            if level:
                for gate in buckets.get(bucket - 1, ()):
                    if index < gate.stop:
                        yield gate

    def _remove(self, gate: Gate) -> None:
        del self._by_range[gate.start, gate.stop]
        level = (gate.stop - gate.start - 1).bit_length()
        buckets = self._levels[level]
        bucket = buckets[gate.start >> level]
        bucket.remove(gate)
        if not bucket:
            del buckets[gate.start >> level]
            if not buckets:
                del self._levels[level]
