"""Task runs that are told as soon as they have ended, before the whole trace is known.

Which ones, rests on the row of their group: what is told early is what would be told in the end.
"""

from collections.abc import Iterator, Sequence

from raysched.model.states import FIRST_TERMINAL
from raysched.telemetry.building.bulk import group_spans
from raysched.telemetry.building.folding import HEAD
from raysched.telemetry.building.members import Members, OpenRun
from raysched.telemetry.building.needs import Needs
from raysched.telemetry.building.parts import KEPT, Part, top_of

SHARE = 2
"""One in so many of the spans that a trace may have are told early at most; the others are left for
what comes later. So a flow run of a few small groups is seen while it goes on."""


class Early:
    """Tells task runs of a flow run early.

    Args:
        run: The flow run.
        max_spans: So many spans of a trace are told one by one, 0 for all.
    """

    def __init__(self, run: OpenRun, max_spans: int) -> None:
        self._run = run
        self._is_inside_task = _is_inside_task(run)
        # A task run that goes well has two spans.
        self._groups = max_spans // (SHARE * 2 * HEAD)
        self._all = not max_spans
        self._parts: dict[int, EarlyPart] = {}
        self._needs: dict[tuple[int, int], Needs] = {}

    def has(self, members: Members) -> bool:
        """Whether the task runs of a group are told early.

        Those called in a task are not: they are told within the time of what is around them.
        """
        if members.row.parent_key or self._is_inside_task:
            return False
        return self._all or (
            self._run.parent is None and members.row.id < self._groups and members.row.size <= HEAD
        )

    def ended(
        self, members: Members, indices: Sequence[int]
    ) -> Iterator[tuple["EarlyPart", Sequence[int]]]:
        """Yield those of these members that have ended and are not told, by execution.

        Without those of which several executions have something.
        """
        states, told = members.states, members.told
        fresh: Sequence[int] = indices
        part = slice(indices[0], indices[-1] + 1) if indices else slice(0)
        whole = isinstance(indices, range) and min(states[part], default=0) >= FIRST_TERMINAL
        if not whole or any(told[part]):
            fresh = sorted(i for i in indices if states[i] >= FIRST_TERMINAL and not told[i])
        if len(self._run.executions) == 1:
            yield self._part(1), fresh
            return
        by_number: dict[int, list[int]] = {}
        for index in fresh:
            numbers = [number for number, _ in self._run.task_runs(members, index)]
            if len(numbers) == 1:
                by_number.setdefault(numbers[0], []).append(index)
        for number, positions in by_number.items():
            yield self._part(number), positions

    def tell(self, part: "EarlyPart", members: Members, positions: Sequence[int]) -> list[bytes]:
        """Return the spans of members, and note that they are told.

        Without those that may be linked to what is not decided yet.
        """
        at = part.number, members.row.id
        needs = self._needs.get(at)
        if needs is None:
            needs = Needs(part, members)
            if not all(part.is_certain(*place) for place in needs.of_all()):
                return []
            if members.row.size > 1:
                self._needs[at] = needs
        ready = positions
        if not self._are_ready(needs, positions):
            ready = [position for position in positions if self._is_ready(needs, position)]
        if isinstance(ready, range):
            members.told[ready.start : ready.stop] = b"\x01" * len(ready)
        else:
            for position in ready:
                members.told[position] = 1
        return group_spans(needs, ready)

    def _part(self, number: int) -> "EarlyPart":
        part = self._parts.get(number)
        if part is None:
            part = self._parts[number] = EarlyPart(self._run, number, top_of(self._run, number))
            part.early = self
        return part

    def _are_ready(self, needs: Needs, positions: Sequence[int]) -> bool:
        """Whether it is plain of all of these members, without a look at each."""
        if not positions or needs.members.roots:
            return not positions
        first, last = positions[0], positions[-1]
        return all(
            needs.part.are_kept(parent, range(first + edge.index, last + 1 + edge.index))
            for parent, edge in needs.single
        )

    def _is_ready(self, needs: Needs, position: int) -> bool:
        """Whether it is certain what becomes of all that a member is linked to."""
        part, members = needs.part, needs.members
        assert isinstance(part, EarlyPart)  # noqa: S101 - made by `tell`
        roots = [part.run.member(key) for key in members.roots.get(position, ())]
        return all(part.is_certain(*place) for place in needs.of_one(position)) and all(
            place is not None and part.is_certain(*place) for place in roots
        )


class EarlyPart(Part):
    """A part of a trace that is not known yet."""

    early: Early

    def is_certain(self, members: Members, position: int) -> bool:
        """Whether it is known what becomes of a task run."""
        if members.states[position] < FIRST_TERMINAL:
            return False
        return bool(self.fate(members, position)) or not self._is_here(members, position)

    def fate(self, members: Members, position: int) -> int:
        """See `Part.fate`: what is told early is kept, and so are failures and retries."""
        kept = self.early.has(members) or members.is_eventful(position)
        return KEPT if kept and self._is_here(members, position) else 0

    def are_kept(self, members: Members, positions: range) -> bool:
        """See `Part.are_kept`: whether that is so, and known."""
        states = members.states[positions.start : positions.stop]
        known = len(states) == len(positions) and min(states) >= FIRST_TERMINAL
        return known and len(self.run.executions) == 1 and self.early.has(members)

    def _is_here(self, members: Members, position: int) -> bool:
        alone = len(self.run.executions) == 1
        return alone or self.task_run(members, position) is not None


def _is_inside_task(run: OpenRun) -> bool:
    """Whether a flow run, or one around it, was called in a task."""
    around: OpenRun | None = run
    while around is not None:
        if around.row.parent_key:
            return True
        around = around.parent
    return False
