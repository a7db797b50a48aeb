"""What the tracker knows of one flow run."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from raysched.compiler.passes import scheduling_class
from raysched.compiler.plan import PlannedGroup, SchedulingClass
from raysched.errors import InternalError
from raysched.graph.calls import Member
from raysched.graph.group import Edge, Group
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo
from raysched.policies.trigger import Parents
from raysched.tracker.gates import Gates
from raysched.tracker.lanes import Lane, LaneKey, Limit, lane_key
from raysched.tracker.messages import Command, Record

Timer: TypeAlias = tuple[int, int, int, int, int]
"""When (ns), what for (`deadlines.Due`), group id, and the range of members."""

Roots: TypeAlias = tuple[tuple[Member, ...], str]
"""Root failures behind an edge, and a reason if it leads to a skipped member, else ""."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """How an attempt is being ended that did not end by itself.

    Attributes:
        state: What its task run becomes: CANCELLED or TIMED_OUT.
        reason: Why, for people.
        kind: Of a timeout, its `TimeoutKind`.
    """

    state: StateType
    reason: str
    kind: str = ""


@dataclass(slots=True, eq=False)
class Node:
    """A group with what the tracker keeps beside its columns.

    Attributes:
        planned: The group and how it is cut into units.
        waiting: Number of unmet edges of each member.
        open: Number of members that are not terminal.
        units: Number of units that were dispatched for them.
        failures: Number of members that ended without a value.
        aligned: Nodes whose member i needs this one's member i + offset, with the offset.
        gates: What waits for ranges of its members.
        crashes: Number of crashes of each member that had any.
        announced: Members whose `on_running` hooks were called, where there are such hooks.
        follower: The node whose members ride in the units of those that they need here, with the
            offset: member i needs this one's member i + offset.
        riding: Members on their way in a unit that began before what they need had ended.
        suspects: Members that run alone since a worker died under several.
        questions: Failed attempts about which `retry_condition_fn` is being asked.
        eager: What to look at when some of its members have ended, though not all that others need.
        held: Whether enough members succeeded for `Group.min_success`.
        ready_at: When each member last became ready (ns), where its time in the queue is limited.
        stopping: Members whose attempt is being ended from here, as what, and why.
        memory_kills: Number of attempts of each member that were killed for memory.
        variants: What the next attempt of a member runs with, where that is not the group's own.
        fell_back: Members whose fallback was used.
        last_failures: How the last attempt failed of open members that are tried again.
        recomputing: Completed members whose values are lost, with the members that wait for them.
        computing: Those of them that are queued or on their way.
        lacking: The lost values that members wait for: the other side of `recomputing`.
        losses: How often each value was lost.
        asking: Members of which is being asked whether there is a result in the cache.
        own_failures: Number of members that failed themselves.
        same: Failed attempts in a row with the fingerprint `last_fingerprint`.
        stopped: Why no further member begins, or "".
    """

    planned: PlannedGroup
    waiting: "array[int]" = field(default_factory=lambda: array("I"))
    open: int = 0
    units: int = 0
    failures: int = 0
    aligned: list[tuple["Node", int]] = field(default_factory=list)
    gates: Gates = field(default_factory=Gates)
    crashes: dict[int, int] = field(default_factory=dict)
    announced: set[int] = field(default_factory=set)
    follower: "tuple[Node, int] | None" = None
    riding: set[int] = field(default_factory=set)
    suspects: set[int] = field(default_factory=set)
    questions: dict[int, tuple[StateType, ErrorInfo]] = field(default_factory=dict)
    eager: list[tuple["Node", Edge, Sequence[int]]] = field(default_factory=list)
    held: bool = False
    ready_at: "array[int] | None" = None
    stopping: dict[int, Stopping] = field(default_factory=dict)
    memory_kills: dict[int, int] = field(default_factory=dict)
    variants: dict[int, TaskSpec] = field(default_factory=dict)
    fell_back: set[int] = field(default_factory=set)
    last_failures: dict[int, tuple[StateType, ErrorInfo]] = field(default_factory=dict)
    recomputing: "dict[int, set[tuple[Node, int]]]" = field(default_factory=dict)
    computing: set[int] = field(default_factory=set)
    lacking: "dict[int, set[tuple[Node, int]]]" = field(default_factory=dict)
    losses: dict[int, int] = field(default_factory=dict)
    asking: set[int] = field(default_factory=set)
    own_failures: int = 0
    same: int = 0
    last_fingerprint: str = ""
    stopped: str = ""

    @property
    def group(self) -> Group:
        """The group."""
        return self.planned.group

    def expect_nothing(self, index: int) -> None:
        """Have a member wait no longer for lost values, or for what the cache says of it."""
        self.asking.discard(index)
        for node, lost in self.lacking.pop(index, ()):
            node.recomputing[lost].discard((self, index))


@dataclass(frozen=True, slots=True)
class Part:
    """Members of one node in a unit, at adjacent positions.

    Attributes:
        node: Whose members.
        indices: Which, by position.
        first: Position of the first.
        parents: Of members that ride, the position of the member that each needs.
    """

    node: Node
    indices: Sequence[int]
    first: int = 0
    parents: Sequence[int] = ()


@dataclass(slots=True, eq=False)
class Unit:
    """A unit that was dispatched.

    Attributes:
        parts: Its members; those of the first part needed nothing more, the others ride.
        attempts: Their attempts, by position: events of other attempts are late.
        open: Positions that have not ended.
        lane: The queue that they came from.
        first: Whether all of them are first attempts.
        places: How many of the places that `max_parallel` limits it takes: one for each member
            that may run at this moment.
        began: When its first member began (ns), 0 before.
        ended: When its last member so far ended (ns), 0 before.
        count: How many of its members have ended in it.
    """

    parts: tuple[Part, ...]
    attempts: Sequence[int]
    open: set[int]
    lane: Lane
    first: bool = False
    places: int = 0
    began: int = 0
    ended: int = 0
    count: int = 0

    @property
    def node(self) -> Node:
        """Whose pace it follows, and in whose lane it is."""
        return self.parts[0].node

    def member(self, position: int) -> tuple[Node, int]:
        """Return the member at a position."""
        for part in reversed(self.parts):
            if position >= part.first:
                return part.node, part.indices[position - part.first]
        raise InternalError(f"a unit of {self.node.group.spec.name} has no position {position}")


@dataclass(slots=True, eq=False)
class Pace:
    """What units of one task have taught.

    Attributes:
        mean_ns: Moving average of what a task run takes its worker (ns), 0 before the first one.
        last: Members of the last unit that came back, 0 before.
        large: Whether it returns values that are too large for a report.
    """

    mean_ns: float = 0.0
    last: int = 0
    large: bool = False


@dataclass(slots=True, eq=False)
class Run:
    """Everything that the tracker knows of one flow run.

    Attributes:
        id: Flow run id.
        max_parallel: Most task runs at once, or None.
        nodes: Nodes by group id.
        lanes: Queues by scheduling class, and task where that has a limit of its own.
        paces: What is known of the duration of task runs, by task and options.
        unit_size: Members that every unit carries, where there are as many; 0 lets it adapt.
        units: Dispatched units by number.
        timers: Heap of what is due: retries, and limits of time.
        wakes: Heap of the times (ns) that were asked for with `WakeAt` and have not come.
        running: Number of dispatched task runs that may be running.
        open: Number of task runs that are not terminal.
        cancelled_by: Who cancelled the run, or "".
        aborted: Whether that ends also what runs.
        late: Number of events that came too late to count.
        roots_of_edges: What has been found behind edges that lead to many members.
        limits: How many task runs of tasks with `max_parallel` run.
        undoes: What task runs undo that compensate for others.
        variants: What attempts run with that is not what their group runs with, each once.
        max_same_failures: How often a group may fail in a row in the same way, 0 for any number;
            for tasks that do not say it themselves.
        tallies: How the members have ended that such edges lead to, once all of them have.
    """

    id: str
    max_parallel: int | None = None
    nodes: dict[int, Node] = field(default_factory=dict)
    lanes: dict[LaneKey, Lane] = field(default_factory=dict)
    paces: dict[TaskSpec, Pace] = field(default_factory=dict)
    unit_size: int = 0
    units: dict[int, Unit] = field(default_factory=dict)
    timers: list[Timer] = field(default_factory=list)
    undoes: dict[Member, Member] = field(default_factory=dict)
    variants: dict[tuple[TaskSpec, str], TaskSpec] = field(default_factory=dict)
    max_same_failures: int = 0
    limits: dict[TaskSpec, Limit] = field(default_factory=dict)
    tallies: dict[Edge, Parents] = field(default_factory=dict)
    wakes: list[int] = field(default_factory=list)
    next_unit: int = 0
    running: int = 0
    open: int = 0
    cancelled_by: str = ""
    aborted: bool = False
    late: int = 0
    roots_of_edges: dict[Edge, Roots] = field(default_factory=dict)

    def pace(self, node: Node) -> Pace:
        """Return what is known of the duration of a node's task runs."""
        return self.paces.setdefault(node.group.spec, Pace())

    def lane(self, node: Node, index: int | None = None) -> Lane:
        """Return the queue of a node's members, or of one that may have options of its own."""
        variant = node.variants.get(index) if index is not None else None
        if variant is None:
            return self.lanes[lane_key(node.planned)]
        key = scheduling_class(variant.ray), variant
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(key[0], self.lane(node).limit, variant)
        return lane

    def cancels(self, group: Group) -> bool:
        """Whether the run was cancelled, and a group with it: teardowns are spared."""
        return bool(self.cancelled_by) and not group.spec.teardown

    def planned_for_nobody(self, group: Group) -> PlannedGroup | None:
        """Return what was planned for a group that is open and that no other needs, or None."""
        node = self.nodes.get(group.id)
        if node is None or not node.open or node.aligned or node.gates or node.follower:
            return None
        return node.planned

    def lacks_slots(self, scheduling_class: SchedulingClass) -> bool:
        """Whether the backend has told that units of a class can run nowhere."""
        return any(
            lane.slots == 0
            for lane in self.lanes.values()
            if lane.scheduling_class == scheduling_class
        )

    def add_lane(self, planned: PlannedGroup) -> None:
        """Open the queue that the members of a group will wait in, unless it is there."""
        key = lane_key(planned)
        if key not in self.lanes:
            most = planned.max_parallel
            limit = self.limits.setdefault(planned.group.spec, Limit(most)) if most else None
            self.lanes[key] = Lane(planned.scheduling_class, limit)


class Turn:
    """One event being accounted for: the run, the time, and what shall be done.

    Attributes:
        run: The run.
        now: The time (ns since the epoch).
        commands: What shall be done, beside the records.
        tripped: Nodes of which no further member shall begin, from now on.
        unmakable: Members whose values are lost for good, since what set up for them failed.
    """

    __slots__ = ("_records", "commands", "now", "run", "tripped", "unmakable")

    def __init__(self, run: Run, now: int) -> None:
        self.run = run
        self.now = now
        self.commands: list[Command] = []
        self.tripped: list[Node] = []
        self.unmakable: list[tuple[Node, int]] = []
        self._records: dict[Group, list[Sequence[int]]] = {}

    def record(self, group: Group, index: int) -> None:
        """Note that a member's row changed."""
        self._records.setdefault(group, []).append((index,))

    def record_all(self, group: Group, indices: Sequence[int]) -> None:
        """Note that the rows of several members changed."""
        self._records.setdefault(group, []).append(indices)

    def finish(self) -> list[Command]:
        """Return all commands: records first, since they are committed before anything is done."""
        records: list[Command] = [
            Record(group, indices)
            for group, changes in self._records.items()
            for indices in changes
        ]
        return records + self.commands
