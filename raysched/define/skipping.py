"""Ending a task run as SKIPPED from inside: by `skip`, or by a predicate on an argument."""

import base64
from collections.abc import Callable
from functools import lru_cache
from pickle import loads
from typing import Any, NoReturn, TypeVar

from raysched.define.annotations import Annotation
from raysched.errors import InvalidOption, TaskRunSkipped
from raysched.graph.payload import dumps, is_digesting, without_slots

T = TypeVar("T")


class PredicateRaised(Exception):
    """The predicate of a `when` raised; its cause is that exception, the user's own."""


def skip(reason: str) -> NoReturn:
    """End the task run that this is called in as SKIPPED.

    What needs its value is skipped too, unless its trigger rule says otherwise. That is no failure:
    a flow with skipped task runs completes.

    Args:
        reason: Why, for people; kept with the task run.

    Raises:
        TaskRunSkipped: Always; outside a task run that is just an exception.
    """
    raise TaskRunSkipped(reason)


class when(Annotation[T]):  # noqa: N801 - like the other marks on arguments
    """An argument that has to meet a condition, otherwise the task run is SKIPPED.

    `load.submit(when(extracted, has_rows))` runs only if `has_rows(value)` is true of what the task
    would get; with `.map` each element is asked about. The predicate runs in the worker, just
    before the task. If it raises, the task run fails by that exception, with a note that says so;
    what `skip` raises in it ends the task run as SKIPPED.

    It is asked about what the task would get: with `allow_failure`, whichever of the two is the
    outer one, that may be the exception of a task run that failed.

    Args:
        value: The argument: mostly a future, or a list of futures.
        predicate: A function of the argument's value; a lambda will do, and so does `bool`.

    Raises:
        InvalidOption: The predicate is no function.
    """

    __slots__ = ("_predicate",)

    def __init__(self, value: T, predicate: Callable[[Any], object]) -> None:
        super().__init__(value)
        self._predicate = predicate if isinstance(predicate, _Predicate) else _Predicate(predicate)

    def rewrap(self, value: Any) -> "when[Any]":
        """Return the same condition on another value."""
        return when(value, self._predicate)

    def asked(self, value: Any) -> Any:
        """Return the value that has taken the place of what is marked, if it meets the condition.

        Raises:
            TaskRunSkipped: It does not.
            Exception: What the predicate raised.
        """
        return self._predicate(value)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, when)
            and bool(self.value == other.value)
            and self._predicate.function == other._predicate.function
        )

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _asked, (self.value, self._predicate)

    def __repr__(self) -> str:
        return f"when({self.value!r}, {self._predicate.name})"


class _Predicate:
    """A predicate that is pickled once, however many task runs are asked about it."""

    __slots__ = ("_pickled", "function", "name")

    def __init__(self, function: Any, pickled: str = "") -> None:
        if not callable(function):
            raise InvalidOption(
                f"when(…, {function!r}): the predicate must be a function of the argument's value"
            )
        self.function: Callable[[Any], object] = function
        self.name: str = getattr(function, "__qualname__", repr(function)).rpartition(".")[2]
        self._pickled = pickled

    def __call__(self, value: T) -> T:
        """Return the value if it meets the predicate.

        Raises:
            TaskRunSkipped: It does not.
            Exception: What the predicate raised.
        """
        try:
            is_met = bool(self.function(value))
        except TaskRunSkipped:
            raise
        except Exception as error:
            error.add_note(f"the predicate of when(…, {self.name}) raised this")
            raise
        if not is_met:
            raise TaskRunSkipped(f"when(…, {self.name}) is not met")
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        if is_digesting():
            return _Predicate, (self.function,)
        if not self._pickled:
            # In Base64 names of modules that travel by value do not show through, so that they
            # concern this one pickle and not those around it.
            with without_slots():
                self._pickled = base64.b64encode(dumps(self.function)).decode()
        return _predicate, (self._pickled,)


@lru_cache(maxsize=256)
def _predicate(pickled: str) -> _Predicate:
    return _Predicate(loads(base64.b64decode(pickled)), pickled)


def _asked(value: Any, predicate: _Predicate) -> Any:
    """Return the value if it meets the predicate: what `when` is unpickled to.

    Raises:
        TaskRunSkipped: It does not.
        PredicateRaised: The predicate raised: not to be taken for what unpickling raises.
    """
    try:
        return predicate(value)
    except TaskRunSkipped:
        raise
    except Exception as error:
        raise PredicateRaised from error
