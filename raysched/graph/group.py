"""Groups: the nodes of the graph, with the columns of their task runs."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from raysched.model.ids import IDENTITY_BYTES, split_identities, task_run_key
from raysched.model.options import TaskSpec
from raysched.model.records import RecordedGroup
from raysched.model.states import FIRST_TERMINAL, StateType
from raysched.model.values import ErrorInfo, Value


class EdgeKind(StrEnum):
    """How a group, or one member of it, depends on another group."""

    ONE_TO_ONE = "one_to_one"
    """Member i needs the parent's member i + `index`."""
    GATHER = "gather"
    """Every member needs the parent's members `index` to `stop`, all of them as a list."""
    SCATTER = "scatter"
    """The members are the elements of the value of the parent's member `index`."""
    BROADCAST = "broadcast"
    """Every member needs the parent's member `index`."""
    AFTER = "after"
    """Order only: every member waits for the parent's members `index` to `stop`."""


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow from `parent` to a group or to one of its members.

    Attributes:
        parent: The group that is needed.
        kind: How.
        index: First member of the parent that is needed (for ONE_TO_ONE: the offset).
        stop: End of the range for GATHER and AFTER, otherwise `index + 1`.
        allow_failure: Whether a failed parent hands over its exception instead of failing the
            child.
    """

    parent: "Group"
    kind: EdgeKind
    index: int = 0
    stop: int = 1
    allow_failure: bool = False


T = TypeVar("T")

Watcher: TypeAlias = Callable[["Group", Iterable[int]], None]
"""Called after members of a group became visible in a terminal state."""


@dataclass(slots=True, eq=False, repr=False)
class Group:
    """The task runs of one task with one set of options that were recorded together.

    A group of a million members is this one object and a few arrays. The recorder fills in what
    was called, the tracker what became of it. Only the tracker writes `states`; only the engine,
    after the commit, writes `visible`.

    Attributes:
        id: Ordinal in its flow run.
        run_id: The flow run.
        spec: Task and options.
        first: Index of the first member among the flow run's task runs of that name.
        mapped: Whether one `.map` made it.
        size: Number of members.
        payloads: Each member's pickled arguments, None once it is terminal; nothing if there are
            `columns`.
        columns: For a map over immutable elements, these by mapped parameter: they need no copy,
            and a unit pickles them all at once.
        shared: Pickled arguments that all members have in common, or b"".
        edges: Edges of every member. Slots number the edges that carry a value (all but AFTER),
            first these, then those of the member.
        member_edges: Further edges of single members, by position.
        identities: Digests of `IDENTITY_BYTES` each, in one buffer.
        tags: Tags, from the task and from the context of the call.
        values: Values of the successful members; None also where `load` has to fetch them again.
        load: Returns the value of a member that was let go of, since the store has it.
        min_success: How many members have to succeed for the failures of the others to count as
            handled, and to be left out where all of them are gathered; None for all.
        reasons: Why members ended as they did, for people, where no attempt tells it.
        rolled_back: Members that completed and were undone.
        recorded: The group of an earlier execution in which its members were recorded, or None.
        positions: Their positions there.
        answered: For each member whether it is answered from there, 0 or 1; empty if there is
            nothing recorded.
        continues: Whether the members go on in the rows that they have there.
        earlier: Attempts of earlier executions, which nothing is charged for; empty if none.
        places: Where the attempts run, or have run, that `started` is of: ids of
            `model.rows.PlaceRow`s, 0 where that is not known; empty if it is of none. The engine
            writes them.
    """

    id: int
    run_id: str
    spec: TaskSpec
    first: int
    mapped: bool = False
    size: int = 0
    columns: tuple[Sequence[Any], ...] = ()
    payloads: list[bytes | None] = field(default_factory=list)
    shared: bytes = b""
    edges: tuple[Edge, ...] = ()
    member_edges: dict[int, tuple[Edge, ...]] = field(default_factory=dict)
    identities: bytearray = field(default_factory=bytearray)
    tags: tuple[str, ...] = ()

    states: bytearray = field(default_factory=bytearray)
    visible: bytearray = field(default_factory=bytearray)
    attempts: "array[int]" = field(default_factory=lambda: array("H"))
    started: "array[int]" = field(default_factory=lambda: array("q"))
    ended: "array[int]" = field(default_factory=lambda: array("q"))
    values: list[Value | None] = field(default_factory=list)
    errors: dict[int, ErrorInfo] = field(default_factory=dict)
    roots: dict[int, tuple[tuple["Group", int], ...]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    handled: set[int] = field(default_factory=set)
    min_success: int | None = None
    reasons: dict[int, str] = field(default_factory=dict)
    rolled_back: set[int] = field(default_factory=set)
    recorded: RecordedGroup | None = None
    positions: Sequence[int] = ()
    answered: bytearray = field(default_factory=bytearray)
    continues: bool = False
    earlier: "array[int] | tuple[()]" = ()
    places: "array[int] | tuple[()]" = ()

    load: Callable[["Group", int], Value] | None = None
    open_visible: int = 0
    watchers: list[Watcher] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Group {self.id}: {self.size} of {self.spec.name!r}>"

    def key(self, index: int) -> str:
        """Return the key of a member, for example `parse[17]`."""
        return task_run_key(self.spec.name, self.number(index))

    def claim(self, positions: Sequence[int], answered: bytearray) -> None:
        """Note where the next members are recorded, and which of them are answered from there."""
        if isinstance(self.positions, list):
            self.positions.extend(positions)
        else:
            self.positions = positions if isinstance(positions, range) else list(positions)
        self.answered += answered

    def number(self, index: int) -> int:
        """Return the position of a member among the flow run's task runs of that name."""
        if self.recorded is not None and self.continues:
            return self.recorded.first + self.positions[index]
        return self.first + index

    def place(self, index: int) -> tuple[int, int]:
        """Return the id of the group, and the position in it, under which a member is kept."""
        if self.recorded is not None and self.continues:
            return self.recorded.id, self.positions[index]
        return self.id, index

    @property
    def has_row(self) -> bool:
        """Whether the store knows it by its own id: not if its members go on in other groups."""
        return not self.continues or (self.recorded is not None and self.recorded.id == self.id)

    def is_answered(self, index: int) -> bool:
        """Whether a member is answered by an earlier execution."""
        return bool(self.answered) and bool(self.answered[index])

    def is_recalled(self, index: int) -> bool:
        """Whether a member's value was made by another execution than this one."""
        answered = self.is_answered(index) or self.states[index] == StateType.CACHED
        return answered and self.attempts[index] == self.spent(index)

    def spent(self, index: int) -> int:
        """Return how many attempts earlier executions have made of a member."""
        return self.earlier[index] if self.earlier else 0

    def edges_of(self, index: int) -> Iterator[Edge]:
        """Yield all edges of one member."""
        yield from self.edges
        yield from self.member_edges.get(index, ())

    def is_visible(self, index: int) -> bool:
        """Whether the member's terminal state is committed."""
        return index < len(self.visible) and self.visible[index] >= FIRST_TERMINAL

    def identity(self, index: int) -> bytes:
        """Return the member's identity digest."""
        return bytes(self.identities[index * IDENTITY_BYTES : (index + 1) * IDENTITY_BYTES])

    def identities_of(self, indices: range) -> list[bytes]:
        """Return the identity digests of adjacent members."""
        start, stop = indices.start * IDENTITY_BYTES, indices.stop * IDENTITY_BYTES
        return split_identities(self.identities[start:stop])

    def slots_of(self, index: int) -> Iterator[Edge]:
        """Yield the edges of one member that carry a value, by slot number."""
        return (edge for edge in self.edges_of(index) if edge.kind is not EdgeKind.AFTER)

    def arguments_of(
        self, indices: Sequence[int]
    ) -> tuple[Sequence[bytes], tuple[Sequence[Any], ...]]:
        """Return the arguments of open members: their payloads, or the elements by column."""
        if self.columns:
            return (), tuple(elements(column, indices) for column in self.columns)
        payloads = [self.payloads[index] or b"" for index in indices]
        return payloads, ()

    def payload_bytes(self, index: int) -> int:
        """Return the size of a member's pickled arguments (bytes)."""
        if self.columns:
            return sum(_bytes_of(column[index]) for column in self.columns)
        return len(self.payloads[index] or b"")

    def value(self, index: int) -> Value:
        """Return the value of a successful member.

        Raises:
            StoreUnavailable: It was let go of, and the store cannot be read.
        """
        value = self.values[index]
        if value is None:
            assert self.load is not None, self.key(index)  # noqa: S101 - who lets go sets it
            value = self.load(self, index)
        return value

    def release(self, indices: Sequence[int]) -> None:
        """Let go of the arguments of members that have ended.

        Not of those whose values may have to be computed again: large ones may get lost with a
        node, and cached ones may be of no use here.
        """
        if self.columns:
            return
        if isinstance(indices, range):
            self.payloads[indices.start : indices.stop] = [None] * len(indices)
            return
        for index in indices:
            if isinstance(self.values[index], bytes | None) and not self.is_recalled(index):
                self.payloads[index] = None

    def allocate(self) -> None:
        """Size the columns for the recorded members, all SCHEDULED."""
        size = self.size
        self.states = bytearray(size)
        self.visible = bytearray(size)
        self.attempts = array("H", bytes(2 * size))
        self.started = array("q", bytes(8 * size))
        self.ended = array("q", bytes(8 * size))
        self.values = [None] * size
        self.open_visible = size


def elements(column: Sequence[T], indices: Sequence[int]) -> Sequence[T]:
    """Return what a column has of these members: of a range, a slice of it."""
    if isinstance(indices, range):
        return column[indices.start : indices.stop]
    return [column[index] for index in indices]


def _bytes_of(element: object) -> int:
    """Return about how many bytes an atom takes in a frame."""
    return len(element) if isinstance(element, str | bytes) else 8
