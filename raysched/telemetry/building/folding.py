"""Which task runs of a trace get spans of their own, and which are folded into chunks.

Decided when the whole trace is known, by nothing but its rows: whoever reads them later decides
the same. A trace of up to `max_spans` spans is told as it is. Of a larger one the largest tasks are
folded, one after the other, until the rest fits: such a task keeps all failures and retries, its
slowest and its first task runs. If even that is too much, what comes first is told, until
`max_spans` are reached. Failures, retries and what was told early (`early`, at most half of
`max_spans`) are told in any case, and so is all that is above a span.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import nsmallest
from operator import sub

from raysched.model.states import FAILED_ITSELF, StateType
from raysched.telemetry.building.members import Members
from raysched.telemetry.building.parts import FOLDED, KEPT, Part, Place

HEAD = 50
"""So many first task runs of a folded task are told one by one."""

SLOWEST = 10
"""So many slowest ones, too."""

CHUNKS = 20
"""About so many chunks tell of the others."""


@dataclass(eq=False)
class _Task:
    """The task runs of one name in a part."""

    part: Part
    name: str
    groups: list[Members] = field(default_factory=list)
    count: int = 0
    spans: int = 0

    @cached_property
    def block(self) -> int:
        """How many of them one chunk stands for at most."""
        last = max(members.row.first + members.row.size for members in self.groups)
        return max(HEAD, -(-last // CHUNKS))

    @cached_property
    def chunks(self) -> int:
        """How many chunks there may be."""
        block = self.block
        blocks: set[int] = set()
        for members in self.groups:
            first, size = members.row.first, members.row.size
            blocks.update(range(first // block, (first + size - 1) // block + 1))
        return len(blocks)

    def slowest(self) -> list[Place]:
        """Return the task runs that took longest, the first ones of equal ones."""
        candidates = [
            (-took, members.row.first + position, members, position)
            for members in self.groups
            for took, position in _slowest_of(self.part, members)
        ]
        candidates.sort(key=lambda each: each[:2])
        return [(members, position) for *_, members, position in candidates[:SLOWEST]]

    def first(self) -> Iterable[Place]:
        """Yield the task runs that were called first."""
        for members in self.groups:
            for position in self.part.present(members):
                if members.row.first + position >= HEAD:
                    break
                yield members, position

    def all(self) -> Iterable[Place]:
        """Yield all task runs, in order."""
        for members in self.groups:
            for position in self.part.present(members):
                yield members, position


class Selection:
    """Decides what becomes of the task runs of a trace; the answer is in its parts.

    Args:
        parts: All parts of the trace, the root first.
        max_spans: How many spans it may have, 0 for as many as there are.
        is_early: Whether the task runs of a group of a part are told early, and so in any case.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        max_spans: int,
        is_early: Callable[[Part, Members], bool],
    ) -> None:
        self._is_early = is_early
        self._parts = parts
        self._max = max_spans
        self._left = max_spans
        self._tasks = [task for part in parts for task in _tasks_of(part)]

    def select(self) -> None:
        """Fill the parts' `fates`, `blocks`, `kept` and `suppressed`."""
        total = len(self._parts) + sum(task.spans for task in self._tasks)
        if not self._max or total <= self._max:
            self._keep_everything()
            return
        self._keep_part(self._parts[0], must=True)
        for task in self._tasks:
            for members in task.groups:
                self._keep_eventful(task.part, members)
        for part in self._parts:
            self._keep_part(part)
        folded = self._fold(total - self._max)
        self._keep_places([(task, place) for task in folded for place in task.slowest()])
        for task in self._tasks:
            places = task.first() if task in folded else task.all()
            self._keep_places((task, place) for place in places)
        for task in self._tasks:
            self._account(task, folded=task in folded)
        for part in self._parts:
            part.suppressed += not part.kept

    def _keep_everything(self) -> None:
        for part in self._parts:
            part.kept = True
        for task in self._tasks:
            for members in task.groups:
                present = task.part.present(members)
                if isinstance(present, range):
                    task.part.fates[members.row.id] = bytearray((KEPT,)) * len(present)
                    continue
                fates = _fates(task.part, members)
                for position in present:
                    fates[position] = KEPT

    def _keep_eventful(self, part: Part, members: Members) -> None:
        """Keep failures, retries, and what may have been told before the trace was known."""
        must = {i for i in members.attempts if part.task_run(members, i) is not None}
        for state in FAILED_ITSELF:
            at = members.states.find(state)
            while at >= 0:
                must.add(at)
                at = members.states.find(state, at + 1)
        if self._is_early(part, members):
            must.update(part.present(members))
        for position in sorted(must):
            if part.task_run(members, position) is not None:
                self._keep(part, members, position, must=True)

    def _fold(self, excess: int) -> dict[_Task, None]:
        """Fold the largest tasks until the rest fits; return them."""
        folded: dict[_Task, None] = {}
        for task in sorted(self._tasks, key=lambda task: -task.spans):
            if excess <= 0 or task.count <= HEAD + SLOWEST + task.chunks:
                break
            if not task.part.kept or task.chunks > self._left:
                continue
            self._left -= task.chunks
            task.part.blocks[task.name] = task.block
            folded[task] = None
            excess -= task.spans - task.chunks - 2 * (HEAD + SLOWEST)
        return folded

    def _keep_places(self, places: Iterable[tuple[_Task, Place]]) -> None:
        for task, (members, position) in places:
            if self._left <= 0:
                return
            self._keep(task.part, members, position)

    def _keep_part(self, part: Part, *, must: bool = False) -> bool:
        """Keep a `flow` span and all that is above it; return whether it is kept."""
        if part.kept:
            return True
        return self._keep_chain(_chain(part, None), must=must)

    def _keep(self, part: Part, members: Members, position: int, *, must: bool = False) -> bool:
        if part.fate(members, position) == KEPT:
            return True
        return self._keep_chain(_chain(part, (members, position)), must=must)

    def _keep_chain(self, chain: list[tuple[Part, Place | None]], *, must: bool) -> bool:
        cost = sum(_cost(part, place) for part, place in chain)
        if cost > self._left and not must:
            return False
        self._left -= cost
        for part, place in chain:
            if place is None:
                part.kept = True
            else:
                members, position = place
                _fates(part, members)[position] = KEPT
        return True

    def _account(self, task: _Task, *, folded: bool) -> None:
        """Note for the task runs that are not kept what becomes of them."""
        part = task.part
        for members in task.groups:
            fates, present = _fates(part, members), part.present(members)
            if folded and isinstance(present, range):
                fates[:] = fates.replace(bytes(1), bytes((FOLDED,)))
                continue
            for position in present:
                if fates[position] == KEPT:
                    continue
                if folded:
                    fates[position] = FOLDED
                else:
                    part.suppressed += _cost(part, (members, position))


def _chain(part: Part, place: Place | None) -> list[tuple[Part, Place | None]]:
    """Return a span, and those above it that are not kept yet; None is a `flow` span."""
    chain: list[tuple[Part, Place | None]] = []
    while True:
        kept = part.kept if place is None else part.fate(*place) == KEPT
        if kept:
            return chain
        chain.append((part, place))
        if place is not None:
            place = part.place(place[0].row.parent_key)
        elif part.parent is None:
            return chain
        else:
            part, place = part.parent, part.around


def _cost(part: Part, place: Place | None) -> int:
    if place is None:
        return 1
    task_run = part.task_run(*place)
    return task_run.spans if task_run is not None else 0


def _fates(part: Part, members: Members) -> bytearray:
    return part.fates.setdefault(members.row.id, bytearray(members.row.size))


def _tasks_of(part: Part) -> list[_Task]:
    tasks: dict[str, _Task] = {}
    for members in part.groups:
        task = tasks.setdefault(members.row.task, _Task(part, members.row.task))
        count, spans = _census(part, members)
        if count:
            task.groups.append(members)
            task.count += count
            task.spans += spans
    for task in tasks.values():
        task.groups.sort(key=lambda members: members.row.first)
    return [task for task in tasks.values() if task.groups]


def _census(part: Part, members: Members) -> tuple[int, int]:
    """Return how many task runs of a group this part has, and how many spans they are."""
    present = part.present(members)
    if not isinstance(present, range):
        return len(present), sum(_cost(part, (members, position)) for position in present)
    # A span each, and one for the attempt of those that had one.
    if min(members.numbers) and min(members.started) and StateType.CACHED not in members.states:
        spans = 2 * len(present)
    else:
        columns = zip(members.states, members.numbers, members.started, strict=True)
        spans = len(present) + sum(
            1 for state, number, at in columns if number and at and state != StateType.CACHED
        )
    for position in members.attempts:
        ran = members.numbers[position] and members.started[position]
        cached = members.states[position] == StateType.CACHED
        spans += _cost(part, (members, position)) - (2 if ran and not cached else 1)
    return len(present), spans


def _slowest_of(part: Part, members: Members) -> list[tuple[int, int]]:
    """Return the members that took longest, as `(ns, position)`."""
    if isinstance(part.present(members), range) and min(members.started):
        took = [-each for each in map(sub, members.ended, members.started)]
    else:
        took = [0] * members.row.size
        for position in part.present(members):
            task_run = part.task_run(members, position)
            if task_run is not None:
                took[position] = task_run.start - task_run.end
    return [
        (-took[i], i) for i in nsmallest(SLOWEST, range(len(took)), key=took.__getitem__) if took[i]
    ]
