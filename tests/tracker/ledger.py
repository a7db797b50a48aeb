"""An engine on paper: it performs nothing, and keeps the book that the invariants look into."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from raysched.compiler import compile_segment
from raysched.graph.builder import Builder
from raysched.graph.calls import Member
from raysched.graph.group import Group
from raysched.model.options import TaskSpec
from raysched.model.states import FIRST_TERMINAL, SUCCESSES, StateType
from raysched.model.values import ErrorInfo, FailureClass, LargeValue, Value
from raysched.tracker import Run, advance
from raysched.tracker.messages import (
    AbortUnit,
    AskCapacity,
    AskRetry,
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
from tracker.evidence import CLASS_OF, LOST, failure
from tracker.expected import parents
from tracker.invariants import check

SECOND = 1_000_000_000
EPOCH = 1_700_000_000 * SECOND

Row: TypeAlias = tuple[int, bool]
"""What a reader sees of a task run: its state, and whether its failure was handled."""


@dataclass
class Ledger:
    """A run with everything that its commands have said so far.

    Attributes:
        run: The run.
        builder: Its recorder.
        now: The time (ns).
        slots: Units at once, for every class; None leaves the question for capacity open.
        commands: Of the last event.
        riding: Units and positions of members that ride and have not begun.
        before: The states of all groups before the last event.
        units: Dispatched units that have not come to their end, by number.
        unanswered: Positions of those units that have not ended.
        rows: What was committed of each member.
        attempts: Rows of attempts.
        questions: Attempts about which the retry condition is being asked.
        wakes: Times at which the tracker will be woken.
        hooks: How often each hook of each member was called.
        dispatches: How often each member was dispatched.
        uncharged: How often each member was dispatched without an attempt being charged for it.
        suspects: Members whose worker died under several.
        aborted: Units that were told to stop, with the last word on force.
        stopped: Positions of units that were told to stop.
        asked: Classes whose capacity was asked for, one entry a question.
    """

    run: Run = field(default_factory=lambda: Run("run"))
    builder: Builder = field(default_factory=lambda: Builder("run"))
    now: int = EPOCH
    slots: int | None = 2
    commands: Sequence[Command] = ()
    before: dict[Group, bytes] = field(default_factory=dict)
    riding: set[tuple[int, int]] = field(default_factory=set)
    units: dict[int, Dispatch] = field(default_factory=dict)
    unanswered: dict[int, set[int]] = field(default_factory=dict)
    rows: dict[Member, Row] = field(default_factory=dict)
    attempts: list[RecordAttempt] = field(default_factory=list)
    questions: dict[tuple[Group, int, int], AskRetry] = field(default_factory=dict)
    wakes: list[int] = field(default_factory=list)
    hooks: Counter[tuple[Group, int, str]] = field(default_factory=Counter)
    dispatches: Counter[Member] = field(default_factory=Counter)
    uncharged: Counter[Member] = field(default_factory=Counter)
    suspects: set[Member] = field(default_factory=set)
    aborted: dict[int, bool] = field(default_factory=dict)
    stopped: dict[int, set[int]] = field(default_factory=dict)
    asked: list[AskCapacity] = field(default_factory=list)

    @property
    def groups(self) -> list[Group]:
        """All groups of the run."""
        return [node.group for node in self.run.nodes.values()]

    @property
    def members(self) -> list[Member]:
        """All task runs of the run."""
        return [(group, index) for group in self.groups for index in range(group.size)]

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
        if self.slots is not None:
            for command in commands:
                if isinstance(command, AskCapacity):
                    self.tell(CapacityKnown(command.scheduling_class, self.slots))
        return commands

    def plan(self, unit_size: int | None = None, max_parallel: int | None = None) -> None:
        """Compile what was recorded and let it join the run.

        Args:
            unit_size: Most members a unit, instead of what the compiler chose.
            max_parallel: Most runs of each task at once.
        """
        plan = compile_segment(self.builder.take())
        if unit_size is not None:
            plan = tuple(
                replace(planned, unit_size=unit_size, overlapping=True, fuse_behind=None)
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

    def runnable(self, unit: int, positions: Sequence[int]) -> list[int]:
        """Return those of these positions that a worker runs, if what it ran before completed."""
        command = self.units[unit]
        parents = self.parents_in(unit)
        running: list[int] = []
        for position in positions:
            parent = parents.get(position)
            if parent is not None and parent not in running:
                group, index = command.member(parent)
                if parent in self.unanswered[unit] or group.states[index] not in SUCCESSES:
                    continue
            running.append(position)
        return running

    def parents_in(self, unit: int) -> dict[int, int]:
        """Return for each position that rides the one that it needs."""
        command = self.units[unit]
        parents = [parent for rider in command.riders for parent in rider.parents]
        return dict(enumerate(parents, len(command.indices)))

    def states(self, part: tuple[Group, Iterable[int]]) -> list[StateType]:
        """Return the states of these members."""
        group, indices = part
        return [StateType(group.states[index]) for index in indices]

    def state(self, part: tuple[Group, Sequence[int]]) -> StateType:
        """Return the state of the first of these members."""
        return self.states(part)[0]

    def sent(self, group: Group) -> list[int]:
        """Return the members of a group that are on their way, by unit and position."""
        return [i for unit in self.units.values() if unit.group is group for i in unit.indices]

    def unit_of(self, part: tuple[Group, Sequence[int]]) -> int:
        """Return the unit in which the first of these members is on its way."""
        group, indices = part
        return next(
            number
            for number, unit in self.units.items()
            if unit.group is group and indices[0] in unit.indices
        )

    def never_begun(self, group: Group) -> set[int]:
        """Return the members that did not begin because too much of their group failed."""
        node = self.run.nodes[group.id]
        return {i for i, reason in group.reasons.items() if node.stopped and reason == node.stopped}

    @staticmethod
    def is_large(task: TaskSpec) -> bool:
        """Whether the values of a task are large."""
        return "large" in task.tags

    def large_inputs(self, unit: int) -> list[Member]:
        """Return the members whose large values a unit needs."""
        command = self.units[unit]
        return [
            member
            for position in self.unanswered[unit]
            for edge in command.member(position)[0].slots_of(command.member(position)[1])
            for member in parents(edge, command.member(position)[1])
            if isinstance(member[0].values[member[1]], LargeValue)
        ]

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
            case AskCapacity():
                self.asked.append(command)
        self.questions = {
            (group, index, attempt): question
            for (group, index, attempt), question in self.questions.items()
            if group.states[index] < FIRST_TERMINAL
        }


def row(group: Group, index: int) -> Row:
    """Return what a reader sees of a member once it is committed."""
    return group.states[index], index in group.handled
