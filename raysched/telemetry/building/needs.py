"""What task runs need, as links of their spans, and how long they waited for a worker after it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from raysched.telemetry import otlp
from raysched.telemetry.building.links import MAX_LINKS, Edge
from raysched.telemetry.building.members import Members
from raysched.telemetry.building.parts import Part, Place
from raysched.telemetry.otlp import SpanId

_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Links:
    """What a span is linked to.

    Attributes:
        to: Ids of spans of the same trace, each once.
        omitted: How many more there would be.
    """

    to: tuple[bytes, ...] = ()
    omitted: int = 0

    def with_more(self, more: Iterable[bytes | None]) -> "Links":
        """Return these and others, None for a span that is not told."""
        known = dict.fromkeys(self.to)
        omitted = self.omitted
        for span_id in more:
            if span_id is None or (len(known) >= MAX_LINKS and span_id not in known):
                omitted += 1
            else:
                known[span_id] = None
        return Links(tuple(known), omitted)

    def encoded(self, trace_id: bytes) -> list[bytes]:
        """Return them as messages."""
        return [otlp.link(SpanId(trace_id, span_id)) for span_id in self.to]


class Needs:
    """What the members of a group need, in one part of a trace.

    Args:
        part: The part.
        members: The group.

    Attributes:
        single: Edges that lead each member to another one.
        unknown: Names of the tasks of which it is not known which members need which.
    """

    def __init__(self, part: Part, members: Members) -> None:
        self.part = part
        self.members = members
        self.single: list[tuple[Members, Edge]] = []
        self._common: list[tuple[Members, range]] = []
        unknown: dict[str, None] = {}
        for edge in members.edges:
            parent = part.run.groups.get(edge.parent)
            if parent is None:
                continue
            if not edge.is_known and parent.row.size > 1:
                unknown[parent.row.task] = None
            elif not edge.is_known:
                self._common.append((parent, range(1)))
            elif edge.is_common:
                self._common.append((parent, edge.positions(0, parent.row.size)))
            else:
                self.single.append((parent, edge))
        self.unknown = tuple(unknown)

    def of_all(self) -> Iterator[Place]:
        """Yield the task runs that all members need."""
        return ((parent, at) for parent, positions in self._common for at in positions)

    def of_one(self, position: int) -> Iterator[Place]:
        """Yield the further task runs that a member needs."""
        return (
            (parent, at)
            for parent, edge in self.single
            for at in edge.positions(position, parent.row.size)
        )

    @cached_property
    def common(self) -> Links:
        """The links that all members have."""
        return Links().with_more(self.part.told_as(*place) for place in self.of_all())

    @cached_property
    def ready(self) -> int:
        """End of the last thing that all need, or when the group was recorded (ns); 0 if unknown.

        Not before the execution began: nobody waits for a worker while there is no driver.
        """
        ends = (max(parent.ended[at.start : at.stop], default=0) for parent, at in self._common)
        known = max(self.members.row.created, *ends, 0)
        return max(known, self.part.started) if known else 0

    def links(self, position: int) -> Links:
        """Return the links of a member."""
        if not self.single:
            return self.common
        return self.common.with_more(self.part.told_as(*place) for place in self.of_one(position))

    def queued(self, position: int, start: int) -> float | None:
        """Return how long a member waited for a worker (ms), or None if that is not known."""
        if self.unknown:
            return None
        ready = self.ready
        for parent, at in self.of_one(position) if self.single else ():
            ready = max(ready, parent.ended[at])
        return max(0, start - ready) / _NS_PER_MS if ready else None
