"""When a failure counts as handled: each row runs as a flow."""

from collections.abc import Callable
from typing import Any

import pytest

from raysched import (
    FlowRunFailed,
    StateType,
    UpstreamFailed,
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


def caught(call: Callable[[], Any]) -> None:
    """Call and expect the failure."""
    with pytest.raises((ValueError, UpstreamFailed)):
        call()


HANDLED: dict[str, Callable[[], Any]] = {
    "delivered by a call": lambda: caught(fail),
    "delivered by result": lambda: caught(fail.submit().result),
    "result not raised": lambda: fail.submit().result(raise_on_failure=False) and None,
    "return_state of a call": lambda: fail(return_state=True) and None,
    "return_state of a submit": lambda: fail.submit(return_state=True) and None,
    "return_state of a map": lambda: fail.map([1, 2], return_state=True) and None,
    "its own final state read": lambda: waited(fail.submit()).state and None,
    "allow_failure": lambda: follow(allow_failure(fail.submit())) and None,
    "delivered by a follower": lambda: caught(follow.submit(fail.submit()).result),
    "delivered by a call of a follower": lambda: caught(lambda: follow(fail.submit())),
    "a follower's result not raised": lambda: (
        follow.submit(fail.submit()).result(raise_on_failure=False) and None
    ),
    "a follower's return_state": lambda: follow(fail.submit(), return_state=True) and None,
    "a map's result": lambda: caught(fail.map([1, 2, 3]).result),
    "a map's result not raised": lambda: fail.map([1, 2]).result(raise_on_failure=False) and None,
    "a map's states read": lambda: waited(fail.map([1, 2])).states and None,
    "the state's result": lambda: caught(waited(follow.submit(fail.submit())).state.result),
}

UNHANDLED: dict[str, Callable[[], Any]] = {
    "never looked at": lambda: keep(fail.submit()),
    "only waited for": lambda: keep(waited(fail.submit())),
    "wait": lambda: keep(wait([fail.submit()])),
    "as_completed": lambda: keep(list(as_completed([fail.submit()]))),
    "its state read while open": lambda: keep(fail.submit().state),
    "a follower's state read": lambda: keep(waited(follow.submit(fail.submit())).state),
    "one of two": lambda: caught(fail.map([1, 2])[0].result),
    "wait_for": lambda: keep(follow.submit(1, wait_for=[fail.submit()])),
}


def waited(future: Any) -> Any:
    """Return the future when it is done."""
    future.wait()
    return future


def keep(_: Any) -> None:
    """Do nothing with it."""


@pytest.mark.parametrize("case", HANDLED)
def test_handled(case: str) -> None:
    state = flow(HANDLED[case], name="around")(return_state=True)
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
        fail.submit()

    @flow
    def outer() -> str:
        try:
            inner()
        except FlowRunFailed:
            return "caught"
        return "nothing raised"

    assert outer() == "caught"
