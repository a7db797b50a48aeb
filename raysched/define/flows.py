"""`@flow`: functions whose calls of tasks are recorded, compiled and run."""

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Unpack, overload

from raysched.define.checker import Checker
from raysched.define.decorated import Decorated, declare
from raysched.define.driving import finish
from raysched.define.flow_runs import FlowCaller
from raysched.define.options import FlowOptions
from raysched.define.planning import FlowPlan, OpenEarlier, plan
from raysched.define.ports import Continuation, FlowRunStart
from raysched.define.resuming import start_of_rerun, start_of_resume
from raysched.define.states import State
from raysched.define.task_runners import RayTaskRunner, ThreadPoolTaskRunner
from raysched.define.validation import Validator
from raysched.model.options import FlowSpec, Hooks, RetryOptions

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")

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


class Flow(Decorated[P, R]):
    """A function with options; its calls are flow runs, and calls of flows in it are subflows.

    Args:
        fn: The function; `async def` is fine.
        options: See `FlowOptions`.

    Attributes:
        fn: The function.

    Raises:
        InvalidOption: An option is unknown or impossible.
    """

    word = "flow"
    not_here = _NOT_HERE

    def __init__(
        self,
        fn: "Callable[P, R] | staticmethod[P, R] | classmethod[Any, P, R]",
        **options: Unpack[FlowOptions],
    ) -> None:
        super().__init__(fn, options)
        self._caller = _caller(self, options)

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

    @overload
    def resume(  # type: ignore[overload-overlap] # R of an async flow is its coroutine
        self: "Flow[Q, Coroutine[Any, Any, T]]",
        run: str = ...,
        *,
        rerun_changed: bool = ...,
        confirmed: bool = ...,
        return_state: Literal[True],
    ) -> Coroutine[Any, Any, State[T]]: ...

    @overload
    def resume(
        self,
        run: str = ...,
        *,
        rerun_changed: bool = ...,
        confirmed: bool = ...,
        return_state: Literal[True],
    ) -> State[R]: ...

    @overload
    def resume(
        self,
        run: str = ...,
        *,
        rerun_changed: bool = ...,
        confirmed: bool = ...,
        return_state: Literal[False] = ...,
    ) -> R: ...

    def resume(
        self,
        run: str = "last",
        *,
        rerun_changed: bool = False,
        confirmed: bool = False,
        return_state: bool = False,
    ) -> Any:
        """Go on with a run of this flow that has not completed; return the flow's value.

        The flow function runs again in the same run, with the parameters that it began with. Each
        task run that completed answers the equal call; the rest goes on.

        Args:
            run: The run's id, a unique prefix of it, or `last`.
            rerun_changed: Whether to run again what completed with code that has changed since.
            confirmed: Whether task runs with `idempotent=False` may run again that may have run.
            return_state: Whether to return the final state instead, whatever it is.

        Raises:
            NotResumable: It has completed, is another flow's or a subflow's, its parameters are
                not there, or a task run may run again only if that is confirmed.
            RunNotFound: No run, or more than one, matches.
            RunOwned: Another process, which lives, is working on it.
            Exception: As a call of the flow.
        """
        continues = Continuation(run, rerun_changed=rerun_changed, confirmed=confirmed)
        return self._go(start_of_resume(self._caller, continues), return_state=return_state)

    @overload
    def rerun(  # type: ignore[overload-overlap] # R of an async flow is its coroutine
        self: "Flow[Q, Coroutine[Any, Any, T]]",
        run: str = ...,
        *,
        parameters: Mapping[str, Any] | None = ...,
        again: Iterable[str] = ...,
        rerun_changed: bool = ...,
        confirmed: bool = ...,
        return_state: Literal[True],
    ) -> Coroutine[Any, Any, State[T]]: ...

    @overload
    def rerun(
        self,
        run: str = ...,
        *,
        parameters: Mapping[str, Any] | None = ...,
        again: Iterable[str] = ...,
        rerun_changed: bool = ...,
        confirmed: bool = ...,
        return_state: Literal[True],
    ) -> State[R]: ...

    @overload
    def rerun(
        self,
        run: str = ...,
        *,
        parameters: Mapping[str, Any] | None = ...,
        again: Iterable[str] = ...,
        rerun_changed: bool = ...,
        confirmed: bool = ...,
        return_state: Literal[False] = ...,
    ) -> R: ...

    def rerun(
        self,
        run: str = "last",
        *,
        parameters: Mapping[str, Any] | None = None,
        again: Iterable[str] = (),
        rerun_changed: bool = False,
        confirmed: bool = False,
        return_state: bool = False,
    ) -> Any:
        """Begin a new run that reuses the results of one of this flow; return the flow's value.

        What did not complete there runs, and whatever depends on that, on a parameter that has
        changed, or on what is to run again.

        Args:
            run: The earlier run's id, a unique prefix of it, or `last`.
            parameters: Parameters that change, by name.
            again: Tasks (`"load"`) and task runs (`"load[17]"`) of that run that run again in any
                case, with everything that needs them.
            rerun_changed: As of `resume`.
            confirmed: As of `resume`.
            return_state: As of `resume`.

        Raises:
            NotResumable: It is another flow's or a subflow's, its parameters are not there, or a
                task run may run again only if that is confirmed.
            ParameterError: The parameters do not fit the signature or the annotations.
            RunNotFound: No run, or more than one, matches.
            Exception: As a call of the flow.
        """
        chosen = (again,) if isinstance(again, str) else tuple(again)
        continues = Continuation(
            run, rerun_changed=rerun_changed, again=chosen, confirmed=confirmed
        )
        start = start_of_rerun(self._caller, parameters or {}, continues)
        return self._go(start, return_state=return_state)

    def run_as(self, parameters: Mapping[str, Any], *, key: str = "", run_id: str = "") -> Any:
        """Run the flow as a call with these parameters would, and say which run it is.

        Args:
            parameters: By name.
            key: What makes the run the only one of its kind: there can be no second one with it.
            run_id: Its id, or "" for a new one.

        Raises:
            RunExists: There is a run with this key.
            Exception: As a call of the flow.
        """
        bound = self._caller.signature.bind(self._first, parameters)
        start = replace(self._caller.begin(bound, None, run_id), key=key)
        return self._go(start, return_state=False)

    def parameters_of(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return all parameters of a run that `run_as` would begin: with defaults, coerced.

        Raises:
            ParameterError: They do not fit the signature or the annotations.
        """
        bound = self._caller.signature.bind(self._first, parameters)
        return self._caller.begin(bound, None).parameters

    def _go(self, start: FlowRunStart, *, return_state: bool) -> Any:
        procedure = self._caller.execute(start, return_state=return_state)
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

    def plan_rerun(
        self, parameters: Mapping[str, Any], continues: Continuation, open_earlier: OpenEarlier
    ) -> FlowPlan:
        """Return the graph that a `rerun` begins with: it goes on through what is answered."""
        start = start_of_rerun(self._caller, parameters, continues)
        args, kwargs = self._caller.signature.as_call(start.parameters)
        return plan(start, args, kwargs, open_earlier)

    def with_options(self, **options: Unpack[FlowOptions]) -> "Flow[P, R]":
        """Return a flow of the same function with some options changed. None changes nothing.

        Raises:
            InvalidOption: An option is unknown or impossible.
        """
        return self._changed(options)

    @overload
    def __get__(self, instance: None, owner: type) -> "Flow[P, R]": ...

    @overload
    def __get__(
        self: "Flow[Concatenate[Any, Q], T]", instance: object, owner: type | None = None
    ) -> "Flow[Q, T]": ...

    def __get__(self, instance: object, owner: type | None = None) -> "Flow[Any, Any]":
        bound: Flow[Any, Any] = self._bound(instance, owner)
        return bound

    def _set_hooks(self, hooks: Hooks) -> None:
        self._caller = replace(self._caller, spec=replace(self.spec, hooks=hooks))


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


def _caller(decorated: Flow[Any, Any], options: FlowOptions) -> FlowCaller:
    declared = declare(decorated, options, FlowOptions.__annotations__)
    function, checker = decorated.fn, declared.checker
    retries = checker.integer("retries", 0) or 0
    runner = _task_runner(checker)
    spec = FlowSpec(
        name=declared.name,
        fn=function,
        is_async=inspect.iscoroutinefunction(function),
        retry=RetryOptions(retries, checker.delays(retries)),
        timeout_seconds=checker.number("timeout_seconds", " of seconds", above_zero=True),
        max_parallel=_max_parallel(checker, runner),
        address=runner.address if isinstance(runner, RayTaskRunner) else None,
        init_kwargs=runner.init_kwargs if isinstance(runner, RayTaskRunner) else {},
        flow_run_name=declared.run_name,
        log_prints=checker.flag("log_prints") or False,
        validate_parameters=checker.flag("validate_parameters") is not False,
        persist_result=checker.flag("persist_result"),
        hooks=Hooks(**checker.hooks()),
        flow=decorated,
        description=checker.text("description") or inspect.getdoc(function) or "",
        version=checker.text("version"),
    )
    validator = Validator(declared.what, function, declared.signature)
    return FlowCaller(declared.what, spec, declared.signature, validator)


def _task_runner(checker: Checker) -> RayTaskRunner | ThreadPoolTaskRunner:
    runner = checker.get("task_runner")
    if runner is RayTaskRunner or runner is ThreadPoolTaskRunner:
        runner = runner()
    if runner is not None and not isinstance(runner, RayTaskRunner | ThreadPoolTaskRunner):
        raise checker.fail(
            "task_runner", "must be RayTaskRunner(address=…) or ThreadPoolTaskRunner(max_workers=…)"
        )
    return runner or ThreadPoolTaskRunner()


def _max_parallel(checker: Checker, runner: RayTaskRunner | ThreadPoolTaskRunner) -> int | None:
    """Return the lower of the flow's own limit and its task runner's."""
    of_runner = runner.max_workers if isinstance(runner, ThreadPoolTaskRunner) else None
    limits = (checker.integer("max_parallel", 1), of_runner)
    return min((limit for limit in limits if limit is not None), default=None)
