"""The tracker's language: events (what happened) and commands (what shall be done).

Both speak of members of a group in columns: an uneventful unit of a thousand task runs is one
event with a few arrays, never a thousand objects. Times are nanoseconds since the epoch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from raysched.compiler.plan import Plan, SchedulingClass
from raysched.errors import InternalError
from raysched.graph.calls import Member
from raysched.graph.group import Group
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, Value


@dataclass(frozen=True, slots=True)
class SegmentPlanned:
    """A segment was compiled; its groups join the run."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class CapacityKnown:
    """The backend has told how many units of a class can run at once.

    Attributes:
        scheduling_class: The class.
        slots: Units at once, 0 if none ever can.
        lacking: What no node has, for people: `num_gpus=1; the cluster has 0`.
    """

    scheduling_class: SchedulingClass
    slots: int
    lacking: str = ""


@dataclass(frozen=True, slots=True)
class UnitStarted:
    """Members of a unit began to run.

    Attributes:
        unit: The unit.
        positions: Which of its members.
        at: When (ns).
    """

    unit: int
    positions: Sequence[int]
    at: int


@dataclass(frozen=True, slots=True)
class UnitEnded:
    """Attempts of members of a unit ended, in columns of equal length.

    Attributes:
        unit: The unit.
        positions: Which of its members.
        states: Terminal state codes.
        started: Start times (ns).
        ended: End times (ns).
        values: Values of the successful ones, otherwise None.
        errors: Of those that failed, by position.
        names: Rendered task_run_names, by position, where the task has a template.
        large: Whether there are large values among them.
    """

    unit: int
    positions: Sequence[int]
    states: bytes
    started: Sequence[int]
    ended: Sequence[int]
    values: Sequence[Value | None]
    errors: Mapping[int, ErrorInfo] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    large: bool = False


@dataclass(frozen=True, slots=True)
class UnitLost:
    """The infrastructure under a unit broke: its members that had not ended crashed."""

    unit: int
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class InputsLost:
    """A unit did not begin, because values that it needs are lost.

    Attributes:
        unit: The unit.
        values: Whose values.
    """

    unit: int
    values: Sequence[Member]


@dataclass(frozen=True, slots=True)
class ValueLost:
    """The value of a completed member is lost, and wanted."""

    group: Group
    index: int


@dataclass(frozen=True, slots=True)
class UnitHandedBack:
    """A worker gave back members of a unit that it had not begun: others shall run them."""

    unit: int
    positions: Sequence[int]


@dataclass(frozen=True, slots=True)
class RetryAnswered:
    """The user's `retry_condition_fn` has answered for a failed attempt."""

    group: Group
    index: int
    attempt: int
    retry: bool


@dataclass(frozen=True, slots=True)
class CacheAnswered:
    """Whether there are results for members that `AskCache` was about.

    Of `hits` the value, and where it is from, for people. Those in `misses` have to run; the
    results of those in `busy` somebody else is making (who, for people), and they are asked about
    again later. In `errors` are those of which the user's `cache_key_fn` could not tell.
    """

    group: Group
    hits: Mapping[int, tuple[Value, str]] = field(default_factory=dict)
    misses: Sequence[int] = ()
    busy: Mapping[int, str] = field(default_factory=dict)
    errors: Mapping[int, ErrorInfo] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FailuresHandled:
    """The flow was told of these failures, or asked to be told."""

    group: Group
    indices: Sequence[int]


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The run shall stop, all but its teardowns.

    Attributes:
        by: Who wants it, for people: `Ctrl-C`, `the flow's end`.
        running: Whether also what is running shall stop; otherwise only what waits.
        force: End the workers, without time to clean up.
        teardowns: Whether also the teardowns shall stop.
    """

    by: str
    running: bool = True
    force: bool = False
    teardowns: bool = False


@dataclass(frozen=True, slots=True)
class MembersCancelled:
    """These members shall stop, waiting or running; `by` says who wants it, for people."""

    group: Group
    indices: Sequence[int]
    by: str


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What these completed members did was undone."""

    group: Group
    indices: Sequence[int]


@dataclass(frozen=True, slots=True)
class CompensationPlanned:
    """When one task run has completed, what another one did is undone.

    Attributes:
        member: The one that undoes it.
        undone: The other one.
    """

    member: Member
    undone: Member


@dataclass(frozen=True, slots=True)
class FlowRestarted:
    """The flow function begins again: what cancelled the last attempt's rest is over."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """A time (ns) that the tracker asked for with `WakeAt` has come."""

    at: int


Event: TypeAlias = (
    SegmentPlanned
    | CapacityKnown
    | UnitStarted
    | UnitEnded
    | UnitLost
    | InputsLost
    | ValueLost
    | UnitHandedBack
    | RetryAnswered
    | CacheAnswered
    | FailuresHandled
    | CancelRequested
    | MembersCancelled
    | RolledBack
    | CompensationPlanned
    | FlowRestarted
    | TimePassed
)


@dataclass(frozen=True, slots=True)
class Rider:
    """Members that run in the unit of the members that they need, after them.

    Attributes:
        group: Their group.
        indices: Which of its members.
        attempts: The number of each one's attempt, from 1.
        parents: For each the position in the unit of the member that it needs.
    """

    group: Group
    indices: Sequence[int]
    attempts: Sequence[int]
    parents: Sequence[int]


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Run members of a group as one unit.

    Positions in the unit number the members of the group and then those of the riders.

    Attributes:
        unit: Number of the unit, unique in the run.
        group: The group.
        indices: Its members, by position in the unit.
        attempts: The number of each member's attempt, from 1: its fencing token.
        lease_seconds: When its worker hands back what it has not begun (seconds).
        riders: Members of further groups, or later ones of this group, that need these.
        variant: What the members of the group run with, where that is not the group's own.
    """

    unit: int
    group: Group
    indices: Sequence[int]
    attempts: Sequence[int]
    lease_seconds: float
    riders: tuple[Rider, ...] = ()
    variant: TaskSpec | None = None

    def member(self, position: int) -> Member:
        """Return the member at a position."""
        if position < len(self.indices):
            return self.group, self.indices[position]
        position -= len(self.indices)
        for rider in self.riders:
            if position < len(rider.indices):
                return rider.group, rider.indices[position]
            position -= len(rider.indices)
        raise InternalError(f"unit {self.unit} has no position {position}")


@dataclass(frozen=True, slots=True)
class Record:
    """The rows of these members changed: commit them, then make them visible."""

    group: Group
    indices: Sequence[int]


class Arguments(NamedTuple):
    """The arguments of one task run: `shared` as in its group, and its `payload` or its `row`."""

    shared: bytes
    payload: bytes
    row: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class RecordAttempt:
    """An attempt worth a row of its own ended: one that failed, or that followed a failure.

    `arguments` are those of a task run that failed with it for good, which has let go of them;
    `variant` is what it ran with, where that is not the group's own.
    """

    group: Group
    index: int
    attempt: int
    state: StateType
    started: int
    ended: int
    error: ErrorInfo | None
    stop_reason: str
    arguments: Arguments | None = None
    variant: TaskSpec | None = None


@dataclass(frozen=True, slots=True)
class AskRetry:
    """Have `retry_condition_fn` evaluated for a failed attempt; answer with `RetryAnswered`."""

    group: Group
    index: int
    attempt: int
    state: StateType
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class AskCache:
    """Find out whether members that are ready have results; answer with `CacheAnswered`."""

    group: Group
    indices: Sequence[int]


@dataclass(frozen=True, slots=True)
class CallHooks:
    """Call the user's hooks of one kind (`on_running`, …) for one task run."""

    group: Group
    index: int
    kind: str


@dataclass(frozen=True, slots=True)
class AbortUnit:
    """Stop members of a unit that was dispatched.

    Attributes:
        unit: The unit.
        positions: Which of its members; None means all.
        force: End its worker, without time to clean up.
    """

    unit: int
    positions: Sequence[int] | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class AskCapacity:
    """Have the backend tell the slots of a class; answer with `CapacityKnown`.

    Attributes:
        scheduling_class: The class.
        spec: A task of it.
    """

    scheduling_class: SchedulingClass
    spec: TaskSpec


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send `TimePassed` at this time (ns)."""

    at: int


Command: TypeAlias = (
    Dispatch
    | Record
    | RecordAttempt
    | AskRetry
    | AskCache
    | CallHooks
    | AbortUnit
    | AskCapacity
    | WakeAt
)
