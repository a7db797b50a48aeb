"""What is said of items that have to be ended by force, and when that is."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest

from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.values import FailureClass
from raysched.settings import Settings
from raysched.worker.context import context_of
from raysched.worker.deadlines import FORCE_SECONDS
from raysched.worker.functions import LocalFunction
from worker.unit_runs import new_run

if TYPE_CHECKING:
    from raysched.worker.deadlines import Deadlines

GRACE = 70.0


def deadlines(*, timeout: float | None = None, running: int = 0) -> Deadlines:
    """Return those of a unit of three items, of which one has just begun."""
    spec = TaskSpec("work", int, timeout_seconds=timeout)
    context = context_of(spec, Settings(termination_grace_seconds=GRACE), LocalFunction)
    run = new_run(context, [((), {})] * 3)
    run.progress.begin(running, time.time_ns())
    return run.deadlines


def left(found: Deadlines) -> dict[int, float]:
    """Return how long each has (seconds), in whole ten seconds."""
    now = time.monotonic()
    return {position: math.ceil((due - now) / 10) * 10.0 for position, due in found.due().items()}


def test_without_limits_nothing_is_due() -> None:
    found = deadlines()
    assert found.due() == {}
    found.cancel([1, 2], force=True)
    assert found.due() == {}  # they do not run


@pytest.mark.parametrize("timeout", [30.0, 100.0])
def test_the_grace_is_added_to_the_timeout(timeout: float) -> None:
    assert left(deadlines(timeout=timeout)) == {0: timeout + GRACE}


def test_a_cancellation_comes_first() -> None:
    found = deadlines(timeout=100.0)
    found.cancel(range(3), force=False)
    assert left(found) == {0: GRACE}


def test_a_second_one_may_be_forced_but_gives_no_more_time() -> None:
    found = deadlines()
    found.cancel([0], force=False)
    found.cancel([0], force=True)
    found.cancel([0], force=False)
    assert left(found) == {0: 10.0}
    assert f"{FORCE_SECONDS:g} s later" in found.verdict(0)[1].message


def test_a_cancelled_one_is_cancelled() -> None:
    found = deadlines(timeout=0.5, running=1)
    found.cancel([1], force=False)
    state, info = found.verdict(1)
    assert (state, info.failure_class) == (StateType.CANCELLED, FailureClass.CANCELLED)
    assert info.message == (
        "work[1] was cancelled and had not ended 70 s later, so its worker was ended"
    )


def test_others_have_timed_out() -> None:
    found = deadlines(timeout=0.5)
    found.cancel([1], force=False)
    state, info = found.verdict(0)
    assert (state, info.failure_class) == (StateType.TIMED_OUT, FailureClass.TIMEOUT)
    assert info.message == (
        "work[0] took longer than timeout_seconds=0.5, and did not react within 70 s, "
        "so its worker was ended"
    )
