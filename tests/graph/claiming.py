"""Flows recorded, killed and recorded again from what was kept: which call claims which task run?

An oracle that knows no digests tells what a call is: the task, its plain arguments, what the calls
are that it needs, and how often there was such a call before. Everything that the builder says of
the second recording is compared with what follows from that.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, TypeAlias

from graph.random_flows import (
    ALL_TASKS,
    PORT,
    Flow,
    Future,
    Oracle,
    Recording,
    Tree,
    members_of,
    needs_of,
    play,
    slots_of,
)
from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.graph.builder import Builder
from raysched.graph.calls import Call, MapCall, Member
from raysched.graph.group import EdgeKind, Group
from raysched.graph.recorded import Choice, Recorded
from raysched.model.options import TaskSpec
from raysched.model.records import Kept, RecordedGroup, Records
from raysched.model.states import FIRST_TERMINAL, SUCCESSES, StateType
from raysched.model.values import StoredValue, UnkeptValue

Place: TypeAlias = tuple[int, int]
"""Where a task run is kept: id of a group, and position there."""

Logical: TypeAlias = int
"""What a call is, and which of the equal ones: as a number."""

BEGUN = (
    StateType.FAILED,
    StateType.TIMED_OUT,
    StateType.CRASHED,
    StateType.CANCELLED,
    StateType.AWAITING_RETRY,
    StateType.SKIPPED,
)
UNBEGUN = (
    StateType.SCHEDULED,
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.UPSTREAM_FAILED,
    StateType.CANCELLED,
)


class Was(NamedTuple):
    """A task run that is kept: itself, what call it is, and what it is all the way up."""

    member: Member
    logical: Logical
    tree: Tree


class Calls:
    """Numbers what calls are, for all recordings of a flow."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, Logical] = {}

    def number(self, call: Hashable, occurrence: int) -> Logical:
        """Return the number of the n-th such call."""
        return self._numbers.setdefault((call, occurrence), len(self._numbers))


@dataclass(slots=True, eq=False)
class Execution(Recording):
    """One execution of a flow function, from what an earlier one has left.

    Attributes:
        calls: Numbers what calls are.
        before: The earlier execution, or None.
        records: What is kept of it, or None.
        choice: What of it answers calls, or None.
        logical: What each task run is.
        answered: Task runs that the earlier execution answers.
        counts: How often there was each call.
        recalled: For each claimed place of the earlier execution who has claimed it.
        places: What is kept when it is over.
        kept: Where each call is kept then.
    """

    calls: Calls = field(default_factory=Calls)
    before: "Execution | None" = None
    records: Records | None = None
    choice: Choice | None = None
    logical: dict[Member, Logical] = field(default_factory=dict)
    answered: set[Member] = field(default_factory=set)
    counts: Counter[Hashable] = field(default_factory=Counter)
    recalled: dict[Place, Member] = field(default_factory=dict)
    places: dict[Place, Was] = field(default_factory=dict)
    kept: dict[Logical, Place] = field(default_factory=dict)

    def call_one(
        self, task: TaskSpec, args: Sequence[Any], given: Sequence[Future], waits: Sequence[Future]
    ) -> "TaskFuture[Any]":
        """Record one call of a task, with plain arguments before the futures."""
        values = (*args, *given)
        bound = {f"p{n}": value for n, value in enumerate(values)}
        member = self.builder.add_call(Call(task, values, {}, bound, needs_of(waits)))
        self._account(member, ("call", repr(args)), task, given, waits)
        return TaskFuture(PORT, *member)

    def call(self, step: Any, given: Sequence[Future], waits: Sequence[Future] = ()) -> Future:
        """See `Recording.call`."""
        return self.call_one(step.task, step.constants, given, waits)

    def map(
        self,
        task: TaskSpec,
        column: Sequence[Any],
        given: Sequence[Future],
        waits: Sequence[Future],
    ) -> "TaskFutureList[Any]":
        """Record a map over plain elements, over those that can be changed, and over futures."""
        aligned = {}
        if isinstance(column, TaskFutureList) and len(column.parts) == 1:
            group, indices = column.parts[0]
            aligned = {"x": (group, indices.start)}
        call = MapCall(task, ("x",), [list(column)], {"y": list(given)}, aligned, needs_of(waits))
        futures: TaskFutureList[Any] = TaskFutureList(PORT, self.builder.add_map(call))
        assert len(futures) == len(column)
        for element, member in zip(column, futures.members(), strict=True):
            if isinstance(element, TaskFuture):
                self._account(member, ("map", "future"), task, [*given, element], waits)
            else:
                self._account(member, ("map", repr(element)), task, given, waits)
        return futures

    def _account(
        self,
        member: Member,
        kind: Hashable,
        task: TaskSpec,
        given: Sequence[Future],
        waits: Sequence[Future],
    ) -> None:
        assert member not in self.trees, "recorded twice"
        shape = tuple(len(one) if isinstance(one, TaskFutureList) else None for one in given)
        inputs = list(members_of(given))
        constants = (hash(kind),)
        self.trees[member] = self.oracle.tree(
            task, constants, shape, [self.trees[one] for one in inputs]
        )
        call = ALL_TASKS.index(task), kind, shape, tuple(self.logical[one] for one in inputs)
        self.logical[member] = self.calls.number(call, self.counts[call])
        self.counts[call] += 1
        self.inputs[member] = inputs
        self.needs[member] = [*inputs, *members_of(waits)]
        assert slots_of(*member) == list(dict.fromkeys(inputs)), "edges to other task runs"
        assert _waited_for(*member) == set(members_of(waits)), "waits for other task runs"
        self._look_at_claim(member, task)

    def _look_at_claim(self, member: Member, task: TaskSpec) -> None:
        """Compare what a call has claimed with what it should have claimed."""
        group, index = member
        if self.before is None:
            assert group.recorded is None
            return
        assert self.choice is not None
        expected = self.before.kept.get(self.logical[member])
        place = (group.recorded.id, group.positions[index]) if group.recorded else None
        assert place == expected, "claimed by another call"
        if place is None:
            assert not group.is_answered(index)
            return
        assert place not in self.recalled, "one task run claimed twice"
        self.recalled[place] = member
        was = self.before.places[place]
        assert was.tree == self.trees[member], "answered by another call"
        self.claimed.append(was.member)
        may = self._may_answer(place, task)
        ready = all(need in self.answered or need[0].spec.setup for need in self.needs[member])
        assert group.is_answered(index) == (may and ready), (group.key(index), may, ready)
        assert group.continues == self.choice.same
        if group.is_answered(index):
            self.answered.add(member)
            self.completed.add(member)

    def _may_answer(self, place: Place, task: TaskSpec) -> bool:
        assert self.records is not None
        assert self.choice is not None
        recorded = next(one for one in self.records.groups if one.id == place[0])
        key = f"{task.name}[{recorded.first + place[1]}]"
        changed = recorded.source != self.choice.source_of(task)
        return (
            recorded.states[place[1]] in SUCCESSES
            and place[1] not in recorded.rolled_back
            and not (task.setup or task.teardown)
            and not {task.name, key} & self.choice.again
            and not (changed and self.choice.rerun_changed)
        )


def _waited_for(group: Group, index: int) -> set[Member]:
    return {
        (edge.parent, member)
        for edge in group.edges_of(index)
        if edge.kind is EdgeKind.AFTER
        for member in range(edge.index, edge.stop)
    }


def begin(oracle: Oracle, calls: Calls) -> Execution:
    """Return the first execution of a flow function."""
    return Execution(Builder("run"), oracle, calls=calls)


def go_on(before: Execution, records: Records, choice: Choice) -> Execution:
    """Return an execution that goes on from what is kept of an earlier one."""
    run = "run" if choice.same else "another"
    builder = Builder(run, recorded=Recorded(records, choice))
    return Execution(
        builder, before.oracle, calls=before.calls, before=before, records=records, choice=choice
    )


def kill(execution: Execution, random: Random) -> Records:
    """Return what the store has of an execution that has come to a sudden end.

    Groups that were recorded last may not have been written, unless something of them completed.
    """
    execution.builder.take()
    groups = sorted({group for group, _ in execution.trees}, key=lambda group: group.id)
    while groups and random.random() < 0.3 and not _is_kept(execution, groups[-1]):
        groups.pop()
    kept: dict[int, RecordedGroup] = {}
    if execution.records is not None and execution.records.run == 1 and _is_same(execution):
        kept = {group.id: group for group in execution.records.groups}
    execution.places = dict(execution.before.places) if kept and execution.before else {}
    for group in groups:
        for index in range(group.size):
            if (group, index) not in execution.trees:
                continue
            number, position = group.place(index)
            recorded = kept.get(number) or kept.setdefault(number, empty(group))
            _fill(recorded, position, execution, (group, index), random)
            member = group, index
            was = Was(member, execution.logical[member], execution.trees[member])
            execution.places[number, position] = was
    execution.kept = {was.logical: place for place, was in execution.places.items()}
    numbers = sorted(kept)
    records = Records(1, [kept[number] for number in numbers])
    records.next_group = max(numbers, default=-1) + 1
    for recorded in records.groups:
        stop = recorded.first + recorded.size
        records.next_index[recorded.task] = max(stop, records.next_index.get(recorded.task, 0))
    return records


def _is_same(execution: Execution) -> bool:
    return execution.choice is not None and execution.choice.same


def _is_kept(execution: Execution, group: Group) -> bool:
    ended = execution.completed | execution.failed
    return group.continues or any((group, index) in ended for index in range(group.size))


def empty(group: Group) -> RecordedGroup:
    """Return the rows of a group of which nothing has begun."""
    size = group.size
    return RecordedGroup(
        group.id,
        group.spec.name,
        group.first,
        size,
        group.mapped,
        bytes(group.identities),
        "old",
        bytearray(size),
        [0] * size,
        [0] * size,
        [0] * size,
        bytearray(size),
        [0] * size,
    )


def _fill(
    recorded: RecordedGroup, position: int, execution: Execution, member: Member, random: Random
) -> None:
    """Put into a row what has become of a task run, or something that may have."""
    group, index = member
    attempts: Any = recorded.attempts
    if group.is_answered(index):
        return
    if member in execution.completed or random.random() < 0.05:
        state = StateType.CACHED if random.random() < 0.1 else StateType.COMPLETED
    elif member in execution.failed:
        state = random.choice(BEGUN)
    else:
        state = random.choice(UNBEGUN)
    begun = state in SUCCESSES or state in BEGUN
    attempts[position] += random.randint(1, 3) if begun else 0
    recorded.states[position] = state
    recorded.kept[position] = random.choice(list(Kept)) if state in SUCCESSES else Kept.NOTHING
    if recorded.kept[position] == Kept.STORED:
        recorded.locations[position] = f"file:///there#{position}+1:00"
    if state in SUCCESSES and random.random() < 0.05:
        recorded.rolled_back |= {position}
    else:
        recorded.rolled_back -= {position}


def look_at_columns(execution: Execution) -> None:
    """Compare keys, attempts, states and values of a whole recording with what was kept."""
    assert execution.records is not None
    assert execution.choice is not None
    by_id = {recorded.id: recorded for recorded in execution.records.groups}
    keys = [group.key(index) for group, index in execution.trees]
    assert len(set(keys)) == len(keys), sorted(key for key in keys if keys.count(key) > 1)
    old_keys = {
        f"{recorded.task}[{recorded.first + n}]"
        for recorded in by_id.values()
        for n in range(recorded.size)
    }
    for member in execution.trees:
        group, index = member
        recorded = group.recorded
        if recorded is None:
            assert not (execution.choice.same and group.key(index) in old_keys)
            assert not group.attempts[index]
            continue
        position = group.positions[index]
        if execution.choice.same:
            assert group.key(index) == f"{recorded.task}[{recorded.first + position}]"
            assert group.attempts[index] == group.spent(index) == recorded.attempts[position]
            assert group.place(index) == (recorded.id, position)
        else:
            assert group.attempts[index] == group.spent(index) == 0
            assert group.place(index) == (group.id, index)
        _look_at_value(member, recorded, position, same=execution.choice.same)


def _look_at_value(member: Member, recorded: RecordedGroup, position: int, *, same: bool) -> None:
    group, index = member
    state, value = group.states[index], group.values[index]
    if not group.is_answered(index):
        assert state == StateType.SCHEDULED
        assert value is None
        return
    assert state >= FIRST_TERMINAL
    assert state == (recorded.states[position] if same else StateType.CACHED)
    match recorded.kept[position]:
        case Kept.NOTHING:
            assert isinstance(value, UnkeptValue)
        case Kept.STORED:
            assert value == StoredValue(recorded.locations[position], recorded.sizes[position])
        case _:
            assert value is None


def random_choice(random: Random, records: Records, *, same: bool) -> Choice:
    """Make up what of the records answers calls."""
    again: set[str] = set()
    if not same:
        for group in records.groups:
            if random.random() < 0.1:
                again.add(f"{group.task}[{group.first + random.randrange(group.size)}]")
            if random.random() < 0.03:
                again.add(group.task)
    changed = {group.task for group in records.groups if random.random() < 0.1}
    return Choice(
        same,
        lambda spec: "new" if spec.name in changed else "old",
        rerun_changed=random.random() < 0.3,
        again=frozenset(again),
    )


def execute_again(flow: Flow, random: Random, times: int, *, same: bool) -> list[Execution]:
    """Execute a flow, kill it at some point and go on, several times; at last to its end."""
    executions = [begin(Oracle(), Calls())]
    play(flow, executions[0], random, random.randrange(80))
    for left in reversed(range(times)):
        records = kill(executions[-1], random)
        choice = random_choice(random, records, same=same)
        executions.append(go_on(executions[-1], records, choice))
        play(flow, executions[-1], random, random.randrange(80) if left else None)
        executions[-1].builder.take()
        look_at_columns(executions[-1])
    return executions
