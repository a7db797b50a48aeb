"""An engine on paper: it performs nothing, and keeps the book that the invariants look into."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from raysched.compiler import compile_segment
from raysched.graph.group import Group
from raysched.model.states import FIRST_TERMINAL, SUCCESSES, StateType
from raysched.model.values import (
    ErrorInfo,
    FailureClass,
    LargeValue,
    UnkeptValue,
    Value,
)
from raysched.tracker import advance
from raysched.tracker.messages import (
    AbortUnit,
    AskCache,
    AskCapacity,
    AskRetry,
    CacheAnswered,
    CallHooks,
    CapacityKnown,
    Command,
    Dispatch,
    Event,
    InputsLost,
    Record,
    RecordAttempt,
    RetryAnswered,
    SegmentPlanned,
    TimePassed,
    UnitEnded,
    UnitHandedBack,
    UnitLost,
    UnitStarted,
    WakeAt,
)
from tracker.book import Book, Row
from tracker.evidence import CLASS_OF, LOST, failure
from tracker.invariants import check

if TYPE_CHECKING:
    from raysched.graph.calls import Member


class Ledger(Book):
    """An engine that performs nothing: it tells the tracker what happens, and checks."""

    def tell(self, event: Event) -> Sequence[Command]:
        """Let the tracker account for an event, and check the invariants; return its commands."""
        self.before = {group: bytes(group.states) for group in self.groups}
        riders = {rider: self.units[rider[0]].member(rider[1]) for rider in self.riding}
        self._note(event)
        commands = self.commands = advance(self.run, event, self.now)
        for (unit, position), (group, index) in riders.items():
            if (unit, position) in self.riding and group.states[index] >= FIRST_TERMINAL:
                # It ended with what it needed, or was cancelled, before it began.
                self.riding.discard((unit, position))
                self.uncharged[group, index] += 1
        for command in commands:
            self._perform(command)
        check(self)
        for command in commands:
            if isinstance(command, Dispatch):
                self._look_at_inputs(command)
            elif isinstance(command, AskCapacity) and self.slots is not None:
                self.tell(CapacityKnown(command.scheduling_class, self.slots))
        return commands

    def _look_at_inputs(self, command: Dispatch) -> None:
        """Send a unit back that needs values of which nothing was kept."""
        if command.unit in self.units:
            unkept = self.inputs(command.unit, UnkeptValue)
            if unkept:
                self.tell(InputsLost(command.unit, unkept))

    def plan(
        self,
        unit_size: int | None = None,
        max_parallel: int | None = None,
        answer: Callable[[Group], None] = lambda _: None,
    ) -> None:
        """Compile what was recorded and let it join the run.

        Args:
            unit_size: Most members a unit, instead of what the compiler chose.
            max_parallel: Most runs of each task at once.
            answer: Lets an earlier execution answer members of a group.
        """
        groups = self.builder.take()
        for group in groups:
            answer(group)
            done = [index for index in range(group.size) if group.is_answered(index)]
            self.rows.update(((group, index), row(group, index)) for index in done)
        plan = compile_segment(groups)
        if unit_size is not None:
            plan = tuple(
                replace(planned, unit_size=unit_size, overlapping=True, fuse_behind=None)
                if planned.group.spec.idempotent
                else replace(planned, fuse_behind=None)
                for planned in plan
            )
        if max_parallel is not None:
            plan = tuple(
                replace(planned, max_parallel=max_parallel, fuse_behind=None) for planned in plan
            )
        self.tell(SegmentPlanned(plan))

    def started(self, unit: int, positions: Sequence[int] | None = None) -> None:
        """Members of a unit, by default all, began to run."""
        if positions is None:
            positions = sorted(self.unanswered[unit])
        self.tell(UnitStarted(unit, positions, self.now))

    def ended(self, unit: int, *states: StateType, positions: Sequence[int] | None = None) -> None:
        """Members of a unit, by default the first ones, ended in these states."""
        self.tell(self.report(unit, states, positions))

    def report(
        self, unit: int, states: Sequence[StateType], positions: Sequence[int] | None = None
    ) -> UnitEnded:
        """Return the event of members of a unit that ended in these states."""
        if positions is None:
            positions = range(len(states))
        if list(positions) == list(range(positions[0], positions[-1] + 1)):
            # As reports have them, which are accounted for all at once.
            positions = range(positions[0], positions[-1] + 1)
        times = [self.now] * len(positions)
        return UnitEnded(
            unit,
            positions,
            bytes(states),
            times,
            times,
            [
                self._value(unit, position) if state in SUCCESSES else None
                for position, state in zip(positions, states, strict=True)
            ],
            {
                position: failure(state)
                for position, state in zip(positions, states, strict=True)
                if state in CLASS_OF
            },
        )

    def _value(self, unit: int, position: int) -> Value:
        group, _ = self.units[unit].member(position) if unit in self.units else (None, 0)
        large = group is not None and self.is_large(group.spec)
        return LargeValue(unit, position, 1) if large else b"value"

    def lost(self, unit: int, error: ErrorInfo = LOST) -> None:
        """The infrastructure under a unit broke."""
        self.tell(UnitLost(unit, error))

    def answer(self, question: AskRetry, *, retry: bool) -> None:
        """The retry condition said so."""
        event = RetryAnswered(question.group, question.index, question.attempt, retry)
        self.questions.pop((question.group, question.index, question.attempt), None)
        self.tell(event)

    def wake(self) -> None:
        """Let the time pass until the tracker is woken next."""
        at = min(self.wakes)
        self.now = max(self.now, at)
        self.tell(TimePassed(at))

    def wake_for_units(self) -> bool:
        """Let the time pass until there are units on their way; return whether there are."""
        while not self.units and self.wakes:
            self.wake()
        return bool(self.units)

    def run_all(self, state: StateType = StateType.COMPLETED) -> None:
        """Have every unit that is on its way end in `state`, and those that follow, at once."""
        while self.units:
            unit = min(self.units)
            positions = self.runnable(unit, sorted(self.unanswered[unit]))
            if state not in SUCCESSES:
                parents = self.parents_in(unit)
                positions = [each for each in positions if parents.get(each) not in positions]
            if positions:
                self.ended(unit, *[state] * len(positions), positions=positions)
            else:
                self.tell(UnitHandedBack(unit, sorted(self.unanswered[unit])))

    def _note(self, event: Event) -> None:
        match event:
            case UnitEnded(unit, positions, states) if unit in self.units:
                told = dict(zip(positions, states, strict=True))
                self.riding -= {
                    (unit, position) for position in told if self._began(unit, position, told)
                }
                self.unanswered[unit] -= set(positions)
                if not self.unanswered[unit]:
                    self._forget(unit)
            case UnitHandedBack(unit, positions) if unit in self.units:
                self._note_handed_back(unit, set(positions) & self.unanswered[unit])
                self.unanswered[unit] -= set(positions)
                if not self.unanswered[unit]:
                    self._forget(unit)
            case InputsLost(unit) if unit in self.units:
                members = map(self.units[unit].member, self.unanswered[unit])
                self.uncharged.update(members)
                self.riding = {rider for rider in self.riding if rider[0] != unit}
                self._forget(unit)
            case UnitLost(unit, error) if unit in self.units:
                self._note_suspects(unit, error)
                self._forget(unit)
            case CacheAnswered(group, hits, misses, _, errors):
                self.asking -= {(group, index) for index in (*hits, *misses, *errors)}
            case TimePassed(at):
                self.wakes = [wake for wake in self.wakes if wake > at]
            case _:
                pass

    def _began(self, unit: int, position: int, told: Mapping[int, int]) -> bool:
        """Whether a member of which a unit tells had what it needed there."""
        parent = self.parents_in(unit).get(position)
        if parent is None:
            return True
        group, index = self.units[unit].member(parent)
        return told.get(parent, group.states[index]) in SUCCESSES

    def _note_handed_back(self, unit: int, positions: set[int]) -> None:
        command, riders = self.units[unit], self.parents_in(unit)
        for position in positions:
            if position not in riders or (unit, position) in self.riding:
                self.uncharged[command.member(position)] += 1
        self.riding -= {(unit, position) for position in positions}

    def _note_suspects(self, unit: int, error: ErrorInfo) -> None:
        command, several = self.units[unit], len(self.unanswered[unit]) > 1
        suspects: list[Member] = []
        for position in self.unanswered[unit]:
            group, index = command.member(position)
            if group.states[index] >= FIRST_TERMINAL:
                continue
            if group.states[index] == StateType.SCHEDULED:
                self.uncharged[group, index] += 1
            else:
                suspects.append((group, index))
        self.riding = {(other, position) for other, position in self.riding if other != unit}
        if not several or error.failure_class is FailureClass.CANCELLED:
            return
        for group, index in suspects:
            stops = self.run.cancelled_by and not group.spec.teardown
            if group.states[index] != StateType.CANCELLING and not stops:
                self.uncharged[group, index] += 1
                self.suspects.add((group, index))

    def _note_aborted(self, unit: int, positions: Sequence[int] | None, *, force: bool) -> None:
        if positions is None:
            self.aborted[unit] = force
        else:
            self.stopped.setdefault(unit, set()).update(positions)

    def _note_asked(self, command: AskCapacity | AskCache) -> None:
        if isinstance(command, AskCapacity):
            self.asked.append(command)
            return
        self.asked_cache.update((command.group, index) for index in command.indices)
        self.asking.update((command.group, index) for index in command.indices)

    def _note_dispatched(self, command: Dispatch) -> None:
        unit = command.unit
        self.units[unit] = command
        riding = self.parents_in(unit)
        self.riding |= {(unit, position) for position in riding}
        self.unanswered[unit] = set(range(len(command.indices) + len(riding)))
        self.dispatches.update(command.member(position) for position in self.unanswered[unit])

    def _forget(self, unit: int) -> None:
        del self.units[unit], self.unanswered[unit]
        self.aborted.pop(unit, None)
        self.stopped.pop(unit, None)

    def _perform(self, command: Command) -> None:
        match command:
            case Record(group, indices):
                for index in indices:
                    self.rows[group, index] = row(group, index)
            case Dispatch():
                self._note_dispatched(command)
            case RecordAttempt():
                self.attempts.append(command)
            case AskRetry(group, index, attempt):
                self.questions[group, index, attempt] = command
            case WakeAt(at):
                self.wakes.append(at)
            case CallHooks(group, index, kind):
                self.hooks[group, index, kind] += 1
            case AbortUnit(unit, positions, force):
                self._note_aborted(unit, positions, force=force)
            case AskCapacity() | AskCache():
                self._note_asked(command)
        self.questions = {
            (group, index, attempt): question
            for (group, index, attempt), question in self.questions.items()
            # Of one that is given up meanwhile nobody waits for the answer.
            if index in self.run.nodes[group.id].questions
        }


def row(group: Group, index: int) -> Row:
    """Return what a reader sees of a member once it is committed."""
    return group.states[index], index in group.handled
