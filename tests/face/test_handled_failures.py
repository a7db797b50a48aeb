"""When a failure counts as handled: each row runs as a flow."""

from collections.abc import Callable
from typing import Any

import pytest

from face.around import caught, ignore
from raysched import (
    FlowRunFailed,
    StateType,
    allow_failure,
    as_completed,
    flow,
    task,
    wait,
)


@task
def fail(x: int = 0) -> int:
    raise ValueError(x)


@task
def follow(x: Any) -> Any:
    return x


HANDLED: dict[str, Callable[[], Any]] = {
    "delivered by a call": lambda: ignore(caught(fail)),
    "delivered by result": lambda: ignore(caught(fail.submit().result)),
    "result not raised": lambda: ignore(fail.submit().result(raise_on_failure=False)),
    "return_state of a call": lambda: ignore(fail(return_state=True)),
    "return_state of a submit": lambda: ignore(fail.submit(return_state=True)),
    "return_state of a map": lambda: ignore(fail.map([1, 2], return_state=True)),
    "its own final state read": lambda: ignore(waited(fail.submit()).state),
    "allow_failure": lambda: ignore(follow(allow_failure(fail.submit()))),
    "delivered by a follower": lambda: ignore(caught(follow.submit(fail.submit()).result)),
    "delivered by a call of a follower": lambda: ignore(caught(lambda: follow(fail.submit()))),
    "a follower's result not raised": lambda: ignore(
        follow.submit(fail.submit()).result(raise_on_failure=False)
    ),
    "a follower's return_state": lambda: ignore(follow(fail.submit(), return_state=True)),
    "a map's result": lambda: ignore(caught(fail.map([1, 2, 3]).result)),
    "a map's result not raised": lambda: ignore(fail.map([1, 2]).result(raise_on_failure=False)),
    "a map's states read": lambda: ignore(waited(fail.map([1, 2])).states),
    "the state's result": lambda: ignore(caught(waited(follow.submit(fail.submit())).state.result)),
}

UNHANDLED: dict[str, Callable[[], Any]] = {
    "never looked at": lambda: ignore(fail.submit()),
    "only waited for": lambda: ignore(waited(fail.submit())),
    "wait": lambda: ignore(wait([fail.submit()])),
    "as_completed": lambda: ignore(list(as_completed([fail.submit()]))),
    "its state read while open": lambda: ignore(fail.submit().state),
    "a follower's state read": lambda: ignore(waited(follow.submit(fail.submit())).state),
    "one of two": lambda: ignore(caught(fail.map([1, 2])[0].result)),
    "wait_for": lambda: ignore(follow.submit(1, wait_for=[fail.submit()])),
}


def waited(future: Any) -> Any:
    """Return the future when it is done."""
    future.wait()
    return future


@pytest.mark.parametrize("case", HANDLED)
def test_handled(case: str) -> None:
    around: Any = flow(HANDLED[case], name="around")
    state = around(return_state=True)
    assert state.type is StateType.COMPLETED
    assert "handled" in (state.message or "")


@pytest.mark.parametrize("case", UNHANDLED)
def test_not_handled(case: str) -> None:
    with pytest.raises(FlowRunFailed, match=r"fail\["):
        flow(UNHANDLED[case], name="around")()


def test_handled_but_raised_again() -> None:
    def body() -> None:
        fail()

    with pytest.raises(ValueError, match="0"):
        flow(body)()


def test_in_a_subflow() -> None:
    @flow
    def inner() -> None:
        ignore(fail.submit())

    @flow
    def outer() -> str:
        try:
            inner()
        except FlowRunFailed:
            return "caught"
        return "nothing raised"

    assert outer() == "caught"
