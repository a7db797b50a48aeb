"""Whether and when an attempt is followed by another one."""

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from raysched.model.options import RetryOptions
from raysched.model.values import ErrorInfo, FailureClass
from raysched.policies.retry import (
    CRASH_DELAYS,
    NANOSECONDS,
    Ask,
    Retry,
    Stop,
    decide,
    delay_seconds,
)

NOW = 1_700_000_000 * NANOSECONDS

USERS = (FailureClass.USER, FailureClass.TIMEOUT)

options = st.builds(
    RetryOptions,
    retries=st.integers(0, 5),
    delays=st.lists(st.floats(0, 1e6), max_size=5).map(tuple),
    jitter_factor=st.floats(0, 10),
    condition=st.sampled_from([None, lambda *_: True]),
    crash_retries=st.integers(0, 5),
)
classes = st.sampled_from(FailureClass)
counts = st.integers(1, 8)
answers = st.sampled_from([None, True, False])


def decision(  # noqa: PLR0913 - those of `decide`
    retry: RetryOptions,
    failure_class: FailureClass = FailureClass.USER,
    *,
    failures: int = 1,
    crashes: int = 0,
    answer: bool | None = None,
    seed: str = "run/task[0]",
    now: int = NOW,
) -> Retry | Ask | Stop:
    return decide(
        retry,
        ErrorInfo("", "", failure_class=failure_class),
        failures=failures,
        crashes=crashes,
        answer=answer,
        seed=seed,
        now=now,
    )


@given(options, classes, counts, counts, answers, st.text())
def test_the_same_history_leads_to_the_same_decision(  # noqa: PLR0913, PLR0917 - those of `decide`
    retry: RetryOptions,
    failure_class: FailureClass,
    failures: int,
    crashes: int,
    answer: bool | None,
    seed: str,
) -> None:
    def decided() -> Retry | Ask | Stop:
        return decision(
            retry, failure_class, failures=failures, crashes=crashes, answer=answer, seed=seed
        )

    assert decided() == decided()


@given(options, st.sampled_from(USERS), counts, answers)
def test_a_failure_is_retried_exactly_within_its_budget(
    retry: RetryOptions, failure_class: FailureClass, failures: int, answer: bool | None
) -> None:
    decided = decision(retry, failure_class, failures=failures, answer=answer)
    if failures > retry.retries:
        assert isinstance(decided, Stop)
    elif retry.condition is not None and answer is None:
        assert decided == Ask()
    elif retry.condition is not None and answer is False:
        assert decided == Stop("retry_condition_fn said no")
    else:
        assert isinstance(decided, Retry)
        assert decided.at >= NOW


@given(options, counts, counts, answers)
def test_a_crash_is_retried_exactly_within_its_own_budget(
    retry: RetryOptions, failures: int, crashes: int, answer: bool | None
) -> None:
    decided = decision(
        retry, FailureClass.INFRASTRUCTURE, failures=failures, crashes=crashes, answer=answer
    )
    assert isinstance(decided, Stop) == (crashes > retry.crash_retries)
    assert not isinstance(decided, Ask)


@given(options, counts)
def test_what_was_cancelled_is_not_tried_again(retry: RetryOptions, failures: int) -> None:
    assert decision(retry, FailureClass.CANCELLED, failures=failures) == Stop("cancelled")


@given(options, counts, st.text())
def test_a_delay_is_the_chosen_one_plus_jitter_in_range(
    retry: RetryOptions, failures: int, seed: str
) -> None:
    delay = delay_seconds(retry, failures, seed)
    if not retry.delays:
        assert delay == 0
        return
    chosen = retry.delays[min(failures, len(retry.delays)) - 1]
    most = chosen * (1 + retry.jitter_factor)
    assert chosen <= delay
    assert delay <= most or math.isclose(delay, most)


def test_jitter_differs_between_task_runs_and_between_attempts() -> None:
    retry = RetryOptions(retries=9, delays=(10.0,), jitter_factor=1.0)
    delays = {
        delay_seconds(retry, failures, seed) for failures in (1, 2) for seed in ("a[0]", "a[1]")
    }
    assert len(delays) == 4


def test_without_jitter_the_delays_are_exact_and_the_last_repeats() -> None:
    retry = RetryOptions(retries=4, delays=(1.0, 2.5))
    at = [decision(retry, failures=failures) for failures in (1, 2, 3, 4)]
    assert at == [Retry(NOW + int(s * NANOSECONDS)) for s in (1.0, 2.5, 2.5, 2.5)]


def test_crashes_wait_longer_and_longer() -> None:
    retry = RetryOptions(crash_retries=9)
    at = [decision(retry, FailureClass.INFRASTRUCTURE, crashes=crashes) for crashes in range(1, 8)]
    waits = [*CRASH_DELAYS, CRASH_DELAYS[-1], CRASH_DELAYS[-1]]
    assert at == [Retry(NOW + int(s * NANOSECONDS)) for s in waits]


@pytest.mark.parametrize(
    ("retry", "failures", "reason"),
    [
        (RetryOptions(), 1, "no retries"),
        (RetryOptions(retries=3), 4, "all 3 retries used"),
    ],
)
def test_the_reason_for_stopping_is_said(retry: RetryOptions, failures: int, reason: str) -> None:
    assert decision(retry, failures=failures) == Stop(reason)


def test_the_reason_for_stopping_after_crashes_is_said() -> None:
    decided = decision(RetryOptions(crash_retries=2), FailureClass.INFRASTRUCTURE, crashes=3)
    assert decided == Stop("all 2 crash_retries used")
