"""Spans of a trace as a tree, to look at."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from raysched.model.traces import NO_SPAN

FLOW, TASK, RUN, CHUNK = "flow", "task", "run", "chunk"
"""First words of the names of our own spans."""

OWN = frozenset({FLOW, TASK, RUN, CHUNK})

SCOPE = "raysched"
"""Instrumentation scope of our own spans."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span.

    Attributes:
        id: Its id, 8 bytes.
        parent: That of the span that it is below of, `NO_SPAN` at the top.
        name: For example `task parse`.
        start: Start (ns since the epoch).
        end: End (ns since the epoch).
        failed: Whether its status is ERROR.
        attributes: Its attributes.
        links: Ids of the spans of this trace that it links to: of what a task run needed.
        scope: Its instrumentation scope.
    """

    id: bytes
    parent: bytes
    name: str
    start: int
    end: int
    failed: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    links: tuple[bytes, ...] = ()
    scope: str = SCOPE

    @property
    def kind(self) -> str:
        """`flow`, `task`, `run` or `chunk`, and "" for one that user code has made."""
        word = self.name.partition(" ")[0]
        return word if self.scope == SCOPE and word in OWN else ""

    @property
    def title(self) -> str:
        """The name of the flow or task, and all of the name of one that user code has made."""
        return self.name.partition(" ")[2] if self.kind else self.name

    @property
    def seconds(self) -> float:
        """How long it took (seconds)."""
        return (self.end - self.start) / 1e9


class Tree:
    """The spans of one trace.

    Args:
        trace_id: Its id, 16 bytes.
        spans: Its spans, in any order.
    """

    def __init__(self, trace_id: bytes, spans: Iterable[Span]) -> None:
        self.trace_id = trace_id
        self.spans = {span.id: span for span in spans}

    @cached_property
    def roots(self) -> list[Span]:
        """The spans whose parent is not here, in the order of their starts."""
        return sorted(
            (each for each in self.spans.values() if each.parent not in self.spans), key=_order
        )

    def children(self, span: Span) -> list[Span]:
        """Return the spans right below one, in the order of their starts."""
        return self._children.get(span.id, [])

    @cached_property
    def _children(self) -> dict[bytes, list[Span]]:
        below: dict[bytes, list[Span]] = {}
        for span in self.spans.values():
            if span.parent != NO_SPAN:
                below.setdefault(span.parent, []).append(span)
        for spans in below.values():
            spans.sort(key=_order)
        return below


def _order(span: Span) -> tuple[int, int, int, bytes]:
    index = span.attributes.get("raysched.task.map_index", 0)
    return span.start, span.end, int(index), span.id
