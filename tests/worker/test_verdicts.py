"""`retry_on=` and `check=`, as the worker understands them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from raysched import Fail, Retry
from raysched.errors import CheckFailed
from raysched.worker.masking import MASK, Masks
from raysched.worker.verdicts import REASON_MAX_CHARACTERS, check_of, retry_verdict

NEITHER = "which is neither a bool nor Retry(…) nor Fail(…)"
SECRET = "hunter2"  # noqa: S105 - nobody's


def chained(*errors: BaseException, explicit: bool = True) -> BaseException:
    """Return the first one, which followed from the second one, and so on."""
    for error, cause in pairwise(errors):
        if explicit:
            error.__cause__ = cause
        else:
            error.__context__ = cause
    return errors[0]


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (ConnectionResetError(), True),
        (ValueError(), False),
        (chained(ValueError(), KeyError(), ConnectionError()), True),
        (chained(ValueError(), ConnectionError(), explicit=False), False),
        (BaseExceptionGroup("", [TimeoutError(), chained(OSError(), TimeoutError())]), True),
        (ExceptionGroup("", [ConnectionError(), ValueError()]), False),
        (chained(ExceptionGroup("", [ValueError()]), ConnectionError()), True),
        (KeyboardInterrupt(), False),
    ],
    ids=[
        "one",
        "other",
        "cause",
        "context",
        "group",
        "part of a group",
        "cause of a group",
        "exit",
    ],
)
def test_classes(error: BaseException, retry: bool) -> None:
    verdict = retry_verdict((ConnectionError, TimeoutError), error)
    assert verdict["retry"] is retry
    assert verdict["delay_seconds"] is None
    assert verdict["reason"]


def test_causes_that_go_round() -> None:
    one, other = ValueError(1), KeyError(2)
    chained(one, other, one)
    assert retry_verdict((OSError,), one)["retry"] is False


def test_reasons_of_classes() -> None:
    verdict = retry_verdict((OSError, KeyError), ValueError())
    assert verdict["reason"] == "ValueError is not what retry_on has: OSError, KeyError"
    assert retry_verdict((OSError,), TimeoutError())["reason"] == "retry_on has TimeoutError"


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (True, (True, None, "retry_on=judge said True")),
        (False, (False, None, "retry_on=judge said False")),
        (np.bool_(0), (False, None, "retry_on=judge said False")),
        (Retry(), (True, None, "retry_on=judge said Retry")),
        (Retry(delay_seconds=5, reason="busy"), (True, 5, "busy")),
        (Fail(), (False, None, "retry_on=judge said Fail")),
        (Fail("no such customer"), (False, None, "no such customer")),
        (None, (False, None, f"retry_on=judge returned NoneType, {NEITHER}")),
    ],
    ids=repr,
)
def test_answers_of_functions(answer: Any, verdict: tuple[bool, float | None, str]) -> None:
    def judge(error: BaseException) -> Any:
        return answer

    found = retry_verdict(judge, OSError())
    assert (found["retry"], found["delay_seconds"], found["reason"]) == verdict


@pytest.mark.parametrize("broken", [ValueError("oh"), SystemExit(1)], ids=repr)
def test_a_function_that_raises_says_no(broken: BaseException) -> None:
    def judge(error: BaseException) -> NoReturn:
        raise broken

    verdict = retry_verdict(judge, OSError())
    assert verdict["retry"] is False
    assert type(broken).__name__ in verdict["reason"]


def test_reasons_are_bounded() -> None:
    verdict = retry_verdict(lambda _: Fail("x" * 10**6), OSError())
    assert len(verdict["reason"]) < 2 * REASON_MAX_CHARACTERS


class Row(BaseModel):
    id: int
    name: str


def refusal(check: Any, result: Any) -> str:
    """Return why a result is refused."""
    with pytest.raises(CheckFailed) as raised:
        check_of(check, Masks())("load[3]", result)
    assert raised.value.key == "load[3]"
    return str(raised.value)


@pytest.mark.parametrize(
    ("check", "result"),
    [
        (Row, {"id": 1, "name": "a"}),
        (Row, Row(id=1, name="a")),
        (list[Row], []),
        (int | None, None),
        (lambda frame: (frame["a"] > 0).all(), pd.DataFrame({"a": [1]})),
        (lambda frame: frame, pd.DataFrame()),
        (len, []),
    ],
    ids=["dict", "model", "list", "union", "numpy", "itself", "number"],
)
def test_what_is_fine(check: Any, result: Any) -> None:
    check_of(check, Masks())("load[3]", result)


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_function_refuses_by_false(limit: int, result: int) -> None:
    check = check_of(lambda value: value >= limit, Masks())
    if result >= limit:
        check("load[3]", result)
    else:
        with pytest.raises(CheckFailed):
            check("load[3]", result)


def test_arrays_compare_to_truth_values_of_their_own() -> None:
    assert "returned False" in refusal(lambda frame: (frame["a"] > 0).all(), {"a": np.zeros(3)})


def test_a_function_refuses_by_raising() -> None:
    def has_rows(rows: list[int]) -> None:
        assert rows, "no rows"

    check = check_of(has_rows, Masks())
    with pytest.raises(CheckFailed, match="check=has_rows: AssertionError: no rows") as raised:
        check("load[3]", [])
    assert isinstance(raised.value.__cause__, AssertionError)


def test_a_type_refuses_by_what_is_wrong_where() -> None:
    text = refusal(list[Row], [{"id": 1, "name": "a"}, {"id": "x"}])
    assert "of type list, is refused by check=list[" in text
    assert "1.id: Input should be a valid integer" in text
    assert "1.name: Field required" in text


def test_many_problems_are_counted_out() -> None:
    text = refusal(list[int], ["x"] * 100)
    assert text.count("valid integer") == 5
    assert text.endswith("; …")


def test_secrets_are_not_told() -> None:
    assert SECRET not in refusal(dict[str, int], {"password": SECRET})
    told = refusal(lambda _: False, {"password": SECRET})
    assert SECRET not in told
    assert MASK in told
