"""Queues of members that can run, one for each scheduling class."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from raysched.compiler.plan import PlannedGroup, SchedulingClass
from raysched.model.options import TaskSpec
from raysched.model.states import StateType

if TYPE_CHECKING:
    from raysched.tracker.run import Node

LaneKey: TypeAlias = tuple[SchedulingClass, TaskSpec | None]
"""Which queue: that of a class, or that of a task in it with a limit or with other options."""


@dataclass(slots=True, eq=False)
class Queued:
    """Members of one node that became ready together.

    Attributes:
        node: The node.
        members: Which of its members.
        taken: How many of them have left the queue: a pointer, since cutting a million members
            off their list one by one would copy it a million times.
    """

    node: "Node"
    members: Sequence[int]
    taken: int = 0


@dataclass(slots=True, eq=False)
class Limit:
    """How many task runs of a task there may be at once in a flow run.

    Attributes:
        most: So many.
        running: How many may be running.
    """

    most: int
    running: int = 0


@dataclass(slots=True, eq=False)
class Lane:
    """The queue of one scheduling class, or of one task in it with a limit or other options.

    Attributes:
        scheduling_class: The class.
        limit: How many task runs there may be at once, or None.
        variant: What its members run with, where that is not their group's own.
        slots: Units that can run at once; None until the backend has told.
        lacking: What no node has, for people, when there are no slots.
        ready: Members that can run, in order of becoming ready.
        queued: Their number.
        units: Number of dispatched units.
        mean_ns: Moving average of a unit's duration (ns), 0 before the first one.
        ask_at: When to ask for the slots again (ns): clusters grow and shrink.
    """

    scheduling_class: SchedulingClass = ()
    limit: Limit | None = None
    variant: TaskSpec | None = None
    slots: int | None = None
    lacking: str = ""
    ready: deque[Queued] = field(default_factory=deque)
    queued: int = 0
    units: int = 0
    mean_ns: float = 0.0
    ask_at: int = 0

    def add(self, node: "Node", members: Sequence[int]) -> None:
        """Queue members that can run."""
        self.ready.append(Queued(node, members))
        self.queued += len(members)

    def add_first(self, node: "Node", members: Sequence[int]) -> None:
        """Queue members again that have waited before those that are queued."""
        self.ready.appendleft(Queued(node, members))
        self.queued += len(members)

    def take(self, number: int) -> "tuple[Node, Sequence[int]]":
        """Remove the first members, all of one node; return them with it."""
        first = self.ready[0]
        taken = first.members[first.taken : first.taken + number]
        first.taken += number
        if first.taken == len(first.members):
            self.ready.popleft()
        self.queued -= number
        return first.node, taken

    def remove_ended(self) -> None:
        """Remove the members that have ended while they were queued."""
        kept: deque[Queued] = deque()
        for entry in self.ready:
            states, computing = entry.node.group.states, entry.node.computing
            left = entry.members[entry.taken :]
            members = [i for i in left if states[i] == StateType.PENDING or i in computing]
            if members:
                kept.append(Queued(entry.node, left if len(members) == len(left) else members))
        self.ready = kept
        self.queued = sum(len(entry.members) for entry in kept)

    def discard(self, node: "Node", index: int) -> None:
        """Remove one member, if it is queued here."""
        for entry in self.ready:
            left = entry.members[entry.taken :]
            if entry.node is node and index in left:
                entry.members, entry.taken = [each for each in left if each != index], 0
                self.queued -= 1
                if not entry.members:
                    self.ready.remove(entry)
                return

    def waiting(self) -> "Iterator[tuple[Node, int]]":
        """Yield the queued members, with their nodes."""
        for entry in self.ready:
            for index in entry.members[entry.taken :]:
                yield entry.node, index


def lane_key(planned: PlannedGroup) -> LaneKey:
    """Return which queue the members of a group wait in."""
    return planned.scheduling_class, planned.group.spec if planned.max_parallel else None
