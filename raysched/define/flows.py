"""`@flow`: functions whose calls of tasks are recorded, compiled and run."""

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    NoReturn,
    ParamSpec,
    TypeVar,
    Unpack,
    overload,
)

from raysched.define.driving import finish
from raysched.define.flow_runs import FlowCaller
from raysched.define.options import Checker, FlowOptions
from raysched.define.planning import FlowPlan, plan
from raysched.define.references import reduce_decorated
from raysched.define.signature import Signature
from raysched.define.states import State
from raysched.define.task_runners import RayTaskRunner, ThreadPoolTaskRunner
from raysched.define.validation import Validator
from raysched.errors import InvalidOption
from raysched.model.options import FlowSpec, Hook, Hooks, RetryOptions

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
H = TypeVar("H", bound=Hook)

_RESERVED = ("return_state", "wait_for")

_NOT_HERE = {
    "serve": "a scheduler of your choice and `raysched run`",
    "deploy": "a scheduler of your choice and `raysched run`",
    "to_deployment": "`raysched run` with the flow's file",
    "from_source": "a clone of the repository and `raysched run`",
    "visualize": ".plan(…), or `raysched graph` with the flow's file",
    "delay": "a call in a thread of your own",
    "submit": "a call; asyncio.gather runs several `async def` flows at once",
    "map": "calls in a loop; asyncio.gather runs several `async def` flows at once",
}
"""Methods of Prefect's flows, or of tasks, that there are not, with what to use instead."""


class Flow(Generic[P, R]):
    """A function with options; its calls are flow runs, and calls of flows in it are subflows.

    Args:
        fn: The function; `async def` is fine.
        options: See `FlowOptions`.

    Attributes:
        fn: The function.

    Raises:
        InvalidOption: An option is unknown or impossible.
    """

    def __init__(
        self,
        fn: "Callable[P, R] | staticmethod[P, R] | classmethod[Any, P, R]",
        **options: Unpack[FlowOptions],
    ) -> None:
        self._kind = type(fn) if isinstance(fn, staticmethod | classmethod) else None
        function: Any = fn if self._kind is None else fn.__func__  # type: ignore[union-attr]
        if not callable(function) or isinstance(function, Flow | type):
            raise InvalidOption(f"@flow needs a function, not {fn!r}")
        functools.update_wrapper(self, function)
        self.fn = function
        self._options = options
        self._first: tuple[Any, ...] = ()
        self._caller = _caller(self, function, options)

    @property
    def name(self) -> str:
        """The flow's name."""
        return self.spec.name

    @property
    def spec(self) -> FlowSpec:
        """The flow with its options, checked."""
        return self._caller.spec

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __call__(
        self: "Flow[P, Coroutine[Any, Any, T]]",
        *args: Any,
        return_state: Literal[True],
        wait_for: Iterable[Any] | None = ...,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...

    @overload
    def __call__(
        self,
        *args: Any,
        return_state: Literal[True],
        wait_for: Iterable[Any] | None = ...,
        **kwargs: Any,
    ) -> State[R]: ...

    @overload
    def __call__(self, *args: Any, wait_for: Iterable[Any] | None, **kwargs: Any) -> R: ...

    def __call__(  # type: ignore[misc] # a ParamSpec cannot say that these names are taken
        self,
        *args: Any,
        return_state: bool = False,
        wait_for: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the flow and return its value, with values in the places of futures in it.

        Args:
            args: Parameters; futures in those of a subflow are waited for.
            return_state: Whether to return the final state instead, whatever it is.
            wait_for: Of a subflow: futures that have to complete first.
            kwargs: Parameters by name.

        Raises:
            ParameterError: The parameters do not fit the signature or the annotations.
            FlowRunFailed: The function returned, but there are failures that nobody handled.
            FlowRunTimedOut: It took longer than its `timeout_seconds`.
            BackendUnreachable: Ray cannot be reached.
            StoreError: The run cannot be kept.
            Exception: What the function raised.
        """
        procedure = self._caller.run(
            self._first + args, kwargs, wait_for, return_state=return_state
        )
        return procedure if self.spec.is_async else finish(procedure)

    def plan(self, *args: P.args, **kwargs: P.kwargs) -> FlowPlan:
        """Return the graph that a call begins with, without running a task.

        The flow function itself is run, until it first waits for a result.

        Raises:
            ParameterError: The parameters do not fit the signature or the annotations.
            Exception: What the function raised until then.
        """
        bound = self._caller.signature.bind(self._first + args, kwargs)
        start = self._caller.begin(bound, None)
        return plan(start, *self._caller.signature.as_call(start.parameters))

    def with_options(self, **options: Unpack[FlowOptions]) -> "Flow[P, R]":
        """Return a flow of the same function with some options changed. None changes nothing.

        Raises:
            InvalidOption: An option is unknown or impossible.
        """
        given = {name: value for name, value in options.items() if value is not None}
        changed: Any = {**self._options, **given}
        return _rebuild(self._undecorated(), changed, self._first)

    def on_running(self, hook: H) -> H:
        """Have `hook(flow, flow_run, state)` called when the function begins; a decorator."""
        return self._add("on_running", hook)

    def on_completion(self, hook: H) -> H:
        """Have `hook(flow, flow_run, state)` called when a flow run completed; a decorator."""
        return self._add("on_completion", hook)

    def on_failure(self, hook: H) -> H:
        """Have `hook(flow, flow_run, state)` called when a flow run failed; a decorator."""
        return self._add("on_failure", hook)

    def on_crashed(self, hook: H) -> H:
        """Have `hook(flow, flow_run, state)` called when a flow run crashed; a decorator."""
        return self._add("on_crashed", hook)

    def on_cancellation(self, hook: H) -> H:
        """Have `hook(flow, flow_run, state)` called when a flow run was cancelled; a decorator."""
        return self._add("on_cancellation", hook)

    @overload
    def __get__(self, instance: None, owner: type) -> "Flow[P, R]": ...

    @overload
    def __get__(
        self: "Flow[Concatenate[Any, Q], T]", instance: object, owner: type | None = None
    ) -> "Flow[Q, T]": ...

    def __get__(self, instance: object, owner: type | None = None) -> "Flow[Any, Any]":
        receiver = owner if self._kind is classmethod else instance
        if receiver is None or self._kind is staticmethod:
            return self
        bound: Flow[Any, Any] = Flow.__new__(Flow)
        bound.__dict__.update(self.__dict__, _first=(receiver,))
        return bound

    def __getattr__(self, name: str) -> NoReturn:
        if name in _NOT_HERE:
            raise AttributeError(f"flows have no .{name}: use {_NOT_HERE[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> Any:
        return reduce_decorated(self, _rebuild, (self._undecorated(), self._options, self._first))

    def __repr__(self) -> str:
        return f"<Flow {self.name}>"

    def _undecorated(self) -> Any:
        kind: Any = self._kind
        return self.fn if kind is None else kind(self.fn)

    def _add(self, kind: str, hook: H) -> H:
        if not callable(hook):
            raise InvalidOption(f"flow {self.name!r}: {kind} needs a function, not {hook!r}")
        hooks = self.spec.hooks
        hooks = replace(hooks, **{kind: (*getattr(hooks, kind), hook)})
        self._caller = replace(self._caller, spec=replace(self.spec, hooks=hooks))
        self._options = {**self._options, kind: getattr(hooks, kind)}  # type: ignore[misc]
        return hook


@overload
def flow(fn: "staticmethod[P, R]", /, **options: Unpack[FlowOptions]) -> Flow[P, R]: ...


@overload
def flow(fn: Callable[P, R], /, **options: Unpack[FlowOptions]) -> Flow[P, R]: ...


@overload
def flow(
    fn: None = None, /, **options: Unpack[FlowOptions]
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...


def flow(fn: Any = None, /, **options: Unpack[FlowOptions]) -> Any:
    """Make a function a flow: `@flow` or `@flow(retries=1, timeout_seconds=3600)`.

    Args:
        fn: The function; `async def` is fine.
        options: See `FlowOptions`.

    Raises:
        InvalidOption: An option is unknown or impossible.
    """
    if fn is None:
        Checker("@flow", options, FlowOptions.__annotations__)
        return lambda function: Flow(function, **options)
    return Flow(fn, **options)


def _caller(
    decorated: Flow[Any, Any], function: Callable[..., Any], options: FlowOptions
) -> FlowCaller:
    name = str(options.get("name") or getattr(function, "__name__", type(function).__name__))
    what = f"flow {name!r}"
    checker = Checker(what, options, FlowOptions.__annotations__)
    signature = Signature(what, function)
    for reserved in _RESERVED:
        if reserved in signature.names:
            raise InvalidOption(f"{what}: a parameter cannot be named {reserved!r}: rename it")
    run_name = checker.run_name("flow_run_name")
    if isinstance(run_name, str):
        signature.check_template("flow_run_name", run_name)
    retries = checker.integer("retries", 0) or 0
    runner = _task_runner(checker)
    spec = FlowSpec(
        name=checker.text("name") or name,
        fn=function,
        is_async=inspect.iscoroutinefunction(function),
        retry=RetryOptions(retries, checker.delays(retries)),
        timeout_seconds=checker.number("timeout_seconds", " of seconds", above_zero=True),
        max_workers=runner.max_workers if isinstance(runner, ThreadPoolTaskRunner) else None,
        address=runner.address if isinstance(runner, RayTaskRunner) else None,
        init_kwargs=runner.init_kwargs if isinstance(runner, RayTaskRunner) else {},
        flow_run_name=run_name,
        log_prints=checker.flag("log_prints") or False,
        validate_parameters=checker.flag("validate_parameters") is not False,
        persist_result=checker.flag("persist_result"),
        hooks=Hooks(**checker.hooks()),
        flow=decorated,
        description=checker.text("description") or inspect.getdoc(function) or "",
        version=checker.text("version"),
    )
    return FlowCaller(what, spec, signature, Validator(what, function, signature))


def _task_runner(checker: Checker) -> RayTaskRunner | ThreadPoolTaskRunner:
    runner = checker.get("task_runner")
    if runner is RayTaskRunner or runner is ThreadPoolTaskRunner:
        runner = runner()
    if runner is not None and not isinstance(runner, RayTaskRunner | ThreadPoolTaskRunner):
        raise checker.fail(
            "task_runner", "must be RayTaskRunner(address=…) or ThreadPoolTaskRunner(max_workers=…)"
        )
    return runner or ThreadPoolTaskRunner()


def _rebuild(fn: Any, options: FlowOptions, first: tuple[Any, ...]) -> Flow[Any, Any]:
    rebuilt: Flow[Any, Any] = Flow(fn, **options)
    rebuilt._first = first  # noqa: SLF001 - its own class
    return rebuilt
