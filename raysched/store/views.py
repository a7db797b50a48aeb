"""What a reader shows: rows with what is derived from them. Times are ns since the epoch."""

from dataclasses import dataclass, field

from raysched.model.events import ClusterEvent
from raysched.model.records import Kept
from raysched.model.rows import AttemptRow, FlowRunRow
from raysched.model.states import StateType
from raysched.model.values import CrashKind, ErrorInfo, FailureClass

DRIVER_LOST = ErrorInfo(
    "raysched.errors.TaskRunCrashed",
    CrashKind.DRIVER_LOST.value,
    failure_class=FailureClass.INFRASTRUCTURE,
    kind=CrashKind.DRIVER_LOST.value,
)
"""Error of a task run that was open when its driver died."""

BETWEEN_ATTEMPTS = "waited for its next attempt when the driver died"
"""Reason of such a one whose last attempt had ended: no attempt of it died with the driver."""

LOST_WITH_DRIVER = frozenset(
    {StateType.PENDING, StateType.RUNNING, StateType.AWAITING_RETRY, StateType.CANCELLING}
)
"""Recorded states that are shown as CRASHED once the driver is dead.

These task runs were in the backend's hands, and those hands died with the driver, or they wait for
an attempt that nobody will begin. A PENDING one may have begun: the start of a short task run is
not reported. Others had not begun, and are shown as recorded: nothing happened to them.
"""

ON_THEIR_WAY = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
"""States of task runs whose attempt a backend had, if they have one: it died with the driver."""


def shown_state(recorded: StateType, *, lost: bool) -> StateType:
    """Return the state that a task run is shown in."""
    return StateType.CRASHED if lost and recorded in LOST_WITH_DRIVER else recorded


@dataclass(frozen=True, slots=True)
class RunView(FlowRunRow):
    """A flow run as it is now.

    An open run whose driver is dead has the state CRASHED with the message `driver lost`, and one
    that is asked to be cancelled CANCELLING; nothing is written for it. `pickled_parameters` is not
    read and None.

    Attributes:
        number: Key of its rows.
        lost: Whether its driver died.
        counts: Task runs by state, without empty states. Members that have no row yet count as
            SCHEDULED. Open task runs of a closed run count as recorded; of a lost driver, those of
            `LOST_WITH_DRIVER` count as CRASHED.
        late: Reports of attempts that were over already, and were refused.
        host: Machine of the process that drives it, or has driven it last.
        pid: Number of that process.
    """

    number: int = 0
    lost: bool = False
    counts: dict[StateType, int] = field(default_factory=dict)
    late: int = 0
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class TaskRunView:
    """A task run as it is now.

    Attributes:
        task: Name of the task.
        key: For example `parse[17]`.
        index: Position among the flow run's task runs of that name.
        state: State, derived as in `RunView`.
        attempts: Attempts begun.
        started: Start of the last attempt, 0 before the first.
        ended: Its end, 0 while open.
        name: Rendered task run name, or the key.
        roots: Keys of the root failures of an UPSTREAM_FAILED one.
        size: Encoded size of its value (bytes), 0 without one.
        handled: Whether its failure was handled.
        tags: Tags.
        error: Of the last attempt, or None.
        group: Id of its group.
        member: Position in its group.
        reason: Why it ended as it did, where no attempt tells it, or "".
        rolled_back: Whether it completed and was undone.
        location: Where the result storage has its value, or "".
        kept: What there is of its value. One that is COMPLETED or CACHED with nothing has kept
            nothing, and runs again where its value is needed.
        place: Where its last attempt ran, id of a `PlaceRow`, 0 where that is not known.
    """

    task: str
    key: str
    index: int
    state: StateType
    attempts: int = 0
    started: int = 0
    ended: int = 0
    name: str = ""
    roots: tuple[str, ...] = ()
    size: int = 0
    handled: bool = False
    tags: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    group: int = 0
    member: int = 0
    reason: str = ""
    rolled_back: bool = False
    location: str = ""
    kept: Kept = Kept.NOTHING
    place: int = 0


@dataclass(frozen=True, slots=True)
class EventView(ClusterEvent):
    """What happened to the cluster.

    Attributes:
        id: Counts from 1 within the run; later events have larger ids.
    """

    id: int = 0


@dataclass(frozen=True, slots=True)
class LogView:
    """A log record.

    Attributes:
        id: Counts from 1 within the run; later records have larger ids.
        key: Key of the task run, or "" for a record of the flow function.
        task: Name of the task, or "".
        attempt: Number of the attempt.
        at: When.
        level: `logging` level number.
        logger: Name of the logger.
        message: The formatted message.
    """

    id: int
    key: str
    task: str
    attempt: int
    at: int
    level: int
    logger: str
    message: str


@dataclass(frozen=True, slots=True)
class SeenView:
    """How often attempts failed with one fingerprint, over all runs that are kept.

    Attributes:
        first: When the first one began.
        first_run: Id of its run.
        last: When the last one began.
        last_run: Id of its run.
        attempts: How many.
        runs: In how many runs.
    """

    first: int
    first_run: str
    last: int
    last_run: str
    attempts: int
    runs: int


@dataclass(frozen=True, slots=True)
class CrashView:
    """An attempt that crashed, in whatever run.

    Attributes:
        run: Id of the run.
        flow: Name of its flow.
        key: Key of the task run.
        attempt: The attempt.
    """

    run: str
    flow: str
    key: str
    attempt: AttemptRow


@dataclass(frozen=True, slots=True)
class RemarkView:
    """Members of groups of one task of which there is the same to tell beside their state.

    Attributes:
        task: Name of the task.
        state: Their state, as it was recorded.
        count: How many.
        reason: Why they ended so, where no attempt tells it, or "".
        handled: Whether their failures were handled; of COMPLETED ones: by a fallback.
        rolled_back: Whether they completed and were undone.
    """

    task: str
    state: StateType
    count: int
    reason: str = ""
    handled: bool = False
    rolled_back: bool = False
