"""Task runs that share a unit are still themselves."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from raysched import as_completed, flow, get_run, runtime, task, wait, wiring
from raysched.settings import settings

MANY = 400


@pytest.mark.usefixtures("on_ray")
class TestOnRay:
    def test_what_waits_behind_a_long_one_is_handed_back(self, tmp_path: Path) -> None:
        """The long one ends only when all others have: without handing back, never."""
        gate = tmp_path / "gate"

        @task
        def pass_gate(number: int) -> int:
            while number == MANY // 2 and not gate.exists():
                time.sleep(0.01)
            return number

        @flow
        def one_long() -> int:
            futures = pass_gate.map(range(MANY))
            for seen, _ in enumerate(as_completed(futures, timeout=60), 1):
                if seen == MANY - 1:
                    gate.touch()
            return sum(futures.result())

        assert one_long() == sum(range(MANY))

    def test_only_the_guilty_is_charged_for_a_lost_worker(self) -> None:
        @task(crash_retries=0)
        def die(number: int) -> int:
            if number == MANY // 2:
                os._exit(1)
            return number

        @flow
        def one_dies() -> list[Any]:
            return die.map(range(MANY)).result(raise_on_failure=False)

        results = one_dies()
        assert [number for number in range(MANY) if results[number] != number] == [MANY // 2]
        runs = get_run("last")["die"]
        assert {run.attempts for run in runs} == {1}
        assert runs[MANY // 2].state.is_crashed()

    def test_large_results_stay_apart(self) -> None:
        @task
        def make(number: int) -> bytes:
            return bytes([number]) * 100_000

        @task
        def first_byte(data: bytes) -> int:
            return data[0]

        @flow
        def large() -> list[int]:
            return first_byte.map(make.map(range(50))).result()

        assert large() == list(range(50))

    @pytest.mark.parametrize(
        ("steered", "largest"), [({"batch": False}, 1), ({"batch_size": 7}, 7)]
    )
    def test_tasks_may_steer(self, steered: dict[str, Any], largest: int) -> None:
        @flow
        def which_calls() -> list[str | None]:
            return call_of_ray.with_options(**steered).map(range(MANY)).result()

        # Not all need be full: some are handed back behind a worker that takes its time.
        assert max(Counter(which_calls()).values()) == largest


@task
def call_of_ray(number: int) -> str | None:
    """Return the id of the Ray call that carries it."""
    import ray

    return ray.get_runtime_context().get_task_id()


@task(retries=1, timeout_seconds=0.2)
def behave(number: int) -> int:
    """Fail once, fail always, take too long, or return: by the last digit."""
    match number % 5:
        case 1 if runtime.task_run.run_count == 1:
            raise ValueError(number)
        case 2:
            raise KeyError(number)
        case 3 if number < MANY // 100:
            time.sleep(10)
    return number


@task
def double(number: int) -> int:
    """Twice."""
    return 2 * number


@flow
def all_kinds() -> None:
    """Run both maps to their end."""
    futures = behave.map(range(20))
    wait([*futures, *double.map(futures)])


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_states_do_not_depend_on_the_size_of_units(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCHED_BACKEND", "inline")
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    monkeypatch.setenv("RAYSCHED_UNIT_SIZE", str(size))
    settings.cache_clear()
    wiring.disconnect()
    try:
        all_kinds(return_state=True)
        run = get_run("last")
        kept = {name: [(r.state.name, r.attempts) for r in run[name]] for name in run}
    finally:
        wiring.disconnect()
        settings.cache_clear()
    expected = [_behaviour(number) for number in range(20)]
    assert kept["behave"] == expected
    assert [state for state, _ in kept["double"]] == [
        "Completed" if state == "Completed" else "UpstreamFailed" for state, _ in expected
    ]


def _behaviour(number: int) -> tuple[str, int]:
    match number % 5:
        case 1:
            return "Completed", 2
        case 2:
            return "Failed", 2
        case 3 if number < MANY // 100:
            return "TimedOut", 2
    return "Completed", 1
