import logging
from pathlib import Path
from typing import Any

import pytest

from face.around import caught, ignore, in_flow
from raysched import Failed, InvalidOption, StateType, flow, runtime, task


class TestHooksOfTasks:
    def test_arguments(self) -> None:
        seen: list[Any] = []

        @task(on_completion=[lambda *given: seen.append(given)])
        def work(x: int) -> int:
            return x

        in_flow(work, 3)
        ((hooked, run, state),) = seen
        assert hooked is work
        assert (run.task_name, run.key, run.run_count, run.state_type) == (
            "work",
            "work[0]",
            1,
            StateType.COMPLETED,
        )
        assert (state.type, state.is_completed()) == (StateType.COMPLETED, True)

    def test_decorators(self) -> None:
        seen: list[str] = []

        @task
        def work(x: int) -> int:
            return 1 // x

        @work.on_running
        def running(*_: Any) -> None:
            seen.append("running")

        @work.on_completion
        def completed(*_: Any) -> None:
            seen.append("completed")

        @work.on_failure
        def failed(_task: Any, _run: Any, state: Any) -> None:
            seen.append(repr(state.result(raise_on_failure=False)))

        in_flow(work, 1)
        assert seen == ["running", "completed"]
        in_flow(caught, work, 0)
        assert seen[2] == "running"
        assert "ZeroDivisionError" in seen[3]
        assert len(seen) == 4
        assert callable(running)

    def test_failure_is_told_after_the_last_attempt(self) -> None:
        counts: list[int] = []

        @task(retries=2, on_failure=[lambda _task, run, _state: counts.append(run.run_count)])
        def work() -> None:
            raise ValueError("always")

        in_flow(caught, work)
        assert counts == [3]

    def test_that_raise_harm_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(*_: Any) -> None:
            raise RuntimeError("the hook is broken")

        @task(on_completion=[broken])
        def work() -> int:
            return 3

        with caplog.at_level(logging.ERROR):
            assert in_flow(work) == 3
        assert any("broken" in record.getMessage() for record in caplog.records)

    def test_of_a_map(self) -> None:
        keys: list[str] = []
        work = task(abs, on_completion=[lambda _task, run, _state: keys.append(run.key)])
        in_flow(lambda: work.map([-1, -2, -3]))
        assert sorted(keys) == ["abs[0]", "abs[1]", "abs[2]"]

    def test_only_functions(self) -> None:
        with pytest.raises(InvalidOption, match=r"task 'abs': on_failure needs a function, not 3"):
            task(abs).on_failure(3)  # type: ignore[type-var]


class TestHooksOfFlows:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (lambda: 3, ["on_running", "on_completion"]),
            (lambda: 1 / 0, ["on_running", "on_failure"]),
            (lambda: Failed(message="no"), ["on_running", "on_failure"]),
        ],
        ids=["completes", "raises", "returns a failure"],
    )
    def test_kinds(self, body: Any, expected: list[str]) -> None:
        seen: list[str] = []
        around = flow(body, name="around")
        for kind in ("on_running", "on_completion", "on_failure", "on_crashed", "on_cancellation"):
            getattr(around, kind)(lambda *_, kind=kind: seen.append(kind))
        around(return_state=True)
        assert seen == expected

    def test_arguments(self) -> None:
        seen: list[Any] = []

        @flow(flow_run_name="run-{n}")
        def around(n: int) -> int:
            return n

        around.on_completion(lambda *given: seen.append(given))
        around(3)
        ((hooked, run, state),) = seen
        assert hooked is around
        assert (run.name, run.flow_name, dict(run.parameters)) == ("run-3", "around", {"n": 3})
        assert state.result() == 3

    def test_that_raise_harm_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(*_: Any) -> None:
            raise RuntimeError("the hook is broken")

        assert flow(lambda: 3, name="f", on_completion=[broken])() == 3
        assert "on_completion hook" in caplog.text

    def test_survive_with_options(self) -> None:
        seen: list[int] = []
        around = flow(lambda: 3, name="f")
        around.on_completion(lambda *_: seen.append(1))
        around.with_options(name="other")()
        assert seen == [1]


class TestRetriesOfTasks:
    def test_until_it_works(self) -> None:
        @task(retries=3)
        def flaky() -> int:
            if runtime.task_run.attempt < 3:
                raise ValueError("again")
            return runtime.task_run.attempt

        assert in_flow(flaky) == 3

    def test_no_longer_than_allowed(self, tmp_path: Path) -> None:
        @task(retries=2, retry_delay_seconds=[0, 0.001], retry_jitter_factor=0.5)
        def broken() -> None:
            with (tmp_path / "attempts").open("a") as file:
                file.write("x")
            raise ValueError("always")

        assert in_flow(caught, broken) == "ValueError: always"
        assert (tmp_path / "attempts").read_text() == "xxx"

    def test_condition(self, tmp_path: Path) -> None:
        def worth_it(_task: Any, run: Any, state: Any) -> bool:
            error = state.result(raise_on_failure=False)
            return isinstance(error, ValueError) and run.run_count < 3

        @task(retries=9, retry_condition_fn=worth_it)
        def broken(error: type[Exception]) -> None:
            with (tmp_path / error.__name__).open("a") as file:
                file.write("x")
            raise error("why")

        in_flow(caught, broken, ValueError)
        in_flow(caught, broken, KeyError)
        assert (tmp_path / "ValueError").read_text() == "xxx"
        assert (tmp_path / "KeyError").read_text() == "x"

    def test_returned_failures_are_retried(self) -> None:
        @task(retries=1)
        def returning() -> Any:
            return 5 if runtime.task_run.attempt == 2 else Failed(message="again")

        assert in_flow(returning) == 5


def test_timeout_of_a_task() -> None:
    @task(timeout_seconds=0.05)
    def endless() -> None:
        while True:
            pass

    def body() -> None:
        state = endless.submit(return_state=True)
        assert state.is_timed_out()
        assert state.is_failed()
        ignore(state)

    in_flow(body)
