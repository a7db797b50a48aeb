"""What the tracker knows of one flow run."""

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from raysched.compiler.plan import PlannedGroup, SchedulingClass
from raysched.errors import InternalError
from raysched.graph.builder import Member
from raysched.graph.group import Edge, Group
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo
from raysched.tracker.gates import Gates
from raysched.tracker.messages import Command, Record

LaneKey: TypeAlias = tuple[SchedulingClass, TaskSpec | None]
"""Which queue: that of a class, or that of a task in it which may not run at once as often."""

Roots: TypeAlias = tuple[tuple[Member, ...], str]
"""Root failures behind an edge, and a reason if it leads to a skipped member, else ""."""


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

    @property
    def group(self) -> Group:
        """The group."""
        return self.planned.group


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
class Queued:
    """Members of one node that became ready together.

    Attributes:
        node: The node.
        members: Which of its members.
        taken: How many of them have left the queue: a pointer, since cutting a million members
            off their list one by one would copy it a million times.
    """

    node: Node
    members: Sequence[int]
    taken: int = 0


@dataclass(slots=True, eq=False)
class Lane:
    """The queue of one scheduling class, or of one task in it that has a limit of its own.

    Attributes:
        scheduling_class: The class.
        max_parallel: Most task runs at once, or None.
        running: How many may be running.
        slots: Units that can run at once; None until the backend has told.
        ready: Members that can run, in order of becoming ready.
        queued: Their number.
        units: Number of dispatched units.
        mean_ns: Moving average of a unit's duration (ns), 0 before the first one.
        ask_at: When to ask for the slots again (ns): clusters grow and shrink.
    """

    scheduling_class: SchedulingClass = ()
    max_parallel: int | None = None
    running: int = 0
    slots: int | None = None
    ready: deque[Queued] = field(default_factory=deque)
    queued: int = 0
    units: int = 0
    mean_ns: float = 0.0
    ask_at: int = 0

    def add(self, node: Node, members: Sequence[int]) -> None:
        """Queue members that can run."""
        self.ready.append(Queued(node, members))
        self.queued += len(members)

    def add_first(self, node: Node, members: Sequence[int]) -> None:
        """Queue members again that have waited before those that are queued."""
        self.ready.appendleft(Queued(node, members))
        self.queued += len(members)

    def take(self, number: int) -> tuple[Node, Sequence[int]]:
        """Remove the first members, all of one node; return them with it."""
        first = self.ready[0]
        taken = first.members[first.taken : first.taken + number]
        first.taken += number
        if first.taken == len(first.members):
            self.ready.popleft()
        self.queued -= number
        return first.node, taken

    def clear(self) -> None:
        """Remove all members."""
        self.ready.clear()
        self.queued = 0

    def waiting(self) -> Iterator[tuple[Node, int]]:
        """Yield the queued members, with their nodes."""
        for entry in self.ready:
            for index in entry.members[entry.taken :]:
                yield entry.node, index


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
        timers: Heap of (time, group id, member): when retries are due.
        wakes: Heap of the times (ns) that were asked for with `WakeAt` and have not come.
        running: Number of dispatched task runs that may be running.
        open: Number of task runs that are not terminal.
        cancelled_by: Who cancelled the run, or "".
        aborted: Whether that ends also what runs.
        late: Number of events that came too late to count.
        roots_of_edges: What has been found behind edges that lead to many members.
    """

    id: str
    max_parallel: int | None = None
    nodes: dict[int, Node] = field(default_factory=dict)
    lanes: dict[LaneKey, Lane] = field(default_factory=dict)
    paces: dict[TaskSpec, Pace] = field(default_factory=dict)
    unit_size: int = 0
    units: dict[int, Unit] = field(default_factory=dict)
    timers: list[tuple[int, int, int]] = field(default_factory=list)
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

    def lane(self, node: Node) -> Lane:
        """Return the queue of a node's members."""
        return self.lanes[_lane_key(node.planned)]

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
        key = _lane_key(planned)
        if key not in self.lanes:
            self.lanes[key] = Lane(planned.scheduling_class, planned.max_parallel)


def _lane_key(planned: PlannedGroup) -> LaneKey:
    return planned.scheduling_class, planned.group.spec if planned.max_parallel else None


class Turn:
    """One event being accounted for: the run, the time, and what shall be done.

    Attributes:
        run: The run.
        now: The time (ns since the epoch).
        commands: What shall be done, beside the records.
    """

    __slots__ = ("_records", "commands", "now", "run")

    def __init__(self, run: Run, now: int) -> None:
        self.run = run
        self.now = now
        self.commands: list[Command] = []
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
