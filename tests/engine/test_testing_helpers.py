"""`raysched.testing`: flows in this process, and a clock that does not wait."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysched import RunNotFound, UsageError, flow, get_run, task, wait
from raysched.define import context
from raysched.settings import settings
from raysched.testing import FakeClock, inline

DAY = 24 * 3600


@pytest.fixture
def attempts() -> list[int]:
    """The number of each attempt of `flaky`, as it is made."""
    return []


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Whatever a test does, the environment is as before."""
    before = {name: text for name, text in os.environ.items() if name.startswith("RAYSCHED_")}
    yield
    after = {name: text for name, text in os.environ.items() if name.startswith("RAYSCHED_")}
    assert after == before


@task
def double(x: int) -> int:
    return 2 * x


@flow
def doubled(xs: list[int]) -> list[int]:
    return double.map(xs).result()


class TestInline:
    def test_runs_flows_here_with_every_state_kept(self) -> None:
        with inline():
            assert doubled([1, 2]) == [2, 4]
            run = get_run("last")
            assert run.flow == "doubled"
            assert [item.result() for item in run["double"]] == [2, 4]

    def test_starts_from_nothing_each_time(self) -> None:
        for _ in range(2):
            with inline():
                with pytest.raises(RunNotFound):
                    get_run("last")
                doubled([1])

    def test_leaves_nothing_behind(self) -> None:
        with inline():
            doubled([1])
            home = settings().home
            assert list(home.iterdir())
        assert not home.exists()

    def test_leaves_nothing_behind_when_the_test_fails(self) -> None:
        homes = []

        def failing() -> None:
            with inline():
                homes.append(settings().home)
                doubled([1])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            failing()
        assert not homes[0].exists()
        assert settings().home != homes[0]

    def test_is_not_moved_by_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAYSCHED_DATABASE_URL", "sqlite:////nowhere/at/all.db")
        with inline():
            assert doubled([3]) == [6]
        monkeypatch.undo()

    def test_belongs_around_flows(self) -> None:
        @flow
        def nested() -> None:
            with inline():
                doubled([1])

        with inline(), pytest.raises(UsageError, match="put it around the call of the flow"):
            nested()
        assert context.current_scope() is None


class TestFakeClock:
    def test_makes_retries_follow_at_once(self, attempts: list[int]) -> None:
        @task(retries=2, retry_delay_seconds=[DAY, 2 * DAY])
        def flaky() -> int:
            attempts.append(len(attempts) + 1)
            if attempts[-1] < 3:
                raise OSError
            return attempts[-1]

        @flow
        def around() -> int:
            return flaky()

        clock = FakeClock()
        with inline(clock):
            assert around() == 3
        assert attempts == [1, 2, 3]
        assert clock.skipped == pytest.approx(3 * DAY, abs=60)

    def test_lets_what_can_run_run_first(self, attempts: list[int]) -> None:
        """Time passes only when there is nothing else to do."""

        @task(retries=1, retry_delay_seconds=DAY)
        def flaky() -> None:
            attempts.append(-1)
            if len(attempts) == 1:
                raise OSError

        @task
        def steady(x: int) -> None:
            attempts.append(x)

        @flow
        def both() -> None:
            wait([flaky.submit(), *steady.map(range(5))])

        with inline(FakeClock()):
            both()
        assert attempts == [-1, 0, 1, 2, 3, 4, -1]

    def test_skips_the_delays_of_async_flows_too(self, attempts: list[int]) -> None:
        @task(retries=1, retry_delay_seconds=DAY)
        async def flaky() -> int:
            attempts.append(0)
            if len(attempts) == 1:
                raise OSError
            return 7

        @flow
        async def around() -> int:
            return await flaky()

        clock = FakeClock()
        with inline(clock):
            assert asyncio.run(around()) == 7
        assert clock.skipped == pytest.approx(DAY, abs=60)

    def test_skips_the_delays_of_tasks_in_tasks(self, attempts: list[int]) -> None:
        @task(retries=1, retry_delay_seconds=DAY)
        def flaky() -> int:
            attempts.append(0)
            if len(attempts) == 1:
                raise OSError
            return 7

        @task
        def outer() -> int:
            return flaky()

        @flow
        def around() -> int:
            return outer()

        with inline(FakeClock()):
            assert around() == 7

    def test_runs_like_the_real_one_otherwise(self) -> None:
        clock = FakeClock()
        before, now, after = time.time_ns(), clock.now(), time.time_ns()
        assert before <= now <= after
        assert clock.seconds_until(clock.now() + 10**9) == 0
        assert clock.skipped == pytest.approx(1, abs=0.5)
        assert clock.seconds_until(clock.now() - 10**9) == 0
        assert clock.skipped == pytest.approx(1, abs=0.5)


class TestPage:
    PAGE = Path(__file__).parents[2] / "docs" / "testing.md"

    def test_shows_tests_that_pass(self, tmp_path: Path) -> None:
        examples = re.findall(r"```python\n(.+?)```", self.PAGE.read_text("utf-8"), re.DOTALL)
        assert examples
        # Not what this process's tests have set: an example kills its worker, wherever that is.
        others = {n: value for n, value in os.environ.items() if not n.startswith("RAYSCHED_")}
        for number, text in enumerate(examples):
            # One process each: some run on Ray, and the first one's fixture lasts for its session.
            place = tmp_path / str(number)
            place.mkdir()
            (place / "test_example.py").write_text(text, "utf-8")
            command = [sys.executable, "-W", "error", "-m", "pytest", "-q", str(place)]
            done = subprocess.run(
                command,
                cwd=place,
                env=others | {"RAYSCHED_HOME": str(place / "home")},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
