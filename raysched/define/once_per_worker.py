"""Objects that live as long as a worker: `once_per_worker`."""

import contextlib
import inspect
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, ParamSpec, TypeVar, overload

from raysched.define.annotations import Annotation
from raysched.errors import FutureError, ParameterError
from raysched.graph.digest import digest
from raysched.graph.payload import (
    dump_call,
    is_digesting,
    is_recording,
    object_token,
    worker_object,
)

P = ParamSpec("P")
T = TypeVar("T")


@overload
def once_per_worker(
    factory: Callable[P, AbstractContextManager[T]], /, *args: P.args, **kwargs: P.kwargs
) -> T: ...


@overload
def once_per_worker(
    factory: Callable[P, Iterator[T]], /, *args: P.args, **kwargs: P.kwargs
) -> T: ...


@overload
def once_per_worker(factory: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


def once_per_worker(factory: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
    """An argument that each worker makes once, when a task run first needs it.

    The task gets the object itself, not a copy: all task runs of the worker share it, also those
    of other tasks that declare the same factory with equal arguments. With `max_concurrency` or
    `async def` several use it at once. In `.map` every task run gets it whole.

    At the end of the worker the object is closed. What that means depends on what `factory` is:

    - A generator function yields the object, once; at the end the rest of it runs.
    - If what it returns has a `close` method, that is called.
    - Otherwise, if that is a context manager, it is entered, as by `with`, and left at the end; the
      task gets what `with … as` gives.

    Args:
        factory: A function or class. It travels to the workers as tasks do.
        args: Its arguments, copied (pickled) when they are first passed to a task.
        kwargs: Its arguments by name.

    Returns:
        What stands for the object among the arguments of a task; for type checkers it is the
        object.

    Raises:
        ParameterError: `factory` cannot be called like this, or is asynchronous: what it made
            would belong to an event loop that ends with its unit.
    """
    _check(factory, args, kwargs)
    return OncePerWorker(factory, args, kwargs)


class OncePerWorker:
    """An object that each worker makes once, among the arguments of a task.

    Args:
        factory: What makes it (see `once_per_worker`).
        args: Arguments of the factory.
        kwargs: Arguments of the factory by name.
    """

    __slots__ = ("_key", "_recipe", "args", "factory", "kwargs")

    def __init__(
        self, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.factory = factory
        self.args = args
        self.kwargs = kwargs
        self._key = b""
        self._recipe = b""

    def __reduce__(self) -> tuple[Any, ...]:
        if not is_recording():
            return OncePerWorker, (self.factory, self.args, self.kwargs)
        # Both once, not for each call of a loop.
        if not self._key:
            self._key = digest((self.factory, self.args, self.kwargs), b"once_per_worker")
        if is_digesting():
            return _made_by, (self._key,)
        if not self._recipe:
            self._recipe = self._dumped()
        return worker_object, (object_token(_name(self.factory), self._key), self._recipe)

    def __repr__(self) -> str:
        # Without the arguments, which may be passwords.
        return f"once_per_worker({_name(self.factory)}, …)"

    def _dumped(self) -> bytes:
        """Return how it is made (see `graph.payload.supply_objects`).

        Raises:
            FutureError: It would have to be made from a task run's result.
            SerializationError: The factory or an argument cannot be pickled.
        """
        recipe, futures = dump_call((self.factory, self.args, self.kwargs))
        if futures:
            raise FutureError(
                f"{self!r}: an argument holds a future, but the object may be made long before a "
                "task run has its value, and is shared with others: pass future.result(), or give "
                "the future to the task"
            )
        return b64encode(recipe)


@contextlib.contextmanager
def opened(
    factory: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[Any]:
    """Make an object, and close it at the exit of the block (see `once_per_worker`).

    Raises:
        Exception: What the factory raises, or at the exit what closes the object.
    """
    made = factory(*args, **kwargs)
    if inspect.isgenerator(made):
        made = contextlib.contextmanager(lambda: made)()
    elif callable(getattr(made, "close", None)):
        made = contextlib.closing(made)
    elif not isinstance(made, AbstractContextManager):
        made = contextlib.nullcontext(made)
    with made as value:
        yield value


def call_plainly(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Call a task's function with bare arguments; objects are made for this call."""
    if not any(isinstance(each, OncePerWorker) for each in (*args, *kwargs.values())):
        return function(*map(_bare, args), **{name: _bare(kwargs[name]) for name in kwargs})
    if inspect.iscoroutinefunction(function):
        return _call_async(function, args, kwargs)
    with ExitStack() as stack:
        args, kwargs = _entered(stack, args, kwargs)
        return function(*args, **kwargs)


async def _call_async(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    with ExitStack() as stack:
        args, kwargs = _entered(stack, args, kwargs)
        return await function(*args, **kwargs)


def _entered(
    stack: ExitStack, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def value(argument: Any) -> Any:
        if isinstance(argument, OncePerWorker):
            return stack.enter_context(opened(argument.factory, argument.args, argument.kwargs))
        return _bare(argument)

    return tuple(map(value, args)), {name: value(kwargs[name]) for name in kwargs}


def _bare(argument: Any) -> Any:
    return argument.value if isinstance(argument, Annotation) else argument


def _check(factory: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    if not callable(factory):
        raise ParameterError(
            f"once_per_worker: {factory!r} is not callable: pass the function that makes the "
            "object, not the object"
        )
    if inspect.iscoroutinefunction(factory) or inspect.isasyncgenfunction(factory):
        raise ParameterError(
            f"once_per_worker: {_name(factory)!r} is asynchronous, so that what it makes belongs "
            "to an event loop, and each unit of task runs has one of its own: make such objects "
            "in the task"
        )
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ParameterError(f"once_per_worker: {_name(factory)}{signature}: {error}") from None


def _name(factory: Any) -> str:
    return getattr(factory, "__qualname__", type(factory).__qualname__).rpartition(".")[2]


def _made_by(key: bytes) -> None:
    """Stand for the object in digests. Never called, as they are not unpickled."""
