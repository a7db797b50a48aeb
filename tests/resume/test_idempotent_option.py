"""`idempotent=False`: what goes with it, and what would have a task run twice all the same."""

from typing import Any

import pytest

from raysched import InvalidOption, escalate, task


def pay(amount: float) -> None: ...


def test_it_shares_no_call_and_is_not_tried_again_after_a_crash() -> None:
    spec = task(pay, idempotent=False).spec
    assert (spec.idempotent, spec.batch, spec.retry.crash_retries) == (False, False, 0)


def test_by_default_a_task_may_run_twice() -> None:
    for given in (None, True):
        spec = task(pay, idempotent=given).spec
        assert (spec.idempotent, spec.batch, spec.retry.crash_retries) == (True, True, 3)


def test_retries_that_were_asked_for_are_made() -> None:
    assert task(pay, idempotent=False, retries=2).spec.retry.retries == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crash_retries": 1}, "crash_retries=1: idempotent=False: one whose worker died may have"),
        (
            {"on_oom": escalate(up_to="2GiB"), "memory": "1GiB"},
            "idempotent=False: one that was killed for memory may have had its effect",
        ),
        ({"batch": True}, "batch=True: idempotent=False: it shares no Ray call"),
        ({"batch_size": 8}, "batch_size=8: idempotent=False: it shares no Ray call"),
    ],
)
def test_options_that_would_have_it_run_twice_are_refused(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidOption) as raised:
        task(pay, idempotent=False, **options)
    assert said in str(raised.value)
    assert task(pay, **options).spec.idempotent


def test_with_options_changes_it() -> None:
    careful = task(pay).with_options(idempotent=False)
    assert not careful.spec.idempotent
    assert careful.with_options(idempotent=True).spec.retry.crash_retries == 3
