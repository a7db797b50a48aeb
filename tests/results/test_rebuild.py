"""From what is kept of a failure back to an exception."""

from __future__ import annotations

import pytest

from raysched.errors import (
    CheckFailed,
    TaskRunCancelled,
    TaskRunFailed,
    TaskRunSkipped,
    TaskRunTimedOut,
)
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, FailureClass, TimeoutKind
from raysched.results.rebuild import exception_of
from raysched.worker.failures import describe_error, describe_timeout


class Picky(Exception):
    """Cannot be rebuilt from its pickle."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def kept(error: BaseException) -> ErrorInfo:
    """Return what is kept of an exception that was raised."""
    try:
        raise error
    except type(error) as raised:
        return describe_error(raised)


def test_the_users_exception_comes_back() -> None:
    error = exception_of("work[1]", StateType.FAILED, kept(KeyError("x")))
    assert (type(error), error.args) == (KeyError, ("x",))
    (note,) = error.__notes__
    assert note.startswith("in task run work[1], on the worker:\nTraceback")
    assert note.endswith("KeyError: 'x'")


def test_one_that_cannot_be_rebuilt_is_told() -> None:
    error = exception_of("work[1]", StateType.FAILED, kept(Picky(1, 2)))
    assert isinstance(error, TaskRunFailed)
    assert str(error) == "work[1] failed: Picky: 1 and 2"
    assert error.remote_traceback.startswith("Traceback")


def test_a_refused_result_comes_back() -> None:
    given = CheckFailed("no rows", key="work[1]")
    error = exception_of("work[1]", StateType.FAILED, kept(given))
    assert isinstance(error, CheckFailed)
    assert (str(error), error.key) == ("no rows", "work[1]")


@pytest.mark.parametrize("kind", TimeoutKind)
def test_timeouts_are_told_by_their_limit(kind: TimeoutKind) -> None:
    info = describe_timeout("work[1]", kind, 2.0)
    error = exception_of("work[1]", StateType.TIMED_OUT, info)
    assert isinstance(error, TaskRunTimedOut)
    assert str(error) == info.message
    assert "timeout_seconds=2" in str(error)


@pytest.mark.parametrize(
    ("state", "given"),
    [
        (StateType.SKIPPED, TaskRunSkipped("no rows")),
        (StateType.CANCELLED, TaskRunCancelled("work[1] was cancelled")),
    ],
)
def test_our_own_words_stay(state: StateType, given: Exception) -> None:
    error = exception_of("work[1]", state, describe_error(given, FailureClass.CANCELLED))
    assert type(error) is type(given)
    assert str(error) == str(given)
