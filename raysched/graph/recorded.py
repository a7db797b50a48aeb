"""What an earlier execution of a flow has left: each equal call claims its task run there."""

from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from raysched.errors import NotResumable
from raysched.graph.calls import Member, Part
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.ids import some_of, split_identities, task_run_key
from raysched.model.options import TaskSpec
from raysched.model.records import Kept, RecordedGroup, Records
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import StoredValue, UnkeptValue

NAMED = 3
"""How many task runs a message names."""

END_UNKNOWN = frozenset({StateType.CRASHED, StateType.TIMED_OUT, StateType.CANCELLED})
"""States of ended task runs of which nobody knows what they have done: they were stopped, or died.

Of one that FAILED its code tells, and who mends that may have it called with other inputs.
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """What of the recorded task runs answers equal calls.

    Attributes:
        same: Whether the flow run itself goes on: then also task runs that have not completed go
            on, under their keys. Otherwise a new one reuses results.
        source_of: Returns what the code of a task is now, as `RecordedGroup.source`.
        rerun_changed: Whether to run again what completed with other code.
        again: Names of tasks, and keys of task runs, that run again whatever became of them.
        confirmed: Whether task runs that must not run twice may run again.
    """

    same: bool
    source_of: Callable[[TaskSpec], str]
    rerun_changed: bool = False
    again: frozenset[str] = frozenset()
    confirmed: bool = False


class Recorded:
    """Recorded task runs that wait for equal calls. Threads have to take turns.

    Args:
        records: What there is.
        choice: What of it answers calls.

    Attributes:
        changed: How many reused results of each task were made by code that has changed since.
        reused: Number of task runs that answered calls.
        undoing: Names of tasks that undo what was called: they run only if the flow run fails.
    """

    def __init__(self, records: Records, choice: Choice) -> None:
        self.records = records
        self.choice = choice
        self.changed: dict[str, int] = {}
        self.reused = 0
        self.undoing: set[str] = set()
        self._claimed = {group.id: bytearray(group.size) for group in records.groups}
        self._entered = {group.id: bytearray(group.size) for group in records.groups}
        self._refused: dict[str, tuple[str, StateType]] = {}
        self._by_task: dict[str, list[RecordedGroup]] = defaultdict(list)
        for group in records.groups:
            if group.identities:
                self._by_task[group.task].append(group)
        self._places: dict[str, dict[bytes, list[tuple[RecordedGroup, int]]]] = {}
        self._delivered: dict[tuple[int, int], deque[int]] = defaultdict(deque)
        for number, place in enumerate(records.deliveries):
            self._delivered[place].append(number)

    def knows(self, task: str) -> bool:
        """Whether there are task runs of this task."""
        return task in self._by_task

    def claim_group(self, task: str, identities: bytes | bytearray) -> RecordedGroup | None:
        """Claim a group with just these members, in this order, if there is one.

        Not one with members that were tried again elsewhere: they may have completed there.
        """
        for group in self._by_task.get(task, ()):
            claimed = self._claimed[group.id]
            if group.identities == identities and not (any(claimed) or self._has_doubles(group)):
                claimed[:] = b"\1" * group.size
                return group
        return None

    def claim(self, task: str, identity: bytes) -> tuple[RecordedGroup, int] | None:
        """Claim one task run, if there is one: of several a completed one, else the last.

        Raises:
            NotResumable: One of this task was refused before, and this may be that call, made
                again: nothing of the task begins any more.
        """
        places = self._index(task).get(identity)
        while places:
            group, index = places.pop()
            if not self._claimed[group.id][index]:
                self._claimed[group.id][index] = 1
                return group, index
        if task in self._refused:
            raise may_have_run([self._refused[task]])
        return None

    def answers(self, spec: TaskSpec, group: RecordedGroup, positions: Sequence[int]) -> bytearray:
        """Return for each of these recorded task runs whether it may answer a call, 0 or 1.

        Whether those that it needs are answered, too, is not asked here: see `answer_with_parents`.
        """
        choice = self.choice
        changed = bool(group.source) and group.source != choice.source_of(spec)
        if (
            spec.setup
            or spec.teardown
            or spec.name in choice.again
            or (changed and choice.rerun_changed)
        ):
            return bytearray(len(positions))
        flags = bytearray(group.states[position] in SUCCESSES for position in positions)
        if group.rolled_back or choice.again:
            for n, position in enumerate(positions):
                key = task_run_key(group.task, group.first + position)
                if position in group.rolled_back or key in choice.again:
                    flags[n] = 0
        return flags

    def settle(
        self, spec: TaskSpec, group: RecordedGroup, positions: Sequence[int], flags: bytearray
    ) -> None:
        """Account for claimed task runs of which it is known now whether they answer.

        Raises:
            NotResumable: One that may have run must not run twice.
        """
        if spec.compensate is not None:
            self.undoing.add(spec.compensate.name)
        if not (spec.idempotent or self.choice.confirmed):
            for position, answers in zip(positions, flags, strict=True):
                if not answers and group.attempts[position]:
                    key = task_run_key(group.task, group.first + position)
                    self._refused[spec.name] = key, StateType(group.states[position])
                    raise may_have_run([self._refused[spec.name]])
        reused = flags.count(1)
        self.reused += reused
        if reused and group.source and group.source != self.choice.source_of(spec):
            self.changed[spec.name] = self.changed.get(spec.name, 0) + reused

    def replayed(self, parts: Sequence[Part]) -> Iterator[Member]:
        """Yield the answered ones of these members that `as_completed` gave before, in order.

        Each time that one was given counts for one time that it is yielded.
        """
        if not self._delivered:
            return
        found = {
            (group, index): numbers
            for group, indices in parts
            if group.recorded is not None
            for index in indices
            if group.answered[index]
            and (numbers := self._delivered.get((group.recorded.id, group.positions[index])))
        }
        for member, numbers in sorted(found.items(), key=lambda item: item[1][0]):
            numbers.popleft()
            yield member

    def stored_bytes(self) -> int:
        """Return the size of what the flow run has in the result storage already (bytes)."""
        if not self.choice.same:
            return 0
        groups = self.records.groups
        return sum(group.sizes[index] for group in groups for index in group.locations)

    def enter(self, group: RecordedGroup, positions: Sequence[int]) -> None:
        """Note that these go on, or answer, in this execution: what they belong to was taken."""
        entered = self._entered[group.id]
        if isinstance(positions, range):
            entered[positions.start : positions.stop] = b"\1" * len(positions)
            return
        for position in positions:
            entered[position] = 1

    def left(self) -> Iterator[tuple[RecordedGroup, list[int]]]:
        """Yield the recorded task runs that are not in this execution.

        Those that no call has claimed, and those of a call that was not recorded after all.
        """
        for group in self.records.groups:
            entered = self._entered[group.id]
            left = [index for index in range(group.size) if not entered[index]]
            if left:
                yield group, left

    def _has_doubles(self, group: RecordedGroup) -> bool:
        """Whether equal calls of what has not completed are recorded elsewhere, too.

        That is so if the flow function was begun again by its own retries.
        """
        left = [index for index, state in enumerate(group.states) if state not in SUCCESSES]
        if not left or len(self._by_task[group.task]) == 1:
            return False
        places, identities = self._index(group.task), split_identities(group.identities)
        return any(len(places[identities[index]]) > 1 for index in left)

    def _index(self, task: str) -> Mapping[bytes, list[tuple[RecordedGroup, int]]]:
        """Return the task runs of a task by identity, those that are to be claimed first last."""
        if task not in self._places:
            places: dict[bytes, list[tuple[RecordedGroup, int]]] = {}
            for group in self._by_task.get(task, ()):
                for index, identity in enumerate(split_identities(group.identities)):
                    places.setdefault(identity, []).append((group, index))
            for several in places.values():
                if len(several) > 1:
                    several.sort(key=lambda place: place[0].states[place[1]] in SUCCESSES)
            self._places[task] = places
        return self._places[task]


def may_have_run(task_runs: Sequence[tuple[str, StateType]]) -> NotResumable:
    """Return what refuses to let task runs run again that must not run twice.

    Args:
        task_runs: Keys and states of those that may have run.
    """
    named = some_of([key for key, _ in task_runs], NAMED)
    states = ", ".join(sorted({str(state) for _, state in task_runs}))
    one = len(task_runs) == 1
    told = (
        "its task is idempotent=False: look whether it has had its effect"
        if one
        else "they are declared as idempotent=False: look whether they have had their effects"
    )
    return NotResumable(
        f"{named} may have run already ({states}), and {told}; with --yes (confirmed=True) "
        f"{'it runs' if one else 'they run'} again"
    )


def answered_parents(edge: Edge, size: int) -> bytearray | bool:
    """Return whether what an edge leads to is answered: for each of `size` members, or for all.

    A setup runs again in any case, and what it has set up is as it was.
    """
    parent = edge.parent
    if parent.spec.setup:
        return True
    if not parent.answered:
        return False
    if edge.kind is EdgeKind.ONE_TO_ONE:
        return parent.answered[edge.index : edge.index + size]
    stop = edge.stop if edge.kind in {EdgeKind.GATHER, EdgeKind.AFTER} else edge.index + 1
    return all(parent.answered[edge.index : stop])


def answer_with_parents(flags: bytearray, edges: Sequence[Edge]) -> bytearray:
    """Return which members are answered, where all of them have these edges."""
    for edge in edges:
        parents = answered_parents(edge, len(flags))
        if isinstance(parents, bool):
            flags = flags if parents else bytearray(len(flags))
        else:
            flags = bytearray(map(int.__and__, flags, parents))
    return flags


def recall(group: Group, *, same: bool) -> None:
    """Fill the columns of a group, after `Group.allocate`, with what is recorded of its members."""
    recorded, positions = group.recorded, group.positions
    assert recorded is not None  # noqa: S101 - the caller has looked
    if same:
        group.attempts = array("H", (recorded.attempts[position] for position in positions))
        group.earlier = array("H", group.attempts)
    answered = group.answered
    if not any(answered):
        return
    for index, position in enumerate(positions):
        if not answered[index]:
            continue
        group.states[index] = recorded.states[position] if same else StateType.CACHED
        group.started[index] = recorded.started[position]
        group.ended[index] = recorded.ended[position]
        kept = recorded.kept[position]
        if kept == Kept.STORED:
            group.values[index] = StoredValue(
                recorded.locations[position], recorded.sizes[position]
            )
        elif kept == Kept.NOTHING:
            group.values[index] = UnkeptValue(recorded.sizes[position])
        else:
            group.values[index] = recorded.values.get(position)
