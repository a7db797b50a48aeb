"""Results that do not pass `check=` fail their task run."""

from typing import Any

import pytest
from pydantic import BaseModel

from face.around import caught, in_flow
from raysched import CheckFailed, StateType, runtime, task


class Row(BaseModel):
    id: int


def give(value: Any) -> Any:
    return value


def not_empty(rows: list[Any]) -> None:
    if not rows:
        raise ValueError("no rows")


def test_a_function_that_says_no() -> None:
    checked = task(give, name="give", check=lambda rows: len(rows) > 1)
    assert in_flow(checked, [1, 2]) == [1, 2]
    text = in_flow(caught, checked, [1])
    assert text.startswith("CheckFailed")


def test_a_function_that_raises() -> None:
    checked = task(give, check=not_empty)
    assert in_flow(checked, [1]) == [1]

    def body() -> tuple[str, str]:
        with pytest.raises(CheckFailed) as raised:
            checked([])
        return str(raised.value), repr(raised.value.__cause__)

    message, cause = in_flow(body)
    assert "no rows" in message
    assert "no rows" in cause or cause == "None"


@pytest.mark.parametrize(
    ("check", "fine", "broken"),
    [
        (Row, {"id": 3}, {"id": "three"}),
        (list[Row], [{"id": 3}], [{"id": "three"}]),
        (int | None, None, "three"),
    ],
    ids=["model", "list of models", "union"],
)
def test_a_type(check: Any, fine: Any, broken: Any) -> None:
    checked = task(give, check=check)
    assert in_flow(checked, fine) == fine
    assert in_flow(caught, checked, broken).startswith("CheckFailed")


def test_true_and_none_are_fine() -> None:
    for answer in (True, None, 1, "yes"):
        assert in_flow(task(give, check=lambda _, answer=answer: answer), 3) == 3


def test_it_is_tried_again() -> None:
    @task(retries=2, check=lambda attempt: attempt == 3)
    def flaky() -> int:
        return runtime.task_run.attempt or 0

    assert in_flow(flaky) == 3


def test_retry_on_sees_it() -> None:
    never = task(give, retries=2, check=not_empty, retry_on=KeyError)
    assert in_flow(caught, never, []).startswith("CheckFailed")


def test_its_state() -> None:
    def body() -> StateType:
        future = task(give, check=not_empty).submit([])
        future.wait()
        return future.state.type

    assert in_flow(body) is StateType.FAILED


def test_of_an_async_task() -> None:
    @task(check=not_empty)
    async def later() -> list[int]:
        return []

    assert in_flow(caught, lambda: later.submit().result()).startswith("CheckFailed")


def test_each_of_a_map() -> None:
    checked = task(give, check=not_empty)
    found = in_flow(lambda: checked.map([[1], []], min_success=1).result().failures)
    assert [type(error) for error in found] == [CheckFailed]
