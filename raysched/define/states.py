"""States as users see and make them, in Prefect's words."""

import time
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar, overload

from raysched.errors import (
    FutureError,
    ResultError,
    TaskRunCancelled,
    TaskRunCrashed,
    TaskRunError,
    TaskRunFailed,
    TaskRunSkipped,
    TaskRunTimedOut,
    UpstreamFailed,
)
from raysched.graph.payload import is_recording
from raysched.model.states import FAILURES, StateType

R = TypeVar("R")

ERRORS: dict[StateType, type[TaskRunError]] = {
    StateType.FAILED: TaskRunFailed,
    StateType.TIMED_OUT: TaskRunTimedOut,
    StateType.CRASHED: TaskRunCrashed,
    StateType.UPSTREAM_FAILED: UpstreamFailed,
    StateType.CANCELLED: TaskRunCancelled,
    StateType.SKIPPED: TaskRunSkipped,
}
"""What is raised for a run that ended without a value, where there is nothing of the user's own."""


class State(Generic[R]):
    """The state of a flow run or task run at one moment.

    Tasks and flows may return one (`return Failed(message="no rows")`) to say how they ended.

    Args:
        type: The type, which rules work on.
        name: A free name, by default that of the type.
        message: Why, for people.
        data: The value of a success; of a failure the exception or its text.
        timestamp: When it was entered (seconds since the epoch), by default now.
        load: Returns `data` when somebody asks, in its place.
    """

    __slots__ = ("_data", "_load", "message", "name", "timestamp", "type")

    def __init__(
        self,
        type: StateType,  # noqa: A002 - Prefect's word
        name: str | None = None,
        message: str | None = None,
        data: R | BaseException | str | None = None,
        *,
        timestamp: float | None = None,
        load: Callable[[], Any] | None = None,
    ) -> None:
        self.type = type
        self.name = name or "".join(word.capitalize() for word in type.name.split("_"))
        self.message = message
        self.timestamp = time.time() if timestamp is None else timestamp
        self._data: Any = data
        self._load = load

    @property
    def data(self) -> Any:
        """The value of a success, or the exception of a failure."""
        if self._load is not None:
            self._data, self._load = self._load(), None
        return self._data

    @property
    def cause(self) -> BaseException | None:
        """The exception of a failure, None otherwise; what it followed from is its `__cause__`.

        Of a task run that never ran that is the exception of the first root.
        """
        return self._exception() if self.type in FAILURES else None

    @overload
    def result(self, raise_on_failure: Literal[True] = ...) -> R: ...

    @overload
    def result(self, raise_on_failure: bool) -> R | BaseException: ...  # noqa: FBT001

    def result(self, raise_on_failure: bool = True) -> Any:  # noqa: FBT001, FBT002 - as in Prefect
        """Return the value, or raise why there is none.

        Args:
            raise_on_failure: False returns the exception instead of raising it.

        Raises:
            ResultError: The state is not final.
        """
        if not self.is_final():
            raise ResultError(
                f"the run is {self.name}, it has no result yet: wait for it, future.wait()"
            )
        if self.type not in ERRORS:
            return self.data
        error = self._exception()
        if raise_on_failure:
            raise error
        return error

    def _exception(self) -> BaseException:
        data = self.data
        if isinstance(data, BaseException):
            return data
        if isinstance(data, State):
            return data._exception()  # noqa: SLF001 - its own class
        message = data if isinstance(data, str) else self.message
        return ERRORS[self.type](message or f"the run ended {self.name}")

    def is_scheduled(self) -> bool:
        """Whether it waits for its parents."""
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        """Whether it could run and waits for room."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Whether it runs."""
        return self.type is StateType.RUNNING

    def is_awaiting_retry(self) -> bool:
        """Whether it waits for its next attempt."""
        return self.type is StateType.AWAITING_RETRY

    def is_paused(self) -> bool:
        """Whether it is paused."""
        return self.type is StateType.PAUSED

    def is_cancelling(self) -> bool:
        """Whether it is about to be cancelled."""
        return self.type is StateType.CANCELLING

    def is_final(self) -> bool:
        """Whether nothing leaves this state."""
        return self.type.is_terminal

    def is_completed(self) -> bool:
        """Whether it ended well: COMPLETED, CACHED or SKIPPED."""
        return self.type.is_terminal and self.type not in FAILURES

    def is_cached(self) -> bool:
        """Whether its value was known already."""
        return self.type is StateType.CACHED

    def is_skipped(self) -> bool:
        """Whether there was no reason to run it."""
        return self.type is StateType.SKIPPED

    def is_failed(self) -> bool:
        """Whether it FAILED, TIMED_OUT or is UPSTREAM_FAILED, which are Prefect's `FAILED`."""
        return self.type in {StateType.FAILED, StateType.TIMED_OUT, StateType.UPSTREAM_FAILED}

    def is_timed_out(self) -> bool:
        """Whether it took longer than its `timeout_seconds`."""
        return self.type is StateType.TIMED_OUT

    def is_upstream_failed(self) -> bool:
        """Whether it never ran because of a failure before it."""
        return self.type is StateType.UPSTREAM_FAILED

    def is_crashed(self) -> bool:
        """Whether the infrastructure under it broke."""
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.type is StateType.CANCELLED

    def __reduce__(self) -> tuple[Any, ...]:
        if is_recording():  # an argument of a call: as in Prefect, the task gets its value
            if not self.is_completed():
                raise FutureError(
                    f"a state that is {self.name} has no value to pass to a task; "
                    "allow_failure(state) passes its exception"
                ) from (self._exception() if self.is_final() else None)
            return _same, (self.result(),)
        return _rebuild, (self.type, self.name, self.message, self.data, self.timestamp)

    def __repr__(self) -> str:
        return f"{self.name}(message={self.message!r}, type={self.type.name})"

    def __str__(self) -> str:
        return f"{self.name}({self.message!r})" if self.message else f"{self.name}()"


def _same(value: Any) -> Any:
    return value


def _rebuild(
    state_type: StateType, name: str, message: str | None, data: Any, timestamp: float
) -> State[Any]:
    return State(state_type, name, message, data, timestamp=timestamp)


def Scheduled(*, name: str | None = None, message: str | None = None) -> State[Any]:  # noqa: N802
    """Return a state of type SCHEDULED."""
    return State(StateType.SCHEDULED, name, message)


def Pending(*, name: str | None = None, message: str | None = None) -> State[Any]:  # noqa: N802
    """Return a state of type PENDING."""
    return State(StateType.PENDING, name, message)


def Running(*, name: str | None = None, message: str | None = None) -> State[Any]:  # noqa: N802
    """Return a state of type RUNNING."""
    return State(StateType.RUNNING, name, message)


def Completed(  # noqa: N802
    *, data: R | None = None, name: str | None = None, message: str | None = None
) -> State[R]:
    """Return a state of type COMPLETED with a value."""
    return State(StateType.COMPLETED, name, message, data)


def Failed(  # noqa: N802
    *,
    data: BaseException | str | None = None,
    name: str | None = None,
    message: str | None = None,
) -> State[Any]:
    """Return a state of type FAILED with an exception or its text."""
    return State(StateType.FAILED, name, message, data)


def Crashed(  # noqa: N802
    *,
    data: BaseException | str | None = None,
    name: str | None = None,
    message: str | None = None,
) -> State[Any]:
    """Return a state of type CRASHED with an exception or its text."""
    return State(StateType.CRASHED, name, message, data)


def Cancelled(  # noqa: N802
    *,
    data: BaseException | str | None = None,
    name: str | None = None,
    message: str | None = None,
) -> State[Any]:
    """Return a state of type CANCELLED with an exception or its text."""
    return State(StateType.CANCELLED, name, message, data)
