"""A flow cancels task runs of its own."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from face.around import caught, ignore, in_flow
from raysched import (
    FlowRunCancelled,
    FlowRunFailed,
    StateType,
    TaskFuture,
    TaskRunCancelled,
    flow,
    get_run,
    runtime,
    task,
)


@task
def give(x: Any) -> Any:
    return x


@task(retries=1, retry_delay_seconds=600)
def slow_to_retry(x: int = 0) -> int:
    raise ValueError(x)


def test_one_that_waits() -> None:
    hooks: list[StateType] = []
    some = slow_to_retry.with_options(
        on_cancellation=[lambda _task, _run, state: hooks.append(state.type)]
    )

    def body() -> tuple[bool, bool, Any]:
        future = some.submit()
        asked = future.cancel()
        future.wait()
        return asked, future.cancel(), future.state.type

    assert in_flow(body) == (True, False, StateType.CANCELLED)
    assert hooks == [StateType.CANCELLED]


def test_the_result_says_who_did() -> None:
    def body() -> str:
        future = slow_to_retry.submit()
        ignore(future.cancel())
        with pytest.raises(TaskRunCancelled, match="cancelled by the flow"):
            future.result()
        return "went on"

    assert in_flow(body) == "went on"


def test_what_needs_it_does_not_run() -> None:
    def body() -> Any:
        future = slow_to_retry.submit()
        follower = give.submit(future)
        ignore(future.cancel())
        follower.wait()
        return follower.peek()

    assert in_flow(body) is StateType.UPSTREAM_FAILED


def test_some_of_a_map() -> None:
    def body() -> list[Any]:
        futures = slow_to_retry.map(range(4))
        ignore(futures[1:3].cancel())
        futures[1:3].wait()
        done = [future.done() for future in futures]
        ignore(futures.cancel())
        futures.wait()
        return [done, [state.type for state in futures.states]]

    assert in_flow(body) == [[False, True, True, False], [StateType.CANCELLED] * 4]


def test_what_the_flow_cancelled_itself_does_not_make_it_fail() -> None:
    @flow
    def body() -> str:
        ignore(slow_to_retry.submit().cancel())
        ignore(slow_to_retry.map([1, 2]).cancel())
        return str(runtime.flow_run.id)

    run = get_run(body())
    assert run.state.type is StateType.COMPLETED
    assert {each.state.type for each in run.task_runs()} == {StateType.CANCELLED}


def test_unless_it_raises() -> None:
    def body() -> Any:
        future = slow_to_retry.submit()
        ignore(future.cancel())
        return future

    with pytest.raises(TaskRunCancelled):
        in_flow(body)


def test_one_that_has_ended() -> None:
    def body() -> tuple[bool, int]:
        future = give.submit(1)
        future.wait()
        return future.cancel(), future.result()

    assert in_flow(body) == (False, 1)


def test_one_that_runs(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--backend") == "inline":
        pytest.skip("the flow's own thread runs it")

    @task
    def endless() -> None:
        (tmp_path / "begun").touch()
        try:
            while True:
                time.sleep(0.01)
        finally:
            (tmp_path / "cleaned").touch()

    @flow
    def body() -> Any:
        future: TaskFuture[None] = endless.submit()
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        ignore(future.cancel())
        future.wait()
        return future.state.type

    assert body() is StateType.CANCELLED
    assert (tmp_path / "cleaned").exists()


def test_nobody_else_is_hurt() -> None:
    def body() -> list[int]:
        slow = slow_to_retry.map(range(10))
        quick = give.map(range(10))
        ignore(slow.cancel())
        return quick.result()

    assert in_flow(body) == list(range(10))


def test_flows_that_fail_still_do() -> None:
    @task
    def fail() -> None:
        raise ValueError

    def body() -> None:
        ignore(slow_to_retry.submit().cancel())
        ignore(fail.submit())

    with pytest.raises(FlowRunFailed, match="fail"):
        in_flow(body)


class TestFromElsewhere:
    """As `raysched cancel` does: by a request in the database, which the engine looks for."""

    def test_a_run(self) -> None:
        cleaned: list[int] = []

        @flow
        def body() -> None:
            get_run(str(runtime.flow_run.id)).cancel(by="me@here")
            try:
                ignore(slow_to_retry())
            finally:
                cleaned.append(give(3))

        with pytest.raises(FlowRunCancelled, match="cancelled by me@here"):
            body()
        assert cleaned == [3]

    def test_beside_another_one_that_waits(self) -> None:
        ids: list[str] = []
        errors: list[str] = []
        begun = threading.Event()

        @flow
        def cancelled() -> None:
            ids.append(str(runtime.flow_run.id))
            begun.set()
            slow_to_retry()

        @flow
        def waiting() -> None:
            begun.wait()
            get_run(ids[0]).cancel(by="me@here")
            future = slow_to_retry.submit()

            def cancel_afterwards() -> None:
                thread.join()
                ignore(future.cancel())

            threading.Thread(target=cancel_afterwards).start()
            future.wait()

        thread = threading.Thread(target=lambda: errors.append(caught(cancelled)))
        thread.start()
        waiting()
        thread.join()
        assert errors == ["FlowRunCancelled: cancelled by me@here"]
