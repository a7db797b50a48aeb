"""Random flows with branches that race, recorded twice: what is reused, and is it right?

A flow is a prologue, some branches that race as threads or coroutines do, and an epilogue over what
they leave. A branch calls and maps tasks, follows up results in the order in which they come, and
branches on values. The second recording happens in another interleaving, with what had completed
when the first one was killed. An oracle that knows nothing of digests tells for each call what it
is: the task and its inputs, all the way up.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, TypeAlias
from zlib import crc32

from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.graph.builder import Builder
from raysched.graph.calls import Call, MapCall, Member
from raysched.graph.group import EdgeKind, Group
from raysched.graph.payload import Dependency
from raysched.model.options import TaskSpec

Tree: TypeAlias = int
"""A logical call, as a number that the oracle gives it."""

Future: TypeAlias = "TaskFuture[Any] | TaskFutureList[Any]"

PORT: Any = object()
"""The flow run of the futures: recording asks nothing of it."""


def _task(name: str, fn: Callable[..., object]) -> TaskSpec:
    return TaskSpec(name, fn=fn)


def _made(factor: int) -> Callable[[int], int]:
    def scaled(x: int) -> int:
        return x * factor

    return scaled


TASKS = tuple(_task(name, print) for name in ("load", "clean", "score", "total"))

NAMESAKES = (
    *(_task("scaled", _made(factor)) for factor in (2, 3)),
    _task("lambda", lambda x: x + 1),
    _task("lambda", lambda x: x - 1),
)
"""Different tasks of one name, as a factory of tasks or lambdas make them."""

PREPARE = TaskSpec("prepare", fn=print, setup=True)

ALL_TASKS = (*TASKS, *NAMESAKES, PREPARE)


class Oracle:
    """Tells logical calls apart by task, plain arguments and inputs, without any digest."""

    def __init__(self) -> None:
        self._trees: dict[Hashable, Tree] = {}
        self._values: list[int] = []

    def tree(
        self, task: TaskSpec, constants: Sequence[int], shape: Hashable, inputs: Sequence[Tree]
    ) -> Tree:
        """Return the number of a logical call.

        Args:
            task: The task.
            constants: Its plain arguments.
            shape: Which inputs go in as lists, and how long these are.
            inputs: The logical calls whose values go in.
        """
        position = ALL_TASKS.index(task)
        known = position, tuple(constants), shape, tuple(inputs)
        if known not in self._trees:
            self._trees[known] = len(self._trees)
            values = [self._values[tree] for tree in inputs]
            self._values.append(crc32(repr((position, constants, shape, values)).encode()) % 7)
        return self._trees[known]

    def value(self, tree: Tree) -> int:
        """Return the value of a logical call, the same in every recording."""
        return self._values[tree]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a branch.

    Attributes:
        kind: `call`, `map`, `each` (item by item over a map), `as_completed`, `if`, or `fold` (in
            the order of coming, so that the flow is not deterministic).
        task: The task.
        constants: Plain arguments; small numbers, so that equal calls happen.
        inputs: Which earlier results of the branch go in.
        waits: Which earlier results are waited for beyond that.
    """

    kind: str
    task: TaskSpec
    constants: tuple[int, ...]
    inputs: tuple[int, ...]
    waits: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Flow:
    """The prologue, the racing branches, and whether two recordings must agree."""

    prologue: tuple[Step, ...]
    branches: tuple[tuple[Step, ...], ...]
    deterministic: bool


def random_flow(random: Random) -> Flow:
    """Make up a flow."""
    deterministic = random.random() < 0.8
    kinds = ["call", "call", "call", "map", "each", "as_completed", "if"]
    if not deterministic:
        kinds.append("fold")
    prologue = tuple(_random_step(random, kinds[:4], n) for n in range(random.randint(1, 3)))
    branches = tuple(
        tuple(_random_step(random, kinds, n + len(prologue)) for n in range(random.randint(1, 6)))
        for _ in range(random.randint(1, 4))
    )
    return Flow(prologue, branches, deterministic)


def _random_step(random: Random, kinds: Sequence[str], earlier: int) -> Step:
    def some(most: int) -> tuple[int, ...]:
        number = random.randint(0, min(most, earlier))
        return tuple(random.randrange(earlier) for _ in range(number))

    return Step(
        random.choice(kinds if earlier else ["call", "map"]),
        random.choice(ALL_TASKS),
        tuple(random.randint(0, 2) for _ in range(random.randint(0, 3))),
        some(2),
        some(1) if random.random() < 0.2 else (),
    )


@dataclass(slots=True)
class Recording:
    """One attempt of a flow function.

    Attributes:
        builder: The recorder.
        oracle: Tells what each call is.
        earlier: The recording before this one, or None.
        trees: What each task run is.
        inputs: The task runs whose values each one was given.
        needs: The same with those that it waits for.
        racing: Task runs that were called in branches.
        claimed: Task runs of the earlier recording that answered calls of this one.
        completed: Task runs that have completed.
        failed: Task runs that have failed.
    """

    builder: Builder
    oracle: Oracle
    earlier: "Recording | None" = None
    trees: dict[Member, Tree] = field(default_factory=dict)
    inputs: dict[Member, list[Member]] = field(default_factory=dict)
    needs: dict[Member, list[Member]] = field(default_factory=dict)
    racing: set[Member] = field(default_factory=set)
    claimed: list[Member] = field(default_factory=list)
    completed: set[Member] = field(default_factory=set)
    failed: set[Member] = field(default_factory=set)

    def call(self, step: Step, given: Sequence[Future], waits: Sequence[Future] = ()) -> Future:
        """Record one call of `step.task`."""
        args = (*step.constants, *given)
        bound = {f"p{n}": value for n, value in enumerate(args)}
        member = self.builder.add_call(Call(step.task, args, {}, bound, needs_of(waits)))
        self._note(member, step.task, step.constants, given, waits)
        return TaskFuture(PORT, *member)

    def map(
        self,
        task: TaskSpec,
        column: Sequence[Any],
        given: Sequence[Future],
        waits: Sequence[Future],
    ) -> "TaskFutureList[Any]":
        """Record a map of a task over a column, with the other futures for all."""
        aligned = {}
        if isinstance(column, TaskFutureList) and len(column.parts) == 1:
            group, indices = column.parts[0]
            aligned = {"x": (group, indices.start)}
        columns = [list(column)]
        call = MapCall(task, ("x",), columns, {"y": list(given)}, aligned, needs_of(waits))
        futures: TaskFutureList[Any] = TaskFutureList(PORT, self.builder.add_map(call))
        for element, member in zip(column, futures.members(), strict=True):
            if isinstance(element, int):
                self._note(member, task, (element,), given, waits)
            else:
                self._note(member, task, (), [*given, element], waits)
        return futures

    def value(self, member: Member) -> int:
        """Return the value of a task run."""
        return self.oracle.value(self.trees[member])

    def run_one(self, random: Random, failing: float) -> bool:
        """Have one task run end, if one can; return whether there was one."""
        ended = self.completed | self.failed
        ready = [
            member
            for member, needs in self.needs.items()
            if member not in ended and self.completed.issuperset(needs)
        ]
        if ready:
            ends = self.failed if random.random() < failing else self.completed
            ends.add(random.choice(ready))
        return bool(ready)

    def _note(
        self,
        member: Member,
        task: TaskSpec,
        constants: tuple[int, ...],
        given: Sequence[Future],
        waits: Sequence[Future],
    ) -> None:
        shape = tuple(len(one) if isinstance(one, TaskFutureList) else None for one in given)
        inputs = list(members_of(given))
        tree = self.oracle.tree(task, constants, shape, [self.trees[one] for one in inputs])
        if self.earlier is not None and member in self.earlier.trees:
            assert member in self.earlier.completed
            assert self.earlier.trees[member] == tree, "answered by another call"
            assert self.earlier.inputs[member] == inputs, "given other task runs"
            self.claimed.append(member)
            self.completed.add(member)
        else:
            assert member not in self.trees, "recorded twice"
            # A future that goes in twice is one slot.
            assert slots_of(*member) == list(dict.fromkeys(inputs)), "edges to other task runs"
        self.trees[member] = tree
        self.inputs[member] = inputs
        self.needs[member] = [*inputs, *members_of(waits)]


def members_of(futures: Sequence[Future]) -> Iterator[Member]:
    """Yield the task runs of futures."""
    for future in futures:
        if isinstance(future, TaskFuture):
            yield future.member
        else:
            yield from future.members()


def needs_of(futures: Sequence[Future]) -> list[Dependency]:
    """Return what a call waits for."""
    found: list[Dependency] = []
    for future in futures:
        found += future.dependencies() if isinstance(future, TaskFutureList) else [future]
    return found


def slots_of(group: Group, index: int) -> list[Member]:
    """Return the task runs whose values a member is given, those of its own column last."""
    found: dict[Member, None] = {}
    column: dict[Member, None] = {}
    for edge in group.slots_of(index):
        if edge.kind is EdgeKind.ONE_TO_ONE:
            column[edge.parent, index + edge.index] = None
        else:
            found.update(((edge.parent, member), None) for member in range(edge.index, edge.stop))
    return list(found | column)


def take_steps(
    recording: Recording, steps: Sequence[Step], results: list[Future], random: Random
) -> Iterator[None]:
    """Take the steps of a branch; yield where others may go on, or where it must wait."""
    for step in steps:
        given = [results[position] for position in step.inputs]
        waits = [results[position] for position in step.waits]
        if step.kind == "map" and step.constants:
            results.append(recording.map(step.task, step.constants, given, waits))
        elif step.kind == "each" and given and isinstance(given[0], TaskFutureList):
            results.append(recording.map(step.task, given[0], given[1:], waits))
        elif step.kind in {"as_completed", "fold"} and given:
            yield from _follow_up(recording, step, given, results, random)
        elif step.kind == "if" and given:
            first = next(members_of(given))
            while first not in recording.completed:
                yield
            value = recording.value(first)
            chosen = Step("call", ALL_TASKS[value], (value,), ())
            results.append(recording.call(chosen, given, waits))
        else:
            results.append(recording.call(step, given, waits))
        yield


def _follow_up(
    recording: Recording,
    step: Step,
    given: Sequence[Future],
    results: list[Future],
    random: Random,
) -> Iterator[None]:
    """Call a task on each result when it comes; a fold also on what came before."""
    awaited = list(dict.fromkeys(members_of(given)))
    followed: dict[Member, Future] = {}
    last: list[Future] = []
    while len(followed) < len(awaited):
        came = [one for one in awaited if one in recording.completed and one not in followed]
        if came:
            member = random.choice(came)
            followed[member] = recording.call(step, [TaskFuture(PORT, *member), *last])
            last = [followed[member]] if step.kind == "fold" else []
        yield
    members = members_of([followed[member] for member in awaited])
    parts = [(group, range(index, index + 1)) for group, index in members]
    results += last or [TaskFutureList(PORT, parts)]


def play(flow: Flow, recording: Recording, random: Random, most: int | None = None) -> None:
    """Run a flow function, in an interleaving made up on the way.

    Args:
        flow: The flow.
        recording: Where its calls go.
        random: Chance.
        most: After how many moves it is killed, or None.
    """
    failing = 0.0 if most is None else 0.1
    results: list[Future] = []
    racing = [take_steps(recording, flow.prologue, results, random)]
    moves = count() if most is None else iter(range(most))
    branches = list(flow.branches)
    for _ in moves:
        if not racing:
            if not branches:
                return
            racing = [take_steps(recording, steps, list(results), random) for steps in branches]
            branches = []
        move = random.random()
        if move < 0.05:
            recording.builder.take()
        elif move < 0.5:
            recording.run_one(random, failing)
        else:
            chosen = random.choice(racing)
            before = set(recording.trees)
            if next(chosen, chosen) is chosen:
                racing.remove(chosen)
            if not branches:
                recording.racing |= recording.trees.keys() - before


def record_twice(flow: Flow, random: Random) -> tuple[Recording, Recording]:
    """Record a flow, kill it at some point, and record it again, to its end."""
    builder = Builder("run")
    first = Recording(builder, Oracle())
    play(flow, first, random, random.randrange(80))
    builder.take()
    builder.restart({group.identity(i): (group, i) for group, i in first.completed})
    second = Recording(builder, first.oracle, first)
    play(flow, second, random)
    builder.take()
    return first, second


def lost(first: Recording, second: Recording) -> tuple[set[Member], set[Member]]:
    """Return what completed in the first recording and answered no call of the second one.

    Returns:
        Those whose inputs are all of one kind, which is a mistake, and the others: where equal
        calls race, which of them is the first is chance, and so is what follows from it.
    """
    times = Counter(second.trees.values())
    twins = {
        tree for member, tree in second.trees.items() if times[tree] > 1 and member in second.racing
    }
    unclaimed = first.completed.difference(second.claimed)
    excused = {member for member in unclaimed if _stems_from(first, member, twins)}
    return unclaimed - excused, excused


def _stems_from(recording: Recording, member: Member, trees: set[Tree]) -> bool:
    above = list(recording.inputs[member])
    while above:
        one = above.pop()
        if recording.trees[one] in trees:
            return True
        above += recording.inputs[one]
    return False
