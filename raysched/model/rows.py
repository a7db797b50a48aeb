"""What is kept of a run, as plain rows: the language between engine, store and client.

Times are nanoseconds since the epoch, 0 where there is none yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from raysched.model.events import ClusterEvent
from raysched.model.states import StateType
from raysched.model.traces import Attributes
from raysched.model.values import ErrorInfo

ENGINE_LOGGER = "raysched"
"""Logger of what the engine itself says in a run; it says that on standard error, too."""


FELL_BACK = "; then the fallback"
"""How the `stop_reason` of an attempt ends after which the fallback took over."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One process's work on a flow run: the first, or one that resumed it.

    Attributes:
        started: When it began (ns).
        traceparent: The span that its `flow` span is below of (`model.traces.TraceParent`); "" if
            nothing was traced, and for a subflow, which stands in the trace of its parent.
        tracestate: What goes with it, as W3C Trace Context writes it; "" for none.
        attributes: What the sampler has added to its `flow` span.
    """

    started: int
    traceparent: str = ""
    tracestate: str = ""
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FlowRunRow:
    """A flow run.

    Attributes:
        id: Flow run id.
        flow: Name of the flow.
        name: Name of the run.
        state: State.
        message: Why, for people.
        started: Start (ns).
        ended: End (ns), 0 while open.
        parameters: JSON text of the parameters, for people: made when the run was opened.
        pickled_parameters: Envelope of the parameters, for resuming, or None.
        tags: Tags.
        parent: Id of the flow run that called it, or "".
        parent_key: Key of the task run in which it ran, or "".
        target: What was run, so that it can be found again: `dir/flow.py:flow`, or "".
        backend: Description of the backend.
        versions: JSON text: python, ray, raysched.
        error: Of a failed one, what the flow function raised or what failed in it.
        epoch: Raised by each takeover; every commit checks it.
        attempts: How often the flow function was begun.
        key: What `raysched run --key` was given, unique, or "".
        identity: Of a subflow, what tells its call from others of the same parent, or b"".
        rerun_of: Id of the flow run whose results it reuses, or "".
        executions: Its executions, the last one last; the number of one counts from 1.
        traced: Executions whose spans have all been delivered, counted from the first.
    """

    id: str
    flow: str
    name: str
    state: StateType
    message: str = ""
    started: int = 0
    ended: int = 0
    parameters: str = "{}"
    pickled_parameters: bytes | None = None
    tags: tuple[str, ...] = ()
    parent: str = ""
    parent_key: str = ""
    target: str = ""
    backend: str = ""
    versions: str = "{}"
    error: ErrorInfo | None = None
    epoch: int = 1
    attempts: int = 1
    key: str = ""
    identity: bytes = b""
    rerun_of: str = ""
    executions: tuple[Execution, ...] = ()
    traced: int = 0


@dataclass(frozen=True, slots=True)
class FlowRunChange:
    """New values of a flow run's changeable columns; see `FlowRunRow`.

    `late` is the number of reports of attempts that were over already, and were refused; `result`
    the envelope of what the flow function returned, or None where that is not kept.
    """

    state: StateType
    message: str = ""
    ended: int = 0
    error: ErrorInfo | None = None
    attempts: int = 1
    late: int = 0
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group of task runs, written before any of them; again when a resume goes on with it.

    Attributes:
        id: Ordinal in the flow run.
        task: Name of the task.
        first: Index of its first member among the flow run's task runs of that name.
        size: Number of members. Members without a row of their own are SCHEDULED.
        mapped: Whether one `.map` made it.
        edges: JSON text: `[[parent group, kind, index, stop], …]`; index and stop are -1 where
            members differ in what they need of that group.
        tags: Tags.
        options: JSON text of the options that people want to see.
        parent_key: Key of the task run in which it ran, or "".
        plan: JSON text of how it was planned: `unit_size`, and where there is something to tell
            `fixed` and `overlapping` (true), `class` (`{Ray option: repr}`), `fused_behind` (id of
            a group) and `notes`; see `compiler.plan.PlannedGroup`. None if that is not kept.
        units: Units that were dispatched for its members, None if they were not counted.
        identities: Digests of all its members, `IDENTITY_BYTES` each, or b"" where nothing is ever
            resumed from them.
        source: What the task's code was (see `define.sources`), 16 hexadecimal digits, or "".
        created: When it was recorded (ns), 0 if that is not known.
    """

    id: int
    task: str
    first: int
    size: int
    mapped: bool = False
    edges: str = "[]"
    tags: tuple[str, ...] = ()
    options: str = "{}"
    parent_key: str = ""
    plan: str | None = None
    units: int | None = None
    identities: bytes = b""
    source: str = ""
    created: int = 0


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """A worker process in which task runs of a flow run have run.

    Attributes:
        id: Counts from 1 in the flow run; 0 stands for an unknown place.
        node_id: Ray's id of the node, or "" without Ray.
        worker_id: Ray's id of the worker, or "" without Ray.
        pid: Process id.
        host: Name of the machine.
    """

    id: int
    node_id: str
    worker_id: str
    pid: int
    host: str


@dataclass(slots=True)
class TaskRunColumns:
    """Rows of task runs of one group, in columns of equal length; later ones replace earlier ones.

    Attributes:
        group: The group's id.
        indices: Positions in the group.
        states: State codes.
        attempts: Attempts begun.
        started: Start of the last attempt (ns).
        ended: End of the last attempt (ns).
        values: Envelopes of small values that are kept, otherwise None.
        sizes: Encoded sizes of values (bytes), 0 where there is none.
        names: Rendered task run names, by position in these columns.
        roots: Keys of root failures, by position in these columns.
        handled: Positions in these columns whose failure was handled.
        reasons: Why a task run ended as it did, for people, where no attempt tells it: who
            cancelled it, why it was skipped or stopped, by position in these columns.
        rolled_back: Positions in these columns of what completed and was undone.
        locations: Where the result storage has values, by position in these columns.
        places: Where the last attempts ran, ids of `PlaceRow`s, 0 where that is not known; empty if
            none is known.
    """

    group: int
    indices: Sequence[int]
    states: Sequence[int]
    attempts: Sequence[int]
    started: Sequence[int]
    ended: Sequence[int]
    values: Sequence[bytes | None]
    sizes: Sequence[int]
    names: dict[int, str] = field(default_factory=dict)
    roots: dict[int, tuple[str, ...]] = field(default_factory=dict)
    handled: frozenset[int] = frozenset()
    reasons: dict[int, str] = field(default_factory=dict)
    rolled_back: frozenset[int] = frozenset()
    locations: dict[int, str] = field(default_factory=dict)
    places: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt that failed, or that followed one that did.

    `place` is the id of the `PlaceRow` of where it ran, 0 if that is not known.
    """

    group: int
    index: int
    attempt: int
    state: StateType
    started: int
    ended: int
    error: ErrorInfo | None = None
    stop_reason: str = ""
    place: int = 0


@dataclass(frozen=True, slots=True)
class LogRow:
    """A log record; `group` is -1 for one of the flow function itself."""

    group: int
    index: int
    attempt: int
    at: int
    level: int
    logger: str
    message: str


@dataclass(frozen=True, slots=True)
class InputRow:
    """The arguments of a task run that failed for good, so that it can be run again alone.

    Attributes:
        group: Id of its group.
        index: Its position there; -1 for what all members have in common.
        payload: Its pickled arguments (see `graph.payload`); with index -1 those of the group.
        slots: JSON text: for each slot of the payload `[kind, parent group, index, stop,
            allow_failure]`, the place that the value came from (`graph.group.Edge`).
    """

    group: int
    index: int
    payload: bytes
    slots: str = "[]"


@dataclass(frozen=True, slots=True)
class RequestRow:
    """What another process asks of the driver of a flow run.

    Attributes:
        id: Number of the request in the run, from 1.
        kind: `cancel`, or `kill` to end it without time to clean up.
        by: Who asks, for people: `me@host`.
        at: When (ns).
        keys: Keys of task runs that are meant; empty for the whole run.
    """

    id: int
    kind: str
    by: str
    at: int
    keys: tuple[str, ...] = ()


@dataclass(slots=True)
class Batch:
    """What one transaction writes for one flow run.

    Attributes:
        run: Number of the flow run, from `Store.open_run`.
        epoch: The epoch that the writer believes in.
        flow_run: Change of the flow run itself, or None.
        groups: New groups.
        units: Units that were dispatched for the members of groups, by group id.
        task_runs: New or changed task runs.
        attempts: New attempts.
        logs: New log records.
        inputs: Arguments of task runs that failed for good.
        deliveries: Task runs that `as_completed` gave to the flow, as `(group, index)`, in order.
        restarted: Task runs that begin again in the rows of an earlier execution, as `(group,
            positions)`: SCHEDULED, and nothing is left there but their attempts. Before all else.
        places: New places.
        events: What happened to the cluster.
        spans: Spans that user code has made in workers, as encoded OTLP `ScopeSpans`; not kept in
            the database.
        dropped_spans: How many of these were left out, because there were too many.
    """

    run: int
    epoch: int = 1
    flow_run: FlowRunChange | None = None
    groups: list[GroupRow] = field(default_factory=list)
    units: dict[int, int] = field(default_factory=dict)
    task_runs: list[TaskRunColumns] = field(default_factory=list)
    attempts: list[AttemptRow] = field(default_factory=list)
    logs: list[LogRow] = field(default_factory=list)
    inputs: list[InputRow] = field(default_factory=list)
    deliveries: list[tuple[int, int]] = field(default_factory=list)
    restarted: list[tuple[int, Sequence[int]]] = field(default_factory=list)
    places: list[PlaceRow] = field(default_factory=list)
    events: list[ClusterEvent] = field(default_factory=list)
    spans: list[bytes] = field(default_factory=list)
    dropped_spans: int = 0

    def __bool__(self) -> bool:
        return bool(
            self.flow_run
            or self.groups
            or self.units
            or self.task_runs
            or self.attempts
            or self.logs
            or self.inputs
            or self.deliveries
            or self.restarted
            or self.places
            or self.events
            or self.spans
            or self.dropped_spans
        )
