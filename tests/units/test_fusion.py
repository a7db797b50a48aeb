"""Task runs that ride in the unit of the one that they need are still themselves."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raysched import flow, get_run, get_run_logger, runtime, task, wait, wiring
from raysched.client import Cut
from raysched.settings import settings

LARGE = 100_000
"""Bytes: more than what comes back in a report."""


@pytest.fixture(params=["inline", "ray"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Run flows in units as large as can be, so that all rides that may."""
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSCHED_BACKEND", request.param)
        patch.setenv("RAYSCHED_HOME", str(tmp_path))
        patch.setenv("RAYSCHED_UNIT_SIZE", "1000")
        patch.setenv("RAYSCHED_FUSION", "on")
        settings.cache_clear()
        wiring.disconnect()
        yield request.param
        wiring.disconnect()
    settings.cache_clear()


@task
def first(number: int) -> int:
    """Begin."""
    return number


@task
def last(number: int) -> int:
    """End."""
    return number + 1


def kept(*names: str) -> dict[str, list[tuple[str, int]]]:
    """Return states and attempts of the last run's task runs."""
    run = get_run("last")
    return {name: [(one.state.name, one.attempts) for one in run[name]] for name in names}


def middle_of(middle: Any, size: int = 3) -> dict[str, list[tuple[str, int]]]:
    """Run `last` over `middle` over `first`, item by item; return what is kept."""

    @flow
    def three_maps() -> None:
        wait(last.map(middle.map(first.map(range(size)))))

    three_maps(return_state=True)
    run = get_run("last")
    assert [plan.cut for plan in run.plan] == [Cut.ADAPTIVE, Cut.FUSED, Cut.FUSED]
    return kept("first", "middle", "last")


ONCE = ("Completed", 1)


@pytest.mark.usefixtures("backend")
class TestOneInTheMiddle:
    def test_that_fails(self) -> None:
        @task
        def middle(number: int) -> int:
            return 1 // (number - 1)

        assert middle_of(middle) == {
            "first": [ONCE] * 3,
            "middle": [ONCE, ("Failed", 1), ONCE],
            "last": [ONCE, ("UpstreamFailed", 0), ONCE],
        }
        assert get_run("last")["last"][1].roots == ("middle[1]",)

    def test_that_is_tried_again(self) -> None:
        @task(retries=2)
        def middle(number: int) -> int:
            if number == 1 and runtime.task_run.run_count < 3:
                raise ValueError(number)
            return number

        assert middle_of(middle) == {
            "first": [ONCE] * 3,
            "middle": [ONCE, ("Completed", 3), ONCE],
            "last": [ONCE] * 3,
        }

    def test_that_takes_too_long(self) -> None:
        @task(timeout_seconds=1)
        def middle(number: int) -> int:
            if number == 1:
                time.sleep(60)
            return number

        assert middle_of(middle) == {
            "first": [ONCE] * 3,
            "middle": [ONCE, ("TimedOut", 1), ONCE],
            "last": [ONCE, ("UpstreamFailed", 0), ONCE],
        }

    @pytest.mark.parametrize("backend", ["ray"], indirect=True)
    @pytest.mark.parametrize("retries", [0, 1])
    def test_whose_worker_dies(self, retries: int) -> None:
        @task(crash_retries=retries)
        def middle(number: int) -> int:
            if number == 1:
                os._exit(1)
            return number

        assert middle_of(middle) == {
            "first": [ONCE] * 3,
            "middle": [ONCE, ("Crashed", 1 + retries), ONCE],
            "last": [ONCE, ("UpstreamFailed", 0), ONCE],
        }

    def test_where_the_flow_is_cancelled(self, backend: str) -> None:
        driver = os.getpid()

        @task
        def middle(number: int) -> int:
            # In the middle of it, Ctrl-C is pressed where the flow runs.
            os.kill(driver, signal.SIGINT)
            time.sleep(60)
            return number

        @flow
        def three_in_a_row() -> None:
            last.submit(middle.submit(first.submit(1))).result()

        with pytest.raises(KeyboardInterrupt):
            three_in_a_row()
        assert kept("first", "middle", "last") == {
            "first": [ONCE],
            "middle": [("Cancelled", 1)],
            # Inline, nothing is cancelled before whoever runs it comes back.
            "last": [("UpstreamFailed" if backend == "inline" else "Cancelled", 0)],
        }


@pytest.mark.parametrize("backend", ["ray"], indirect=True)
def test_a_link_of_a_chain_whose_worker_dies(backend: str) -> None:
    @task(crash_retries=0)
    def link(number: int) -> int:
        if number == 5:
            os._exit(1)
        return number + 1

    @flow
    def chain() -> None:
        future = link.submit(0)
        for _ in range(9):
            future = link.submit(future)
        wait([future])

    chain(return_state=True)
    assert get_run("last").plan[0].cut is Cut.FUSED
    assert kept("link")["link"] == [ONCE] * 5 + [("Crashed", 1)] + [("UpstreamFailed", 0)] * 4


def test_large_values_between_them(backend: str) -> None:
    @task
    def make(number: int) -> bytearray:
        return bytearray([number]) * LARGE

    @task
    def change(data: bytearray) -> bytearray:
        data[0] += 1
        return data

    @task
    def ends(data: bytearray) -> tuple[int, int]:
        return data[0], data[-1]

    @flow
    def large() -> Any:
        made = make.map(range(20))
        results = ends.map(change.map(made)).result()
        return results, [(data[0], data[-1]) for data in made.result()]

    changed, made = large()
    assert changed == [(number + 1, number) for number in range(20)]
    assert made == [(number, number) for number in range(20)]


@pytest.mark.parametrize("backend", ["ray"], indirect=True)
def test_a_large_value_is_not_held_up_by_what_follows(backend: str, tmp_path: Path) -> None:
    """What follows ends only when the flow has the value."""
    gate = tmp_path / "gate"

    @task
    def make() -> bytes:
        # Longer than the lease of a unit: what follows may take as long.
        time.sleep(0.5)
        return bytes(LARGE)

    @task(timeout_seconds=30)
    def follow(data: bytes) -> int:
        while not gate.exists():
            time.sleep(0.01)
        return len(data)

    @flow
    def both() -> int:
        made = make.submit()
        following = follow.submit(made)
        made.result()
        gate.touch()
        return following.result()

    assert both() == LARGE
    assert kept("make", "follow") == {"make": [ONCE], "follow": [ONCE]}


def test_log_records_stay_with_who_made_them(backend: str) -> None:
    @task(log_prints=True)
    def speak(number: int) -> int:
        get_run_logger().info("speak %d", number)
        if backend == "ray":
            # Inline, threads may be the program's own.
            thread = threading.Thread(target=get_run_logger().info, args=("thread %d", number))
            thread.start()
            thread.join()
        return number

    @task(log_prints=True)
    def answer(number: int) -> None:
        print("answer", number)  # noqa: T201 - kept as a log record

    @flow
    def talk() -> None:
        answer.map(speak.map(range(5))).result()

    talk()
    run = get_run("last")
    for number in range(5):
        said = [f"speak {number}", *([f"thread {number}"] if backend == "ray" else [])]
        assert [log.message for log in run["speak"][number].logs] == said
        assert [log.message for log in run["answer"][number].logs] == [f"answer {number}"]


@pytest.mark.parametrize("backend", ["inline"], indirect=True)
def test_the_plan_names_what_was_fused_and_why_not(backend: str) -> None:
    def named(fn: Any, name: str, **options: Any) -> Any:
        return fn.with_options(name=name, **options)

    @flow
    def several() -> None:
        futures = list(named(last, "behind").map(first.map(range(3))))
        shared = named(first, "shared").map(range(3))
        futures += [*named(last, "one").map(shared), *named(last, "two").map(shared)]
        futures += named(last, "heavy", num_cpus=2).map(named(first, "light").map([1]))
        futures += named(last, "alone", batch=False).map(named(first, "many").map([1]))
        wait(futures)

    several()
    notes = {plan.task: plan.notes[-1] for plan in get_run("last").plan if plan.notes}
    fused = "fused: each runs right after first that it needs, in the same unit"
    assert notes["behind"] == fused
    assert notes["one"] == "not fused behind shared: its values also go to other tasks"
    assert notes["two"] == notes["one"]
    assert notes["heavy"] == "not fused behind light: they ask for different resources"
    assert notes["alone"] == "not fused behind many: batch or batch_size is set"


@pytest.mark.usefixtures("backend")
def test_nothing_rides_that_also_needs_what_has_failed(tmp_path: Path) -> None:
    @task
    def broken() -> None:
        raise ValueError("broken")

    @task
    def behind(number: int) -> int:
        (tmp_path / f"behind {number}").touch()
        return number

    @flow
    def two_maps() -> None:
        needed = broken.submit()
        wait([needed])
        wait(behind.map(first.map(range(3)), wait_for=[needed]))

    two_maps(return_state=True)
    assert kept("first", "behind") == {
        "first": [ONCE] * 3,
        "behind": [("UpstreamFailed", 0)] * 3,
    }
    assert not list(tmp_path.glob("behind *"))
