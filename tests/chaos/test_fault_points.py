"""`raysched.testing.FaultPoints`: what happens at a point, where, and how often."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raysched import StateType, UsageError, faults, flow, get_run, task, wiring
from raysched.errors import InternalError, StoreUnavailable
from raysched.settings import settings
from raysched.testing import FaultPoints, Point, inline


@task
def double(number: int) -> int:
    return 2 * number


@task
async def double_later(number: int) -> int:
    return 2 * number


@flow
def doubled(numbers: int) -> list[int]:
    return double.map(range(numbers)).result()


@flow
def doubled_later(numbers: int) -> list[int]:
    return double_later.map(range(numbers)).result()


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """After each test no fault is left behind."""
    yield
    assert "RAYSCHED_FAULT_POINTS" not in os.environ
    assert not faults._armed  # noqa: SLF001 - whether it is left behind cannot be seen otherwise


class TestInline:
    @pytest.mark.parametrize(
        ("around", "name"), [(doubled, "double"), (doubled_later, "double_later")]
    )
    @pytest.mark.parametrize("point", ["worker: item begins", "worker: item ended"])
    def test_an_exception_is_the_task_runs_own(
        self, around: Any, name: str, point: Point, tmp_path: Path
    ) -> None:
        points = FaultPoints(tmp_path).raises(point, OSError, on=f"{name}[1]")
        with inline(), points:
            assert around(3, return_state=True).is_failed()
            states = [run.state.name for run in get_run("last")[name]]
            error = get_run("last")[name][1].error
        assert states == ["Completed", "Failed", "Completed"]
        assert error is not None
        assert (error.type, error.message) == ("builtins.OSError", f"fault point {point!r}")
        assert points.reached(point, on=f"{name}[1]") == 1

    @pytest.mark.parametrize("point", ["before commit", "after commit"])
    def test_a_database_that_is_away_for_a_moment(self, point: Point, tmp_path: Path) -> None:
        """After the commit it is not known whether all was written: it is written again."""
        points = FaultPoints(tmp_path).raises(point, StoreUnavailable)
        with inline(), points:
            assert doubled(3) == [0, 2, 4]
            assert get_run("last").counts == {StateType.COMPLETED: 3}
        assert points.reached(point) > 1

    def test_a_bug_of_the_driver_does_not_pass_for_success(self, tmp_path: Path) -> None:
        with (
            inline(),
            FaultPoints(tmp_path).raises("flow: before end", LookupError),
            pytest.raises(InternalError, match="LookupError: fault point 'flow: before end'"),
        ):
            doubled(1)

    @pytest.mark.parametrize("order", [0, 1])
    def test_around_inline_or_in_it(self, order: int, tmp_path: Path) -> None:
        points = FaultPoints(tmp_path).raises("worker: item begins", on="double")
        outer, inner = (inline(), points) if order else (points, inline())
        with outer, inner:
            assert doubled(1, return_state=True).is_failed()

    def test_nth_and_times(self, tmp_path: Path) -> None:
        points = FaultPoints(tmp_path).raises("worker: item begins", nth=2, times=2, on="double")
        with inline(), points:
            doubled(5, return_state=True)
            states = [run.state.name for run in get_run("last")["double"]]
        assert states == ["Completed", "Failed", "Failed", "Completed", "Completed"]
        assert points.reached("worker: item begins", on="double") == 5

    def test_several_at_one_point_count_for_themselves(self, tmp_path: Path) -> None:
        points = (
            FaultPoints(tmp_path)
            .sleep("worker: item begins", seconds=0, nth=9)
            .raises("worker: item begins", on="double[2]")
        )
        with inline(), points:
            doubled(4, return_state=True)
        assert points.reached("worker: item begins") == 4
        assert points.reached("worker: item begins", on="double[2]") == 1


PROGRAM = """
import sys
from raysched import flow, task

@task
def double(number):
    return 2 * number

@flow
def doubled():
    return [double(number) for number in range(4)]

doubled()
"""


COMPENSATED = """
from raysched import flow, task

@task
def give_back(number):
    pass

@task(compensate=give_back)
def book(number):
    return number

@task
def fail():
    raise ValueError

@flow
def booking():
    book(1)
    fail()

booking()
"""


def drive(points: FaultPoints, home: Path, program: str = PROGRAM) -> int:
    """Run a driver with these faults; return its exit code."""
    place = {"RAYSCHED_BACKEND": "inline", "RAYSCHED_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | place | points.environment(),
        check=False,
        capture_output=True,
    ).returncode


def shown(home: Path) -> Any:
    """Return what is kept of the last run."""
    done = subprocess.run(
        [sys.executable, "-m", "raysched", "show", "last", "--json"],
        env=os.environ | {"RAYSCHED_HOME": str(home)},
        check=True,
        capture_output=True,
    )
    return json.loads(done.stdout)


class TestADriver:
    @pytest.mark.parametrize(
        ("point", "nth", "kept"),
        [
            ("before commit", 3, 2),
            ("after commit", 3, 3),
            ("before dispatch", 3, 2),
            ("flow: before end", 1, 4),
        ],
    )
    def test_killed(self, point: Point, nth: int, kept: int, tmp_path: Path) -> None:
        """One transaction for each call: so many are there, and none is torn."""
        assert drive(FaultPoints(tmp_path).kill(point, nth=nth), tmp_path) == -signal.SIGKILL
        run = shown(tmp_path)
        assert (run["state"], run["message"]) == ("CRASHED", "driver lost")
        states = [each["state"] for each in run["task_runs"]]
        assert states.count("COMPLETED") == kept
        assert set(states) <= {"COMPLETED", "CRASHED", "SCHEDULED"}

    @pytest.mark.parametrize(
        ("point", "kept"), [("compensation: before", 1), ("compensation: after", 2)]
    )
    def test_killed_around_compensation(self, point: Point, kept: int, tmp_path: Path) -> None:
        points = FaultPoints(tmp_path).kill(point)
        assert drive(points, tmp_path, COMPENSATED) == -signal.SIGKILL
        run = shown(tmp_path)
        assert (run["state"], run["message"]) == ("CRASHED", "driver lost")
        states = [each["state"] for each in run["task_runs"]]
        assert sorted(states) == [*["COMPLETED"] * kept, "FAILED"]

    def test_exits(self, tmp_path: Path) -> None:
        assert drive(FaultPoints(tmp_path).exit("before dispatch", code=7), tmp_path) == 7

    def test_text_of_another_origin(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAYSCHED_FAULT_POINTS", "kill everything")
            settings.cache_clear()
            with pytest.raises(UsageError, match="unset it"):
                doubled(1)
        settings.cache_clear()


@pytest.mark.usefixtures("local_ray")
class TestOnRay:
    @pytest.fixture(autouse=True)
    def on_ray(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Flows run on the session's Ray."""
        monkeypatch.setenv("RAYSCHED_BACKEND", "ray")
        monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
        settings.cache_clear()
        wiring.disconnect()
        yield
        wiring.disconnect()
        settings.cache_clear()

    @pytest.mark.parametrize("how", [FaultPoints.kill, FaultPoints.exit])
    @pytest.mark.parametrize(
        "point", ["worker: item begins", "worker: item ended", "worker: before report"]
    )
    def test_a_worker_dies_once(
        self, how: Callable[..., FaultPoints], point: Point, tmp_path: Path
    ) -> None:
        """Later workers of the same driver, which count with the first one, live."""
        points = how(FaultPoints(tmp_path), point)
        with points:
            assert doubled(5) == [0, 2, 4, 6, 8]
        assert points.reached(point) > 1
        assert get_run("last").counts == {StateType.COMPLETED: 5}

    def test_the_workers_forget(self, tmp_path: Path) -> None:
        """What a worker was told for one engine does not hold for the next."""
        with FaultPoints(tmp_path).raises("worker: item begins", times=10**6):
            assert doubled(3, return_state=True).is_failed()
        assert doubled(3) == [0, 2, 4]


class TestBadInput:
    def test_no_such_point(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="there is no fault point 'commit'; there are before"):
            FaultPoints(tmp_path).kill("commit")  # type: ignore[arg-type]

    @pytest.mark.parametrize(("nth", "times"), [(0, 1), (1, -1)])
    def test_impossible_numbers(self, nth: int, times: int, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="counted from 1"):
            FaultPoints(tmp_path).kill("before commit", nth=nth, times=times)

    def test_an_exception_that_only_this_process_has(self, tmp_path: Path) -> None:
        class Local(Exception):
            pass

        with pytest.raises(UsageError, match="cannot import it"):
            FaultPoints(tmp_path).raises("before commit", Local)

    def test_asking_for_what_nobody_counts(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="to count only, use sleep"):
            FaultPoints(tmp_path).reached("before commit")
