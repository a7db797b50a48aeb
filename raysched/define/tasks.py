"""`@task`: plain functions that flows run as tracked tasks."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Unpack, overload

from raysched.define.annotations import unmapped
from raysched.define.calling import hint
from raysched.define.checker import Checker
from raysched.define.context import current_port, current_scope
from raysched.define.declaring import caller_of
from raysched.define.decorated import Decorated, H
from raysched.define.driving import finish
from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.define.once_per_worker import call_plainly
from raysched.define.options import Rule, TaskOptions
from raysched.define.partial import PartialFutureList
from raysched.define.ports import RunPort
from raysched.define.states import State
from raysched.errors import FutureError
from raysched.model.options import Hooks, TaskSpec
from raysched.model.triggers import MinSuccess

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")

_NOT_HERE = {
    "delay": ".submit(…) in a flow",
    "apply_async": ".submit(…) in a flow",
    "serve": "`raysched run` with the flow's file",
}


class Task(Decorated[P, R]):
    """A function with options. In a flow its calls are task runs; elsewhere it is the function.

    Args:
        fn: The function; `async def` is fine.
        options: See `TaskOptions`.

    Attributes:
        fn: The function.
        name: The task's name.

    Raises:
        InvalidOption: An option is unknown or impossible.
    """

    word = "task"
    not_here = _NOT_HERE

    def __init__(
        self,
        fn: "Callable[P, R] | staticmethod[P, R] | classmethod[Any, P, R]",
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(fn, options)
        self._caller = caller_of(self, options)

    @property
    def spec(self) -> TaskSpec:
        """The task with its options, checked."""
        return self._caller.spec

    @property
    def tags(self) -> set[str]:
        """The task's tags."""
        return set(self.spec.tags)

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __call__(
        self: "Task[P, Coroutine[Any, Any, T]]",
        *args: Any,
        return_state: Literal[True],
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...

    @overload
    def __call__(
        self,
        *args: Any,
        return_state: Literal[True],
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        **kwargs: Any,
    ) -> State[R]: ...

    @overload
    def __call__(
        self,
        *args: Any,
        wait_for: Iterable[Any] | None,
        trigger_rule: Rule | None = ...,
        **kwargs: Any,
    ) -> R: ...

    @overload
    def __call__(self, *args: Any, trigger_rule: Rule | None, **kwargs: Any) -> R: ...

    def __call__(  # type: ignore[misc] # a ParamSpec cannot say that these names are taken
        self,
        *args: Any,
        return_state: bool = False,
        wait_for: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the task and return its value; in a flow as a task run, elsewhere as a function.

        Args:
            args: Arguments; futures stand for their values.
            return_state: Whether to return the final state instead, whatever it is.
            wait_for: Futures that have to complete first.
            kwargs: Arguments by name. `trigger_rule` is none, unless the function has a parameter
                of that name: it takes the place of the task's option for this task run.

        Raises:
            InvalidOption: There is no such trigger rule.
            ParameterError: The arguments do not fit the signature.
            SerializationError: An argument cannot be pickled.
            UpstreamFailed: It never ran, because of the failures it names.
            Exception: What the function raised, or a `TaskRunError`.
        """
        args = self._first + args
        extra = self._caller.taken(kwargs, "trigger_rule")
        if current_scope() is None:
            hint(self.spec)
            return call_plainly(self.fn, args, kwargs)
        procedure = self._run(args, kwargs, wait_for, extra, return_state=return_state)
        return procedure if self.spec.is_async else finish(procedure)

    @overload
    def submit(
        self: "Task[P, Coroutine[Any, Any, T]]",
        *args: Any,
        return_state: Literal[False] = ...,
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        **kwargs: Any,
    ) -> TaskFuture[T]: ...

    @overload
    def submit(
        self,
        *args: Any,
        return_state: Literal[False] = ...,
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        **kwargs: Any,
    ) -> TaskFuture[R]: ...

    @overload
    def submit(
        self: "Task[P, Coroutine[Any, Any, T]]",
        *args: Any,
        return_state: Literal[True],
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        **kwargs: Any,
    ) -> State[T]: ...

    @overload
    def submit(
        self,
        *args: Any,
        return_state: Literal[True],
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        **kwargs: Any,
    ) -> State[R]: ...

    def submit(
        self,
        *args: Any,
        return_state: bool = False,
        wait_for: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Begin a task run and return its future at once.

        Args:
            args: Arguments; futures stand for their values. They are copied (pickled) now.
            return_state: Whether to wait and return the final state instead.
            wait_for: Futures that have to complete first.
            kwargs: Arguments by name. `trigger_rule` is none, unless the function has a parameter
                of that name: it takes the place of the task's option for this task run.

        Raises:
            InvalidOption: There is no such trigger rule.
            FutureError: Not in a flow, or a future belongs to another flow run.
            ParameterError: The arguments do not fit the signature.
            SerializationError: An argument cannot be pickled.
        """
        port, args = self._port("submit"), self._first + args
        extra = self._caller.taken(kwargs, "trigger_rule")
        future = self._caller.record(port, args, kwargs, wait_for, waiting=False, **extra)
        return finish(future.final_state(blocking=True)) if return_state else future

    @overload
    def map(
        self: "Task[P, Coroutine[Any, Any, T]]",
        *args: Any,
        min_success: float | MinSuccess,
        return_state: Literal[False] = ...,
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        **kwargs: Any,
    ) -> PartialFutureList[T]: ...

    @overload
    def map(
        self,
        *args: Any,
        min_success: float | MinSuccess,
        return_state: Literal[False] = ...,
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        **kwargs: Any,
    ) -> PartialFutureList[R]: ...

    @overload
    def map(
        self: "Task[P, Coroutine[Any, Any, T]]",
        *args: Any,
        return_state: Literal[False] = ...,
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        min_success: None = ...,
        **kwargs: Any,
    ) -> TaskFutureList[T]: ...

    @overload
    def map(
        self,
        *args: Any,
        return_state: Literal[False] = ...,
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        min_success: None = ...,
        **kwargs: Any,
    ) -> TaskFutureList[R]: ...

    @overload
    def map(
        self: "Task[P, Coroutine[Any, Any, T]]",
        *args: Any,
        return_state: Literal[True],
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        min_success: float | MinSuccess | None = ...,
        **kwargs: Any,
    ) -> list[State[T]]: ...

    @overload
    def map(
        self,
        *args: Any,
        return_state: Literal[True],
        wait_for: Iterable[Any] | None = ...,
        trigger_rule: Rule | None = ...,
        min_success: float | MinSuccess | None = ...,
        **kwargs: Any,
    ) -> list[State[R]]: ...

    def map(
        self,
        *args: Any,
        return_state: bool = False,
        wait_for: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Begin a task run for each element of the iterable arguments; return futures at once.

        Args:
            args: Arguments: all that can be iterated are, side by side, but texts, bytes, files
                and what is `unmapped`. A future is waited for, and its value iterated.
            return_state: Whether to wait and return the final states instead.
            wait_for: Futures that have to complete before any of them.
            kwargs: Arguments by name. Two are none, unless the function has a parameter of that
                name: `min_success`, how many of the task runs have to succeed (3), or which share
                of them (0.95), so that the failures of the others are handled and left out where
                the list is used; and `trigger_rule`, in the place of the task's option.

        Raises:
            InvalidOption: There is no such trigger rule, or `min_success` cannot be.
            MapError: Nothing can be iterated, or lengths differ.
            FutureError: Not in a flow, or a future belongs to another flow run.
            ParameterError: The arguments do not fit the signature.
            SerializationError: An argument cannot be pickled.
        """
        port, args = self._port("map"), (*map(unmapped, self._first), *args)
        extra = self._caller.taken(kwargs, "trigger_rule", "min_success")
        futures = self._caller.record_map(port, args, kwargs, wait_for, **extra)
        return finish(futures.final_states(blocking=True)) if return_state else futures

    def with_options(self, **options: Unpack[TaskOptions]) -> "Task[P, R]":
        """Return a task of the same function with some options changed. None changes nothing.

        Raises:
            InvalidOption: An option is unknown or impossible.
        """
        return self._changed(options)

    @overload
    def __get__(self, instance: None, owner: type) -> "Task[P, R]": ...

    @overload
    def __get__(
        self: "Task[Concatenate[Any, Q], T]", instance: object, owner: type | None = None
    ) -> "Task[Q, T]": ...

    def __get__(self, instance: object, owner: type | None = None) -> "Task[Any, Any]":
        bound: Task[Any, Any] = self._bound(instance, owner)
        return bound

    async def _run(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        wait_for: Iterable[Any] | None,
        extra: dict[str, Any],
        *,
        return_state: bool,
    ) -> Any:
        blocking = not self.spec.is_async
        future = self._caller.record(
            self._port("__call__"), args, kwargs, wait_for, waiting=True, **extra
        )
        if return_state:
            return await future.final_state(blocking=blocking)
        return await future.outcome(None, raising=True, blocking=blocking)

    def _port(self, method: str) -> RunPort:
        port = current_port()
        if port is None:
            raise FutureError(
                f"task {self.name!r}: .{method}() only works in a flow: put it into a function "
                "with @flow, or call the task. A thread of your own enters the flow by "
                "raysched.in_context(function)"
            )
        return port

    def on_commit(self, hook: H) -> H:
        """Have `hook(transaction)` called when the transaction around a call commits; a decorator.

        See `transaction`.
        """
        return self._add("on_commit", hook)

    def on_rollback(self, hook: H) -> H:
        """Have `hook(transaction)` called when the transaction around a call is rolled back.

        A decorator; see `transaction`. It is called if the task run had completed.
        """
        return self._add("on_rollback", hook)

    def _set_hooks(self, hooks: Hooks) -> None:
        self._caller.change(hooks=hooks)


@overload
def task(fn: "staticmethod[P, R]", /, **options: Unpack[TaskOptions]) -> Task[P, R]: ...


@overload
def task(fn: Callable[P, R], /, **options: Unpack[TaskOptions]) -> Task[P, R]: ...


@overload
def task(
    fn: None = None, /, **options: Unpack[TaskOptions]
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(fn: Any = None, /, **options: Unpack[TaskOptions]) -> Any:
    """Make a function a task: `@task` or `@task(retries=3, num_cpus=2)`.

    Args:
        fn: The function; `async def` is fine.
        options: See `TaskOptions`.

    Raises:
        InvalidOption: An option is unknown or impossible.
    """
    if fn is None:
        Checker("@task", options, TaskOptions.__annotations__)
        return lambda function: Task(function, **options)
    return Task(fn, **options)
