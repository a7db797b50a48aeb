import asyncio
import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from face.around import ignore
from raysched import (
    Failed,
    FlowRunTimedOut,
    StateType,
    flow,
    runtime,
    task,
)


@task
def double(x: Any) -> int:
    return int(2 * x)


class TestRetries:
    def test_completed_task_runs_are_kept(self, tmp_path: Path) -> None:
        @task
        def count(name: str) -> int:
            file = tmp_path / name
            file.write_text(file.read_text() + "x" if file.exists() else "x")
            return len(file.read_text())

        @flow(retries=2)
        def stubborn() -> Any:
            first = count("first")
            if runtime.flow_run.run_count < 3:
                raise ValueError("again")
            return first, count("second"), runtime.flow_run.run_count

        assert stubborn() == (1, 1, 3)

    def test_failed_task_runs_run_again(self, tmp_path: Path) -> None:
        @task
        def flaky() -> int:
            file = tmp_path / "tried"
            if file.exists():
                return 1
            file.touch()
            raise ValueError("first time")

        assert flow(lambda: (flaky(),), name="f", retries=1)() == (1,)

    def test_failures_that_nobody_saw_count(self, tmp_path: Path) -> None:
        @task
        def flaky() -> int:
            file = tmp_path / "tried"
            if file.exists():
                return 1
            file.touch()
            raise ValueError("first time")

        def body() -> int:
            ignore(flaky.submit())
            return runtime.flow_run.run_count

        assert flow(body, retries=3)() == 2

    def test_success_is_not_run_again(self) -> None:
        assert flow(lambda: runtime.flow_run.run_count, name="f", retries=3)() == 1

    def test_failed_state_is_retried(self) -> None:
        def body() -> Any:
            return 7 if runtime.flow_run.run_count == 2 else Failed(message="again")

        assert flow(body, retries=1)() == 7

    def test_end_after_the_last(self) -> None:
        counts: list[int] = []

        def body() -> None:
            counts.append(runtime.flow_run.run_count)
            raise ValueError("always")

        with pytest.raises(ValueError, match="always"):
            flow(body, retries=2, retry_delay_seconds=0)()
        assert counts == [1, 2, 3]


class TestTimeout:
    def test_python_code(self) -> None:
        def body() -> None:
            while True:
                pass

        with pytest.raises(FlowRunTimedOut, match=r"'body' took longer than timeout_seconds=0.05"):
            flow(body, timeout_seconds=0.05)()

    def test_system_calls(self) -> None:
        state = flow(lambda: time.sleep(60), name="f", timeout_seconds=0.05)(return_state=True)
        assert state.type is StateType.TIMED_OUT

    def test_swallowed(self) -> None:
        def body() -> str:
            with contextlib.suppress(BaseException):
                time.sleep(60)
            return "as if nothing had happened"

        with pytest.raises(FlowRunTimedOut):
            flow(body, timeout_seconds=0.05)()

    def test_in_another_thread(self) -> None:
        errors: list[BaseException] = []

        def body() -> None:
            while True:
                pass

        def run() -> None:
            try:
                flow(body, timeout_seconds=0.05)()
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert [type(error) for error in errors] == [FlowRunTimedOut]

    def test_async(self) -> None:
        @flow(timeout_seconds=0.05)
        async def body() -> None:
            await asyncio.sleep(60)

        with pytest.raises(FlowRunTimedOut):
            asyncio.run(body())

    def test_timeout_error_of_the_users(self) -> None:
        @flow(timeout_seconds=60)
        async def body() -> None:
            raise TimeoutError("mine")

        with pytest.raises(TimeoutError, match="mine"):
            asyncio.run(body())

    def test_of_the_flow_around(self) -> None:
        states: list[StateType] = []

        @flow(timeout_seconds=60)
        def inner() -> None:
            time.sleep(60)

        inner.on_cancellation(lambda _flow, _run, state: states.append(state.type))

        with pytest.raises(FlowRunTimedOut, match="'outer'"):
            # As long as it may take until the inner one has begun.
            flow(lambda: [inner()], name="outer", timeout_seconds=1)()
        assert states == [StateType.CANCELLED]

    def test_inner_one_is_shorter(self) -> None:
        @flow(timeout_seconds=0.05)
        def inner() -> None:
            time.sleep(60)

        def outer() -> str:
            try:
                inner()
            except FlowRunTimedOut:
                return "went on"
            return "nothing raised"

        assert flow(outer, timeout_seconds=60)() == "went on"

    def test_leaves_the_timer_as_it_was(self) -> None:
        def on_alarm(*_: Any) -> None: ...

        before = signal.signal(signal.SIGALRM, on_alarm)
        try:
            signal.setitimer(signal.ITIMER_REAL, 1000)
            flow(lambda: double(1), name="f", timeout_seconds=60)()
            assert 0 < signal.setitimer(signal.ITIMER_REAL, 0)[0] <= 1000
            assert signal.getsignal(signal.SIGALRM) is on_alarm
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_while_waiting(self) -> None:
        @task(retries=1, retry_delay_seconds=600)
        def slow_to_retry() -> None:
            raise ValueError("again")

        def body() -> None:
            slow_to_retry()

        state = flow(body, timeout_seconds=0.05)(return_state=True)
        assert state.type is StateType.TIMED_OUT

    def test_in_time(self) -> None:
        assert flow(lambda: double(1), name="f", timeout_seconds=60)() == 2

    def test_after_tasks(self) -> None:
        def body() -> None:
            double.map(range(3)).wait()
            while True:
                pass

        with pytest.raises(FlowRunTimedOut):
            flow(body, timeout_seconds=0.1)()
