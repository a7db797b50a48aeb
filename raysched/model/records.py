"""What the store tells of earlier work: records that a resume goes on from, and cached results."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from raysched.model.rows import FlowRunRow
from raysched.model.states import StateType


class Kept(IntEnum):
    """What there is of the value of a recorded task run."""

    NOTHING = 0
    INLINE = 1
    """Its envelope is in the database."""
    STORED = 2
    """It is in the result storage, at `RecordedGroup.locations`."""


@dataclass(slots=True, eq=False)
class RecordedGroup:
    """A group of an earlier execution, with what became of its members, in columns of its size.

    Attributes:
        id: The group's id in its flow run.
        task: Name of the task.
        first: Index of its first member among the task runs of that name.
        size: Number of members.
        mapped: Whether one `.map` made it.
        identities: Digests of `IDENTITY_BYTES` each, b"" if nothing can be resumed from it.
        source: What the task's code was, 16 hexadecimal digits, or "".
        states: State codes; SCHEDULED where there is no row.
        attempts: Attempts begun.
        started: Start of the last attempt (ns).
        ended: End of the last attempt (ns), 0 while it had not ended.
        kept: `Kept` codes.
        sizes: Encoded sizes of values (bytes).
        locations: Where the result storage has values, by member.
        values: Envelopes of values, by member, in a group of few: they are read together, since
            each of many such groups would be asked for its own.
        rolled_back: Members that were undone.
        handled: Members whose failure was handled.
    """

    id: int
    task: str
    first: int
    size: int
    mapped: bool
    identities: bytes
    source: str
    states: bytearray
    attempts: Sequence[int]
    started: Sequence[int]
    ended: Sequence[int]
    kept: bytearray
    sizes: Sequence[int]
    locations: dict[int, str] = field(default_factory=dict)
    values: dict[int, bytes] = field(default_factory=dict)
    rolled_back: frozenset[int] = frozenset()
    handled: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class RecordedFlowRun:
    """A subflow's run of an earlier execution.

    Attributes:
        id: Flow run id.
        identity: What tells its call from others of the same parent.
        state: Its state; RUNNING for one that was lost with its driver.
        result: Envelope of what it returned, or None where that is not kept.
    """

    id: str
    identity: bytes
    state: StateType
    result: bytes | None = None


@dataclass(slots=True)
class Records:
    """What an earlier execution of a flow run has left.

    Attributes:
        run: Number of the flow run.
        groups: Its groups, by id; none that tasks recorded inside an attempt.
        deliveries: What `as_completed` gave to the flow function, as `(group, index)`, in order.
        flow_runs: Its subflows' runs, in the order in which they were opened.
        next_group: The first id that no group of the run has, also none inside an attempt.
        next_index: For each task the first index that none of its task runs has, counted likewise.
        next_place: The first id that no place of the run has (see `model.rows.PlaceRow`).
    """

    run: int
    groups: list[RecordedGroup]
    next_group: int = 0
    next_index: dict[str, int] = field(default_factory=dict)
    next_place: int = 1
    deliveries: list[tuple[int, int]] = field(default_factory=list)
    flow_runs: list[RecordedFlowRun] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Takeover:
    """A flow run that this process owns from now on.

    Attributes:
        number: Number of the flow run.
        row: Its row, with the epoch that this owner commits with.
    """

    number: int
    row: FlowRunRow


class CacheVerdict(IntEnum):
    """What the store says of a cache key."""

    HIT = 0
    """There is a result."""
    MINE = 1
    """There is none, and from now on others wait for the task run that asked."""
    BUSY = 2
    """There is none, but another task run of a living driver is making it."""


@dataclass(slots=True)
class CacheClaim:
    """A task run that wants the result of a cache key, or to be the one that makes it.

    Not frozen: a map makes one for each member, which would take eight times as long.

    Attributes:
        key: The cache key: a digest of 16 bytes, or what `cache_key_fn` returned, digested.
        group: The group of the task run in the database.
        index: Its position there.
        task: Name of the task.
        lifetime: How long the result may be used (ns from its end), 0 for ever.
        refresh: Whether to make it anew whatever there is.
        parts: JSON text: what the key was made of, by name (`{"source": …, "x": …}`, digests of 8
            bytes in hexadecimal), so that a miss can be explained.
    """

    key: bytes
    group: int
    index: int
    task: str
    lifetime: int = 0
    refresh: bool = False
    parts: str = "{}"


@dataclass(frozen=True, slots=True)
class CacheAnswer:
    """What the store says to a claim.

    Attributes:
        verdict: What it says.
        run_id: Whose result it is, or who makes it: id of the flow run. For MINE who was to make
            it before, and whose result cannot be used (any more), or "".
        task_run: Key of that task run, or "".
        value: Of a HIT, the envelope of a small value.
        location: Of a HIT, where the result storage has a large one.
        size: Of a HIT, its encoded size (bytes).
        ended: Of a HIT, when it was made (ns); for MINE the same of a result that is too old or is
            to be replaced.
    """

    verdict: CacheVerdict
    run_id: str = ""
    task_run: str = ""
    value: bytes | None = None
    location: str = ""
    size: int = 0
    ended: int = 0
