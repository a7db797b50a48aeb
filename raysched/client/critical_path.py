"""The critical path of a flow run: what its duration was made of.

It is read from the spans, backwards from the end. What ended last inside of the flow held up its
end; that began when it got a worker. If another task run had that worker after all that was needed
(the links) had ended, that one held it up; otherwise the last of what was needed did, which began
in its turn when …, until something needed nothing: then the flow function itself had come so far,
and what it had waited for is what ended last before that. Between them lies waiting for a worker,
waiting for the next attempt, or the flow function. So the steps are side by side and fill the time
of the flow.

Source: the critical path of Kelley and Walker, "Critical-Path Planning and Scheduling" (1959), over
what really happened, with the workers as in Goldratt's "Critical Chain" (1997). Zhang et al. read
it from traces: "CRISP: Critical Path Analysis of Large-Scale Microservice Architectures" (USENIX
ATC 2022), where the child that ended last is followed. Where they know only of time, we know of
dependencies.

Members of a map that a `chunk` span tells of are taken together: from there on a step is as coarse
as the chunk, and the chunk that began before it counts as what had the workers.
"""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from raysched.client.spans import CHUNK, FLOW, RUN, TASK, Span, Tree

_NS_PER_MS = 1_000_000

_UNKNOWN = (None, None)
"""Worker of an attempt that was lost before it had told where it ran. It may have been any."""


class Part(StrEnum):
    """What a step is made of."""

    TASK = "task"
    QUEUE = "waiting for a worker"
    RETRY = "waiting for the next attempt"
    FLOW = "the flow itself"


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the time on the critical path.

    Attributes:
        part: What it is.
        span: The task run's, chunk's, or for `FLOW` the flow's span.
        start: Its start (ns since the epoch).
        end: Its end.
    """

    part: Part
    span: Span
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Share:
    """How much of the time was spent on one thing.

    Attributes:
        name: A task, what a task waited for, or the flow itself.
        seconds: How long.
        fraction: Of the whole, from 0 to 1.
    """

    name: str
    seconds: float
    fraction: float


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """What determined when a flow run ended.

    Attributes:
        steps: In the order of time, side by side.
    """

    steps: tuple[Step, ...]

    @property
    def spans(self) -> frozenset[bytes]:
        """Ids of the spans on it."""
        return frozenset(step.span.id for step in self.steps)

    @property
    def seconds(self) -> float:
        """How long it is: as long as the flow run (seconds)."""
        return sum(step.end - step.start for step in self.steps) / 1e9

    @property
    def shares(self) -> list[Share]:
        """What share of the time was spent on which task or waiting, the largest first."""
        spent: Counter[str] = Counter()
        for step in self.steps:
            spent[_name(step)] += step.end - step.start
        total = spent.total()
        return [Share(name, ns / 1e9, ns / total) for name, ns in spent.most_common() if ns]


def critical_path(tree: Tree, flow: Span) -> CriticalPath:
    """Return the critical path of a flow run.

    Args:
        tree: The trace.
        flow: Its `flow` span.
    """
    walk = _Walk(tree)
    walk.back(flow, flow.end)
    return CriticalPath(tuple(reversed(walk.steps)))


def _name(step: Step) -> str:
    if step.part is Part.TASK:
        return step.span.title
    return step.part.value if step.part is Part.FLOW else f"{step.span.title} {step.part}"


class _Walk:
    """Goes back in time from the end of a flow."""

    def __init__(self, tree: Tree) -> None:
        self.steps: list[Step] = []
        self._tree = tree
        self._seen: set[bytes] = set()

    def back(self, flow: Span, at: int) -> None:
        """Add the steps inside of a flow from a time (ns) back to its start."""
        inside = _Inside(self._tree, flow)
        child = inside.last_ended(at, self._seen)
        while child is not None:
            at = self._add(Part.FLOW, flow, child.end, at)
            at = self._through(child, at)
            needed = self._needed(child)
            ready = max(at - _queued(child), flow.start) if needed is None else needed.end
            before = inside.had_worker(child, ready, at, self._seen) or needed
            if before is not None:
                at = self._add(Part.QUEUE, child, before.end, at)
                child = before
                continue
            at = self._add(Part.QUEUE, child, ready, at)
            child = inside.last_ended(at, self._seen)
        self._add(Part.FLOW, flow, flow.start, at)

    def _needed(self, span: Span) -> Span | None:
        """Return which of the things that it needed ended last."""
        found = (self._tree.spans.get(link) for link in span.links)
        needed = [each for each in found if each is not None and each.id not in self._seen]
        return max(needed, key=lambda each: each.end, default=None)

    def _through(self, span: Span, at: int) -> int:
        """Add what a task run, chunk or subflow did until a time; return when it began."""
        self._seen.add(span.id)
        if span.kind == FLOW:
            self.back(span, at)
            return min(at, span.start)
        runs = [child for child in self._tree.children(span) if child.kind == RUN]
        for run in reversed(runs):
            at = self._add(Part.RETRY, span, run.end, at)
            at = self._add(Part.TASK, span, run.start, at)
        # A task run without attempts took no time.
        return self._add(Part.TASK, span, span.start, at) if span.kind == CHUNK else at

    def _add(self, part: Part, span: Span, start: int, end: int) -> int:
        """Add a step, unless it is empty; return when it begins."""
        if start < end:
            self.steps.append(Step(part, span, start, end))
        return min(start, end)


class _Inside:
    """What is right below a flow, by end and by worker."""

    def __init__(self, tree: Tree, flow: Span) -> None:
        below = [child for child in tree.children(flow) if child.kind in {FLOW, TASK, CHUNK}]
        self._by_end = sorted(below, key=lambda child: child.end)
        self._ends = [child.end for child in self._by_end]
        self._chunks: dict[str, list[Span]] = {}
        self._workers: dict[bytes, object] = {}
        self._by_worker: dict[object, list[tuple[int, Span]]] = {_UNKNOWN: []}
        for child in below:
            if child.kind == CHUNK:
                self._chunks.setdefault(child.title, []).append(child)
            for run in tree.children(child):
                if run.kind == RUN:
                    worker = (run.attributes.get("host.name"), run.attributes.get("process.pid"))
                    self._workers.setdefault(child.id, worker)
                    for each in {worker, _UNKNOWN}:
                        self._by_worker.setdefault(each, []).append((run.end, child))
        for ended in self._by_worker.values():
            ended.sort(key=lambda each: each[0])

    def last_ended(self, at: int, seen: set[bytes]) -> Span | None:
        """Return what ended last until a time, and was not gone through yet."""
        for index in range(bisect_right(self._ends, at) - 1, -1, -1):
            if self._by_end[index].id not in seen:
                return self._by_end[index]
        return None

    def had_worker(self, span: Span, ready: int, at: int, seen: set[bytes]) -> Span | None:
        """Return what had the worker of a task run while that was ready, last before a time."""
        if span.kind == CHUNK:
            earlier = [c for c in self._chunks[span.title] if c.start < span.start]
            return max(
                (c for c in earlier if c.id not in seen), key=lambda c: c.start, default=None
            )
        ended = self._by_worker.get(self._workers.get(span.id), [])
        for index in range(bisect_right(ended, at, key=lambda each: each[0]) - 1, -1, -1):
            end, other = ended[index]
            if end <= ready:
                return None
            if other.id not in seen:
                return other
        return None


def _queued(span: Span) -> int:
    """Return how long a task run waited for a worker (ns)."""
    return round(float(span.attributes.get("raysched.task.queue_ms", 0)) * _NS_PER_MS)
