"""The user's function of one task, ready to be called with what a unit carries."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from raysched.define.own_code import home_of
from raysched.errors import ResultError, SerializationError
from raysched.graph.payload import ATOMS
from raysched.model.values import RetryVerdict
from raysched.results.envelope import Encoded, encode
from raysched.worker.context import WorkerContext
from raysched.worker.failures import bounded

if TYPE_CHECKING:
    from raysched.worker.masking import Masks
    from raysched.worker.verdicts import Check

NAME_MAX_CHARACTERS = 1000
"""Rendered task run names are cut beyond this length."""

CallArguments: TypeAlias = tuple[Sequence[Any], Mapping[str, Any]]

_BY_KEYWORD = frozenset({inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY})


class TaskCode:
    """The user's function and what surrounds it, loaded once in each worker.

    Args:
        context: The task.

    Attributes:
        context: The task.
        function: The user's function.
        check: Tests what it returned, or None.
        retry_on: Exception classes, or a function of the exception, or None.

    Raises:
        SerializationError: The function, or one of the task's options, cannot be loaded here.
    """

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self.function = context.function.resolve()
        name = context.task_run_name
        self._name = name if name is None or isinstance(name, str) else name.resolve()
        self.check = None if context.check is None else _check_of(context)
        given = context.retry_on
        self.retry_on: Any = (
            tuple(each.resolve() for each in given)
            if isinstance(given, tuple)
            else given and given.resolve()
        )

    @cached_property
    def signature(self) -> inspect.Signature | None:
        """Signature of the function; None for those in C that do not tell."""
        try:
            return inspect.signature(self.function)
        except (TypeError, ValueError):
            return None

    @cached_property
    def home(self) -> str:
        """The library that the function is in, "" if it is in none."""
        return home_of(self.function)

    @cached_property
    def masks(self) -> "Masks":
        """What must not be shown of its arguments."""
        from raysched.worker.masking import masks_of

        return masks_of(self.context.masks)

    def retry_verdict(self, error: BaseException) -> RetryVerdict | None:
        """Return what the option `retry_on=` says of an exception; None where there is none."""
        if self.retry_on is None:
            return None
        from raysched.worker.verdicts import retry_verdict

        return retry_verdict(self.retry_on, error)

    @property
    def has_name(self) -> bool:
        """Whether there is a template for the names of task runs."""
        return self._name is not None

    def render_name(self, arguments: Mapping[str, Any]) -> str:
        """Return the task run's name, where there is a template.

        Raises:
            Exception: What the user's template or function raises.
        """
        assert self._name is not None  # noqa: S101 - see has_name
        name = self._name.format(**arguments) if isinstance(self._name, str) else self._name()
        return bounded(str(name), NAME_MAX_CHARACTERS)

    def encode_result(self, value: object) -> Encoded:
        """Encode what the function returned.

        Raises:
            SerializationError: It cannot be pickled, or does not fit the task's serializer.
            ResultError: It is too large.
        """
        name, serializer = self.context.task_name, self.context.serializer
        if type(value) in ATOMS and not serializer:
            return self._limited(encode(value))
        if inspect.isgenerator(value) or inspect.isasyncgen(value):
            raise SerializationError(
                f"task {name!r} returned a generator, which cannot leave the worker: return a list"
            )
        if inspect.iscoroutine(value):
            value.close()
            raise SerializationError(
                f"task {name!r} returned a coroutine: declare the function with `async def`"
            )
        try:
            encoded = encode(value, serializer)
        except SerializationError as error:
            if serializer:
                raise SerializationError(
                    f"the result of task {name!r} does not fit {serializer!r}: {error}"
                ) from error
            raise SerializationError(
                f"the result of task {name!r} cannot be pickled: {error}. Return plain data, or "
                "save it in the task and return its path"
            ) from error
        return self._limited(encoded)

    def _limited(self, encoded: Encoded) -> Encoded:
        name, limit = self.context.task_name, self.context.result_max_bytes
        if encoded.size > limit:
            raise ResultError(
                f"the result of task {name!r} has {encoded.size:,} bytes, more than "
                f"RAYSCHED_RESULT_MAX_BYTES={limit:,}: save it in the task and return its path"
            )
        return encoded

    def by_parameter(self, values: dict[str, Any]) -> CallArguments:
        """Return the call with these arguments by parameter name; takes `values` over."""
        if self._takes_keywords:
            return (), values
        assert self.signature is not None  # noqa: S101 - otherwise keywords are all there is
        known = {name: values.pop(name) for name in self.signature.parameters if name in values}
        bound = inspect.BoundArguments(self.signature, known)
        return bound.args, {**bound.kwargs, **values}

    @cached_property
    def _takes_keywords(self) -> bool:
        if self.signature is None:
            return True
        return all(
            parameter.kind in _BY_KEYWORD for parameter in self.signature.parameters.values()
        )


def _check_of(context: WorkerContext) -> "Check":
    # Few tasks have one, and all workers would load what it takes.
    from raysched.worker.masking import masks_of
    from raysched.worker.verdicts import check_of

    assert context.check is not None  # noqa: S101 - asked before
    return check_of(context.check.resolve(), masks_of(context.masks))


class NamedArguments(Mapping[str, Any]):
    """The arguments of one call by parameter name, bound when somebody asks."""

    def __init__(self, signature: inspect.Signature | None, call: CallArguments) -> None:
        self._signature = signature
        self._call = call

    @cached_property
    def _bound(self) -> Mapping[str, Any]:
        args, kwargs = self._call
        if self._signature is None:
            return kwargs
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def __getitem__(self, name: str) -> Any:
        return self._bound[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bound)

    def __len__(self) -> int:
        return len(self._bound)


@lru_cache(maxsize=256)
def code_of(context: WorkerContext) -> TaskCode:
    """Return the code of a task, loading it where this is the first unit.

    Raises:
        SerializationError: The function cannot be loaded here.
    """
    return TaskCode(context)
