"""What a waterfall of a trace shows: its lines, in order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from raysched.client.spans import CHUNK, RUN, TASK, Span, Tree

FOLD_FROM = 8
"""Task runs of one task from which on they share a line."""

MOST_TOLD = 5
"""Of those that share a line, so many that failed or were tried again have lines of their own."""


class Look(StrEnum):
    """How a part of a bar looks."""

    RAN = "ran"
    FAILED = "failed"
    WAITED = "waited"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a bar; times in ns since the epoch."""

    look: Look
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        depth: How far it is indented.
        label: What it tells of.
        pieces: Its bar, in the order of time.
        seconds: How long it took, from its start to its end.
        count: Task runs that share it, 1 for a span of its own.
        failed: How many of these failed.
        retried: How many attempts followed another one.
        p50: Of several, how long half of them took at most (seconds), otherwise None.
        p95: The same for 95 %.
        is_critical: Whether something of it is on the critical path.
        remark: What else there is to say, or "".
    """

    depth: int
    label: str
    pieces: tuple[Piece, ...]
    seconds: float
    count: int = 1
    failed: int = 0
    retried: int = 0
    p50: float | None = None
    p95: float | None = None
    is_critical: bool = False
    remark: str = ""


def waterfall(tree: Tree, critical: frozenset[bytes]) -> list[Line]:
    """Return the lines of a trace, each span below its parent, in the order of their starts.

    The task runs of one task share a line where they are many; those that failed, or were tried
    again, and some of those on the critical path, have lines of their own below it.

    Args:
        tree: The trace.
        critical: Ids of the spans on the critical path.
    """
    drawing = _Drawing(tree, critical)
    return [line for root in tree.roots for line in drawing.lines(root, 0)]


class _Drawing:
    def __init__(self, tree: Tree, critical: frozenset[bytes]) -> None:
        self._tree = tree
        self._critical = critical

    def lines(self, span: Span, depth: int) -> Iterator[Line]:
        """Yield the line of a span and those below it."""
        yield self._line(span, depth)
        below = self._tree.children(span)
        if span.kind != TASK:
            yield from self._below(below, depth + 1)
            return
        runs = [child for child in below if child.kind == RUN]
        for run in runs:
            # A single attempt is its task run's line.
            if len(runs) > 1:
                yield from self.lines(run, depth + 1)
            else:
                yield from self._below(self._tree.children(run), depth + 1)

    def _below(self, spans: Sequence[Span], depth: int) -> Iterator[Line]:
        tasks: dict[str, list[Span]] = {}
        for span in spans:
            if span.kind in {TASK, CHUNK}:
                tasks.setdefault(span.title, []).append(span)
        shared = {
            title: members
            for title, members in tasks.items()
            if len(members) >= FOLD_FROM or any(each.kind == CHUNK for each in members)
        }
        for span in spans:
            members = shared.get(span.title, []) if span.kind in {TASK, CHUNK} else []
            if not members:
                yield from self.lines(span, depth)
            elif members[0] is span:
                yield self._shared(members, depth)
                for each in self._told(members):
                    yield from self.lines(each, depth + 1)

    def _told(self, members: Sequence[Span]) -> list[Span]:
        """Return which of those that share a line have lines of their own."""
        tasks = [each for each in members if each.kind == TASK]
        eventful = [each for each in tasks if each.failed or self._runs(each) > 1]
        critical = [each for each in tasks if each.id in self._critical]
        chosen = {each.id for each in (*eventful[:MOST_TOLD], *critical[-MOST_TOLD:])}
        return [each for each in tasks if each.id in chosen]

    def _runs(self, span: Span) -> int:
        return sum(child.kind == RUN for child in self._tree.children(span))

    def _line(self, span: Span, depth: int) -> Line:
        attributes = span.attributes
        label = str(attributes.get("raysched.task.key", span.title))
        if span.kind == RUN:
            label = f"attempt {attributes.get('raysched.attempt.number', '')}".strip()
        error = str(attributes.get("error.type", "")) if span.failed else ""
        return Line(
            depth,
            label,
            tuple(self._pieces(span)),
            span.seconds,
            failed=int(span.failed),
            retried=max(self._runs(span) - 1, 0),
            is_critical=span.id in self._critical,
            remark=error.rpartition(".")[2],
        )

    def _pieces(self, span: Span) -> Iterator[Piece]:
        runs = [child for child in self._tree.children(span) if child.kind == RUN]
        if span.kind != TASK or not runs:
            yield Piece(Look.FAILED if span.failed else Look.RAN, span.start, span.end)
            return
        queued = round(float(span.attributes.get("raysched.task.queue_ms", 0)) * 1e6)
        at = span.start - queued
        for run in runs:
            if at < run.start:
                yield Piece(Look.WAITED, at, run.start)
            yield Piece(Look.FAILED if run.failed else Look.RAN, run.start, run.end)
            at = run.end

    def _shared(self, members: Sequence[Span], depth: int) -> Line:
        start, end = min(each.start for each in members), max(each.end for each in members)
        count = sum(_count(each) for each in members)
        failed = sum(_failures(each) for each in members)
        ran = [each for each in members if each.kind == CHUNK or self._runs(each)]
        return Line(
            depth,
            members[0].title,
            (Piece(Look.FAILED if failed == count else Look.RAN, start, end),),
            (end - start) / 1e9,
            count,
            failed,
            sum(max(self._runs(each) - 1, 0) for each in members),
            _percentile(ran, 0.50, "raysched.chunk.p50_seconds"),
            _percentile(ran, 0.95, "raysched.chunk.p95_seconds"),
            any(each.id in self._critical for each in members),
        )


def _count(span: Span) -> int:
    return int(span.attributes.get("raysched.chunk.count", 1)) if span.kind == CHUNK else 1


def _failures(span: Span) -> int:
    if span.kind == CHUNK:
        return int(span.attributes.get("raysched.chunk.failed", 0))
    return int(span.failed)


def _percentile(members: Sequence[Span], fraction: float, of_chunk: str) -> float | None:
    """Return a percentile (nearest rank) of how long task runs took (seconds), None of none.

    Of what chunks tell of, only their percentiles are known: all of a chunk count as that.
    """
    if not members:
        return None
    weighted = sorted(
        (
            float(each.attributes.get(of_chunk, 0)) if each.kind == CHUNK else each.seconds,
            _count(each),
        )
        for each in members
    )
    ranks = list(accumulate(weight for _, weight in weighted))
    wanted = fraction * ranks[-1]
    return next(value for (value, _), rank in zip(weighted, ranks, strict=True) if rank >= wanted)
