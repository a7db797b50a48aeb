"""Chunks: spans that stand for the folded task runs of a task."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from math import ceil
from operator import sub

from raysched.model.states import FAILURES, StateType
from raysched.telemetry import otlp
from raysched.telemetry.building.encoding import span_head
from raysched.telemetry.building.members import Members
from raysched.telemetry.building.parts import FOLDED, Part

_NS_PER_S = 1e9

_FOLDED_ONES = re.compile(re.escape(bytes((FOLDED,))) + b"+")


@dataclass(slots=True)
class Chunk:
    """Folded task runs that one `chunk` span stands for.

    Attributes:
        first: Index of the first one that may be in it.
        last: Index of the last one that may.
        count: How many there are.
        failed: How many of these failed.
        start: When the first one began (ns).
        end: When the last one ended (ns).
        took: How long those took that ran (ns).
    """

    first: int
    last: int
    count: int = 0
    failed: int = 0
    start: int = 0
    end: int = 0
    took: list[int] = field(default_factory=list)

    def add(self, state: int, started: int, ended: int) -> None:
        """Fold a task run, with the start of its attempt and its end (ns)."""
        self.count += 1
        self.failed += state in FAILURES
        start = started or ended
        self.start = min(self.start, start) if self.start else start
        self.end = max(self.end, ended, start)
        if started and state != StateType.CACHED:
            self.took.append(max(0, ended - started))

    def add_all(self, states: bytearray, started: Sequence[int], ended: Sequence[int]) -> None:
        """Fold task runs that ran, at least one."""
        self.count += len(states)
        self.failed += sum(map(states.count, FAILURES))
        first, last, end = min(started), max(started), max(ended)
        self.start = min(self.start, first) if self.start else first
        self.end = max(self.end, last, end)
        self.took += map(max, repeat(0), map(sub, ended, started))

    def percentile(self, share: float) -> float:
        """Return how long the quicker ones of this share took at most (seconds)."""
        return self.took[max(0, ceil(share * len(self.took)) - 1)] / _NS_PER_S


def chunk_span(part: Part, task: str, chunk: Chunk) -> bytes:
    """Return a `chunk` span."""
    chunk.took.sort()
    of: dict[str, otlp.Value] = {
        "raysched.task.name": task,
        "raysched.chunk.first": chunk.first,
        "raysched.chunk.last": chunk.last,
        "raysched.chunk.count": chunk.count,
        "raysched.chunk.failed": chunk.failed,
    }
    if chunk.took:
        of["raysched.chunk.p50_seconds"] = chunk.percentile(0.5)
        of["raysched.chunk.p95_seconds"] = chunk.percentile(0.95)
        of["raysched.chunk.max_seconds"] = chunk.percentile(1)
    status = b""
    if chunk.failed:
        of["error.type"] = "failures"
        status = otlp.error_status(f"{chunk.failed} of {chunk.count} did not succeed")
    start, end = part.interval.hold(chunk.start, chunk.end)
    return b"".join(
        (
            span_head(part, f"chunk {task}", part.span.span_id),
            otlp.span_own(part.chunk_span(task, chunk.first), start, end),
            otlp.span_more(of, status=status),
        )
    )


def fold(part: Part, members: Members, chunks: dict[tuple[str, int], Chunk]) -> int:
    """Add the folded members of a group to chunks; return how many spans that saves."""
    task, block = members.row.task, part.blocks[members.row.task]
    saved = 0
    for run in _FOLDED_ONES.finditer(part.fates[members.row.id]):
        at = run.start()
        while at < run.end():
            first = (members.row.first + at) // block * block
            stop = min(run.end(), first + block - members.row.first)
            chunk = chunks.setdefault((task, first), Chunk(first, first + block - 1))
            saved += _add(chunk, part, members, range(at, stop))
            at = stop
    return saved


def _add(chunk: Chunk, part: Part, members: Members, positions: range) -> int:
    """Fold adjacent members; return how many spans that saves."""
    start, stop = positions.start, positions.stop
    states, begun = members.states[start:stop], members.started[start:stop]
    ends = members.ended[start:stop]
    if min(begun) and min(ends) and StateType.CACHED not in states:
        chunk.add_all(states, begun, ends)
        return 2 * len(positions)
    saved = 0
    for position, state, started, ended in zip(positions, states, begun, ends, strict=True):
        chunk.add(state, started, ended or part.run.ended(members, position))
        saved += 2 if started and state != StateType.CACHED else 1
    return saved
