"""The book of what a run's commands have said so far, and questions to it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from raysched.graph.builder import Builder
from raysched.graph.calls import Member
from raysched.graph.group import Group
from raysched.model.options import TaskSpec
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import (
    LargeValue,
    StoredValue,
    Value,
)
from raysched.tracker import Run
from raysched.tracker.messages import (
    AskCapacity,
    AskRetry,
    Command,
    Dispatch,
    RecordAttempt,
)
from tracker.expected import parents

SECOND = 1_000_000_000
EPOCH = 1_700_000_000 * SECOND

Row: TypeAlias = tuple[int, bool]
"""What a reader sees of a task run: its state, and whether its failure was handled."""


@dataclass
class Book:
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
        asked_cache: How often the cache was asked for each member.
        asking: Members for which it has not answered yet.
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
    asked_cache: Counter[Member] = field(default_factory=Counter)
    asking: set[Member] = field(default_factory=set)

    @property
    def groups(self) -> list[Group]:
        """All groups of the run."""
        return [node.group for node in self.run.nodes.values()]

    @property
    def members(self) -> list[Member]:
        """All task runs of the run."""
        return [(group, index) for group in self.groups for index in range(group.size)]

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
        """Return the members whose values a unit needs, and that may get lost."""
        return self.inputs(unit, LargeValue, StoredValue)

    def inputs(self, unit: int, *kinds: type[Value]) -> list[Member]:
        """Return the members whose values of these kinds a unit needs."""
        command = self.units[unit]
        found = [
            member
            for position in self.unanswered[unit]
            for edge in command.member(position)[0].slots_of(command.member(position)[1])
            for member in parents(edge, command.member(position)[1])
            if isinstance(member[0].values[member[1]], kinds)
        ]
        return list(dict.fromkeys(found))
