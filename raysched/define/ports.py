"""What the face needs from an engine, and the slot that holds the engine of this process.

The layers forbid `define` to import an engine; `wiring.connect` is found by its dotted name when
the first flow is called, so that importing raysched costs nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from raysched.graph.builder import Builder
from raysched.graph.calls import Member, Part
from raysched.graph.group import Group
from raysched.model.options import FlowSpec
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo

if TYPE_CHECKING:
    from raysched.define.context import AttemptContext


class Told(StrEnum):
    """How a flow learns of a failure, and what that handles."""

    RAISED = "raised"
    """The exception was raised in the flow: it and its roots are handled if the flow function
    returns normally all the same."""
    RETURNED = "returned"
    """The flow asked for the exception or state as a value: it and its roots are handled."""
    READ = "read"
    """The flow read the state: it is handled, but not the roots of what only followed."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a flow run goes on from.

    Attributes:
        run_id: The flow run whose task runs answer equal calls.
        same: Whether the flow run goes on itself (`resume`); otherwise a new one reuses its results
            (`rerun`).
        rerun_changed: Whether to run again what completed with code that has changed since.
        again: Tasks (`load`) and task runs (`load[17]`) that are run again whatever their state,
            with everything that needs them.
        confirmed: Whether task runs with `idempotent=False` may run again that may have run.
    """

    run_id: str
    same: bool = True
    rerun_changed: bool = False
    again: tuple[str, ...] = ()
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class FlowRunStart:
    """A flow run that is about to begin.

    Attributes:
        run_id: Its id.
        name: Its name.
        spec: The flow with its options.
        parameters: Its parameters, validated and coerced, futures resolved.
        tags: Tags from the context.
        parent: The flow run that called it, or None.
        key: What makes the run the only one of its kind (`raysched run --key`), or "".
        continues: What it goes on from, or None.
        target: Where the flow can be found again, or "" (see `define.targets`).
        identity: Of a subflow, what tells its call from others of the same parent, or b"".
        within: Where an attempt records what it calls itself: the execution of the flow run, and
            the task, index and number of the attempt. None for a flow run of its own.
    """

    run_id: str
    name: str
    spec: FlowSpec
    parameters: Mapping[str, Any]
    tags: tuple[str, ...] = ()
    parent: "RunPort | None" = None
    key: str = ""
    continues: Continuation | None = None
    target: str = ""
    identity: bytes = b""
    within: tuple[int, str, int, int] | None = None

    @property
    def scope(self) -> bytes:
        """What tells equal calls of different subflows of one run apart in identities."""
        if self.parent is None:
            return b""
        return b"/".join((self.parent.builder.scope, self.spec.name.encode()))


@dataclass(frozen=True, slots=True)
class KeptFlowRun:
    """What is kept of a flow run that another one may go on from.

    Attributes:
        id: Its id.
        flow: Name of its flow.
        name: Its name.
        state: Its state; CRASHED for one whose driver was lost.
        parent: Id of the flow run that called it, or "".
        tags: Its tags.
        parameters: Its parameters, or None where they cannot be had.
        lacks: Why not, for people.
        owner: The living process that works on it, for people, or "".
        key: What makes it the only one of its kind, or "".
        may_have_run: Keys and states of the task runs that it may repeat only if that is
            confirmed: they were begun and did not complete, and their tasks are declared as
            `idempotent=False`.
    """

    id: str
    flow: str
    name: str
    state: StateType
    parent: str
    tags: tuple[str, ...]
    parameters: Mapping[str, Any] | None
    lacks: str = ""
    owner: str = ""
    key: str = ""
    may_have_run: tuple[tuple[str, StateType], ...] = ()


@dataclass(frozen=True, slots=True)
class RecalledFlowRun:
    """What is known of a call of a subflow before it is made.

    Attributes:
        identity: What tells it from other calls of the same parent, or b"".
        answer: What it returned in an earlier execution, in a tuple, or None.
        continues: What it goes on from, or None.
    """

    identity: bytes = b""
    answer: tuple[Any] | None = None
    continues: Continuation | None = None


@dataclass(frozen=True, slots=True)
class FlowEnding:
    """How a flow function ended, before the run's outcome is known.

    Attributes:
        error: What it raised, or None. `FlowRunTimedOut` and `KeyboardInterrupt` (and
            `asyncio.CancelledError`) become TIMED_OUT and CANCELLED.
        state: The state that it returned (`Failed(…)`), as type and message, or None.
        value: What it returned, futures resolved.
        retry: Whether the flow function will be run again in the same run if this attempt was no
            success: then task runs that completed are kept, and the rest is cancelled.
    """

    error: BaseException | None = None
    state: tuple[StateType, str] | None = None
    value: Any = None
    retry: bool = False


@dataclass(frozen=True, slots=True)
class FlowOutcome:
    """How a flow run ended, committed.

    Attributes:
        state: Terminal state.
        message: For people: `3 failures handled`, `1 task run failed: load[17]`.
        unhandled: Root failures that nobody handled.
        counts: Number of task runs by state.
        error: What the flow function raised, as text, or None.
    """

    state: StateType
    message: str = ""
    unhandled: tuple[Member, ...] = ()
    counts: Mapping[StateType, int] = field(default_factory=dict)
    error: ErrorInfo | None = None


class RunPort(Protocol):
    """An open flow run, as the flow's own thread sees it. All methods are thread-safe."""

    @property
    def start(self) -> FlowRunStart:
        """What was opened."""

    @property
    def builder(self) -> Builder:
        """Where calls of tasks are recorded."""

    @property
    def traceparent(self) -> str:
        """The span of the flow run (see `model.traces`), or "" if nothing is traced."""

    def around(self) -> AbstractContextManager[None]:
        """Let spans that user code makes in the block be below that of the flow run."""

    def recorded(self, *, waiting: bool = False) -> None:
        """Say that the builder has something new: it is compiled soon, or when `wait` is called.

        Args:
            waiting: Whether `wait` is called next, by the same thread.
        """

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Block until `done()` is true; return whether it is.

        Compiles at once what was recorded. `done` is called again each time task runs of this run
        became visible; it must be quick and must not block.

        Args:
            done: The condition, on visible states.
            timeout: Seconds, or None for no limit.

        Raises:
            FlowRunTimedOut: The flow's own `timeout_seconds` passed.
            StoreUnavailable: The store is gone for good: nothing new becomes visible any more.
        """

    async def wait_async(
        self,
        done: Callable[[], bool],
        timeout: float | None = None,  # noqa: ASYNC109 - Prefect's word, and False instead of raising
    ) -> bool:
        """Do as `wait`, without blocking the running event loop."""

    def value(self, member: Member) -> Any:
        """Return a fresh copy of the value of a completed task run.

        Raises:
            ResultLost: The object store lost it.
        """

    def values(self, group: Group, indices: Sequence[int]) -> list[Any]:
        """Return fresh copies of the values of completed task runs of one group, in order.

        Raises:
            ResultLost: The object store lost one.
        """

    def error(self, member: Member) -> BaseException:
        """Return the exception of a task run that ended without a value.

        The user's own exception where it can be rebuilt, with the worker's traceback as a note;
        otherwise a `TaskRunError`. For UPSTREAM_FAILED an `UpstreamFailed` from its first root.
        """

    def told(self, group: Group, indices: Sequence[int], how: Told) -> None:
        """Note that the flow was told how these task runs ended.

        Args:
            group: Their group.
            indices: Which members; those that did not fail are ignored.
            how: How it was told, which decides whether the failures are handled.
        """

    def replayed(self, parts: Sequence[Part]) -> Iterator[Member]:
        """Yield members that `as_completed` gave an earlier execution of the flow, in that order.

        Only those of `parts` that are answered by it. What is not taken from here is left for the
        next time.
        """

    def delivered(self, member: Member) -> None:
        """Note that `as_completed` gives the flow function this member next."""

    def recall(self, flow: str, parameters: Mapping[str, Any]) -> "RecalledFlowRun":
        """Return what is known of a subflow that this flow run calls.

        Args:
            flow: Name of the subflow.
            parameters: Its parameters.
        """

    def settled(self) -> bool:
        """Whether everything that was recorded has ended, visibly."""

    def cancel(self, by: str) -> None:
        """Cancel everything in this run; `by` says who wants it, for people."""

    def cancel_some(self, group: Group, indices: Sequence[int], by: str) -> None:
        """Cancel these task runs, waiting or running; those that have ended are ignored."""

    def roll_back(self, group: Group, indices: Sequence[int]) -> None:
        """Mark completed task runs as rolled back: what they did was undone."""

    def log(self, level: int, logger: str, message: str, at: int) -> None:
        """Keep a log record of the flow function itself; `at` in ns since the epoch."""

    def close(self, ending: FlowEnding) -> FlowOutcome:
        """End the flow function: wait for what is open, commit the outcome and return it.

        With `ending.retry` and any outcome but success, the run stays open, the outcome is that of
        the attempt, and `builder.restart` was called. Hooks of the flow are the caller's.
        """

    async def close_async(self, ending: FlowEnding) -> FlowOutcome:
        """Do as `close`, without blocking the running event loop."""


class Engine(Protocol):
    """Runs flow runs of this process."""

    def open_run(self, start: FlowRunStart) -> RunPort:
        """Begin a flow run: its row is committed when this returns.

        Raises:
            BackendUnreachable: Ray cannot be reached.
            StoreError: The run cannot be kept.
        """


_connect: Callable[[], Engine] | None = None


def engine() -> Engine:
    """Return the engine for a flow that is called here, connecting it when it is the first."""
    global _connect  # noqa: PLW0603 - the one slot, filled lazily so that import stays cheap
    if _connect is None:
        _connect = import_module("raysched.wiring").connect
    return _connect()


def kept_run(run: str) -> KeptFlowRun:
    """Return what is kept of a flow run.

    Args:
        run: Its id, a unique prefix of it, or `last`.

    Raises:
        RunNotFound: No run, or more than one, matches.
        StoreError: The database cannot be read.
    """
    kept: KeptFlowRun = import_module("raysched.wiring").kept_run(run)
    return kept


def open_nested(attempt: "AttemptContext") -> RunPort:
    """Begin the part of a flow run that a running attempt of a task records itself.

    Its task runs run in this worker, under the attempt. Called at the first task or flow that the
    attempt calls; whoever runs the attempt closes it (`AttemptContext.nested`).
    """
    port: RunPort = import_module("raysched.wiring").open_nested(attempt)
    return port
