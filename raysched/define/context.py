"""The run context: which flow function, or which attempt of which task run, code runs in."""

import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from raysched.define import ports
from raysched.define.ports import FlowRunStart, RunPort
from raysched.errors import InvalidOption
from raysched.model.ids import task_run_id, task_run_key
from raysched.model.traces import TraceParent, attempt_span_id

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Surroundings:
    """What the attempts of one task in one flow run have in common.

    Attributes:
        flow_run_id: Id of the flow run.
        flow_run_name: Its name.
        flow_name: Name of the flow.
        pickled_parameters: Pickled parameters of the flow run, or b"" where they are too large
            to travel with every unit.
        flow_run_tags: Tags of the flow run.
        task_name: Name of the task.
        tags: Tags of the task runs.
        traceparent: The flow run's span (see `model.traces`), or "" if nothing is traced.
        tracestate: What goes with it, or "".
        execution: Number of the flow run's execution, from 1.
        extension: What takes part in attempts (see `worker.extensions`), or "".
        within: Where these are called by another attempt: its task, index and number.
    """

    flow_run_id: str
    flow_run_name: str
    flow_name: str
    pickled_parameters: bytes
    flow_run_tags: tuple[str, ...]
    task_name: str
    tags: tuple[str, ...]
    traceparent: str = ""
    tracestate: str = ""
    execution: int = 1
    extension: str = ""
    within: tuple[str, int, int] | None = None


class AttemptContext:
    """The attempt that user code runs in; set by the worker around each call.

    Most attempts never look at theirs, so it is made in a microsecond, and works out what it is
    asked for.

    Args:
        surroundings: What it has in common with others.
        index: Its position among the task runs of its name in the flow run.
        attempt: Number of the attempt, from 1.
        log: Takes log records as `(level, logger, message, at in ns)`, or None.

    Attributes:
        rendered_name: The task run's name, or "" where the task has no template.
        load_arguments: Returns the task's arguments by parameter name.
        nested: Where tasks and flows that this attempt calls are recorded, opened by the first of
            them. The worker closes it when the function has ended.
        evidence: Returns what `nested` has run, as plain data for the attempt's report.
    """

    __slots__ = (
        "attempt",
        "evidence",
        "index",
        "load_arguments",
        "log",
        "nested",
        "rendered_name",
        "surroundings",
    )

    def __init__(
        self,
        surroundings: Surroundings,
        index: int,
        attempt: int,
        log: Callable[[int, str, str, int], None] | None = None,
    ) -> None:
        self.surroundings = surroundings
        self.index = index
        self.attempt = attempt
        self.log = log
        self.rendered_name = ""
        self.load_arguments: Callable[[], Mapping[str, Any]] = dict
        self.nested: RunPort | None = None
        self.evidence: Callable[[], Mapping[str, Any]] | None = None

    @property
    def task_run_key(self) -> str:
        """Key of the task run, for example `parse[17]`."""
        return task_run_key(self.surroundings.task_name, self.index)

    @property
    def task_run_name(self) -> str:
        """Its rendered name, the key where the task has no template."""
        return self.rendered_name or self.task_run_key

    @property
    def parameters(self) -> Mapping[str, Any]:
        """A copy of the flow run's parameters, empty where they did not travel."""
        pickled = self.surroundings.pickled_parameters
        if not pickled:
            return {}
        parameters: dict[str, Any] = pickle.loads(pickled)
        return parameters

    @property
    def task_run_id(self) -> str:
        """Id of the task run."""
        return task_run_id(self.surroundings.flow_run_id, self.task_run_key)

    @property
    def as_within(self) -> tuple[str, int, int]:
        """What `Surroundings.within` is of what this attempt calls."""
        around = self.surroundings
        return around.within or (around.task_name, self.index, self.attempt)

    @property
    def span(self) -> TraceParent | None:
        """The `run` span that its spans are below of, or None if nothing is traced."""
        around = self.surroundings
        flow = TraceParent.parse(around.traceparent)
        if flow is None:
            return None
        own = attempt_span_id(around.flow_run_id, around.execution, *self.as_within)
        return flow._replace(span_id=own)

    def nested_port(self) -> RunPort:
        """Return `nested`, opening it where this is the first use."""
        with _opening:
            if self.nested is None:
                self.nested = ports.open_nested(self)
            return self.nested


_opening = threading.Lock()


class Opener(Protocol):
    """What opens the flow runs of subflows: an engine, or the planner of a flow."""

    def open_run(self, start: FlowRunStart) -> RunPort:
        """Begin a flow run (see `ports.Engine.open_run`)."""


@dataclass(frozen=True, slots=True, eq=False)
class FlowContext:
    """The flow function that user code runs in.

    Attributes:
        port: Its flow run.
        run_count: Number of this run of the function within the flow run, from 1.
        opener: What opens its subflows, None for the engine.
        around: The attempt in which the flow was called, or None.
    """

    port: RunPort
    run_count: int = 1
    opener: Opener | None = None
    around: AttemptContext | None = None


Scope: TypeAlias = FlowContext | AttemptContext | None

attempt_context: ContextVar[AttemptContext | None] = ContextVar("attempt_context", default=None)
"""The attempt that this code runs in, or None outside a task run."""

_flow_context: ContextVar[FlowContext | None] = ContextVar("flow_context", default=None)
_Tags: TypeAlias = tuple[AttemptContext | None, tuple[str, ...]]
_tags: ContextVar[_Tags] = ContextVar("tags", default=(None, ()))


def current_scope() -> Scope:
    """Return the innermost flow function or attempt that this code runs in."""
    flow, attempt = _flow_context.get(), attempt_context.get()
    # A backend may run an attempt in the flow's own thread: then the flow is around it.
    return flow if flow is not None and flow.around is attempt else attempt


def current_span() -> TraceParent | None:
    """Return the span of the innermost flow run or attempt here, or None if nothing is traced."""
    scope = current_scope()
    if scope is None:
        return None
    if isinstance(scope, AttemptContext):
        return scope.span
    return TraceParent.parse(scope.port.traceparent)


def current_port() -> RunPort | None:
    """Return where calls of tasks are recorded, or None outside flows and tasks."""
    scope = current_scope()
    if scope is None:
        return None
    return scope.port if isinstance(scope, FlowContext) else scope.nested_port()


def current_opener() -> Opener:
    """Return what opens a flow run that is called here."""
    scope = current_scope()
    if isinstance(scope, FlowContext) and scope.opener is not None:
        return scope.opener
    return ports.engine()


@contextmanager
def in_flow(port: RunPort, run_count: int = 1, opener: Opener | None = None) -> Iterator[None]:
    """Run the block as a flow function (see `FlowContext`)."""
    context = FlowContext(port, run_count, opener, attempt_context.get())
    token = _flow_context.set(context)
    try:
        yield
    finally:
        _flow_context.reset(token)


def in_context(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` as a part of the flow or task that this is called in, for other threads.

    A thread begins with an empty context (`contextvars`): what it calls does not know for which
    flow run or task run it works. What this returns does, whoever calls it, also several threads
    at once: tasks can be called, what is logged and traced belongs to the run, `tags` are in force.
    `asyncio.to_thread` does as much by itself.

    ```python
    with ThreadPoolExecutor() as pool:
        pages = list(pool.map(in_context(fetch), urls))
    ```
    """
    context = copy_context()

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        # A context is entered by one thread at a time.
        return context.copy().run(function, *args, **kwargs)

    return call


def current_tags() -> tuple[str, ...]:
    """Return the tags of the surrounding `tags` blocks, sorted."""
    attempt, tags_there = _tags.get()
    return tags_there if attempt is attempt_context.get() else ()


@contextmanager
def tags(*new_tags: str) -> Iterator[set[str]]:
    """Add tags to the flow runs and task runs that are begun in the block.

    Yields:
        All tags that are in force in the block.

    Raises:
        InvalidOption: A tag is not a string.
    """
    for tag in new_tags:
        if not isinstance(tag, str):
            raise InvalidOption(f"tags(): {tag!r} is not a string; tags are strings")
    in_force = union(current_tags(), new_tags)
    token = _tags.set((attempt_context.get(), in_force))
    try:
        yield set(in_force)
    finally:
        _tags.reset(token)


def union(some: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tags of both, sorted."""
    return tuple(sorted({*some, *others})) if others else some
