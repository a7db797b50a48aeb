"""What is tried again, how often, and when limits of time end it."""

import time
from pathlib import Path
from typing import Any

import pytest

from face.around import caught, in_flow
from raysched import Fail, Retry, TaskRunTimedOut, flow, get_run, runtime, task


@pytest.fixture
def tried(tmp_path: Path) -> Any:
    """Return how often `count` was called for a name."""

    def times(name: str) -> int:
        return len((tmp_path / name).read_text())

    return times


def count(folder: Path, name: str) -> None:
    with (folder / name).open("a") as file:
        file.write("x")


class TestRetryOn:
    @pytest.mark.parametrize("classes", [OSError, (OSError, KeyError)], ids=["one", "several"])
    def test_classes(self, classes: Any, tmp_path: Path, tried: Any) -> None:
        @task(retries=2, retry_on=classes)
        def broken(error: type[Exception]) -> None:
            count(tmp_path, error.__name__)
            raise error("why")

        in_flow(caught, broken, OSError)
        in_flow(caught, broken, FileNotFoundError)
        in_flow(caught, broken, ValueError)
        assert [tried(name) for name in ("OSError", "FileNotFoundError", "ValueError")] == [3, 3, 1]

    def test_a_function(self, tmp_path: Path, tried: Any) -> None:
        @task(retries=2, retry_on=lambda error: "busy" in str(error))
        def broken(message: str) -> None:
            count(tmp_path, message)
            raise ValueError(message)

        in_flow(caught, broken, "busy")
        in_flow(caught, broken, "bad")
        assert (tried("busy"), tried("bad")) == (3, 1)

    def test_answers_with_reasons(self, tmp_path: Path, tried: Any) -> None:
        def worth_it(error: BaseException) -> Retry | Fail:
            return Retry(0, "busy") if "busy" in str(error) else Fail("not ours")

        @task(retries=1, retry_delay_seconds=600, retry_on=worth_it)
        def broken(message: str) -> None:
            count(tmp_path, message)
            raise ValueError(message)

        @flow
        def body() -> str:
            caught(broken, "busy")
            caught(broken, "bad")
            return str(runtime.flow_run.id)

        run = get_run(body())
        assert (tried("busy"), tried("bad")) == (2, 1)
        reasons = [each.history[-1].stop_reason for each in run.task_runs()]
        assert "not ours" in reasons[1]

    def test_one_that_raises(self, tmp_path: Path, tried: Any) -> None:
        @task(retries=2, retry_on=lambda error: error.code > 3)
        def broken() -> None:
            count(tmp_path, "broken")
            raise ValueError("why")

        assert in_flow(caught, broken) == "ValueError: why"
        assert tried("broken") == 1


class TestResources:
    def test_functions_of_the_attempt(self) -> None:
        @task(retries=1, num_cpus=lambda attempt: attempt / 10)
        def flaky() -> int:
            if runtime.task_run.attempt == 1:
                raise ValueError("again")
            return runtime.task_run.attempt or 0

        assert in_flow(flaky) == 2


class TestTimeouts:
    def test_total(self, tmp_path: Path, tried: Any) -> None:
        @task(retries=1000, retry_delay_seconds=0.05, total_timeout_seconds=2)
        def broken() -> None:
            count(tmp_path, "broken")
            raise ValueError("again")

        text = in_flow(caught, broken)
        assert text.startswith("TaskRunTimedOut")
        assert "total" in text
        assert 1 <= tried("broken") < 1000

    def test_total_in_a_pause(self) -> None:
        @task(retries=1, retry_delay_seconds=600, total_timeout_seconds=0.2)
        def broken() -> None:
            raise ValueError("again")

        assert in_flow(caught, broken).startswith("TaskRunTimedOut")

    def test_total_in_an_attempt(self, request: pytest.FixtureRequest) -> None:
        if request.config.getoption("--backend") == "inline":
            pytest.skip("nobody looks at the time while the flow's own thread runs it")

        @task(total_timeout_seconds=0.2)
        def endless() -> None:
            while True:
                time.sleep(0.01)

        assert in_flow(caught, endless).startswith("TaskRunTimedOut")

    def test_queued(self, request: pytest.FixtureRequest) -> None:
        if request.config.getoption("--backend") == "inline":
            pytest.skip("the flow's own thread runs one after the other")

        @task(num_cpus=1000, queue_timeout_seconds=0.3)
        def never() -> None: ...

        text = in_flow(caught, never)
        assert text.startswith("TaskRunTimedOut")
        assert "queue" in text

    def test_one_in_time(self) -> None:
        @task(queue_timeout_seconds=600, total_timeout_seconds=600, heartbeat_timeout_seconds=600)
        def quick() -> int:
            return 3

        assert in_flow(quick) == 3

    def test_it_is_a_timeout_error(self) -> None:
        assert issubclass(TaskRunTimedOut, TimeoutError)
