"""A flow run is cancelled from outside, wherever its function is."""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from raysched import FlowRunCancelled, StateType, flow, get_run, runtime, task
from raysched.define.stopping import stop_flow, stopped


@task
def double(x: Any) -> int:
    return int(2 * x)


@task(retries=1, retry_delay_seconds=600)
def slow_to_retry() -> None:
    raise ValueError("again")


class Canceller:
    """Cancels a flow run, from a thread of its own, once that has said that it is there."""

    def __init__(self) -> None:
        self.run_id = ""
        self.arrived = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def here(self) -> None:
        """Say from inside the flow that it is there."""
        self.run_id = str(runtime.flow_run.id)
        self.arrived.set()

    def _work(self) -> None:
        self.arrived.wait()
        stop_flow(self.run_id, "me@here")

    def join(self) -> None:
        self.arrived.set()
        self._thread.join()


@pytest.fixture
def canceller() -> Any:
    canceller = Canceller()
    yield canceller
    canceller.join()


def busy() -> None:
    while True:
        pass


def sleeping() -> None:
    time.sleep(600)


def waiting() -> None:
    slow_to_retry()


PLACES = pytest.mark.parametrize("place", [busy, sleeping, waiting], ids=lambda f: f.__name__)


@PLACES
def test_on_the_main_thread(canceller: Canceller, place: Callable[[], None]) -> None:
    cleaned: list[int] = []

    @flow
    def cancelled() -> None:
        try:
            canceller.here()
            place()
        finally:
            cleaned.append(double(2))

    with pytest.raises(FlowRunCancelled, match=r"^cancelled by me@here$"):
        cancelled()
    assert cleaned == [4]
    run = get_run(canceller.run_id)
    assert (run.state.type, run.message) == (StateType.CANCELLED, "cancelled by me@here")


@pytest.mark.parametrize("place", [busy, waiting], ids=lambda f: f.__name__)
def test_in_another_thread(canceller: Canceller, place: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def body() -> None:
        canceller.here()
        place()

    def run() -> None:
        try:
            flow(body)()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [str(error) for error in errors] == ["cancelled by me@here"]


@PLACES
def test_of_the_flow_around(canceller: Canceller, place: Callable[[], None]) -> None:
    states: dict[str, StateType] = {}

    def note(some: Any, _run: Any, state: Any) -> None:
        states[some.name] = state.type

    @flow(on_cancellation=[note])
    def inner() -> None:
        place()

    @flow(on_cancellation=[note])
    def outer() -> None:
        canceller.here()
        inner()

    with pytest.raises(FlowRunCancelled):
        outer()
    assert states == dict.fromkeys(["inner", "outer"], StateType.CANCELLED)


def test_of_a_subflow_alone(canceller: Canceller) -> None:
    @flow
    def inner() -> None:
        canceller.here()
        sleeping()

    def outer() -> str:
        try:
            inner()
        except FlowRunCancelled as error:
            return str(error)
        return "not cancelled"

    assert flow(outer)() == "cancelled by me@here"


class TestAsync:
    def test_at_an_await(self, canceller: Canceller) -> None:
        cleaned: list[int] = []

        @flow
        async def body() -> None:
            canceller.here()
            try:
                await asyncio.sleep(600)
            finally:
                cleaned.append(await double.submit(2))

        async def main() -> str:
            with pytest.raises(FlowRunCancelled, match="cancelled by me@here"):
                await body()
            await asyncio.sleep(0)
            return "the task that called it goes on"

        assert asyncio.run(main()) == "the task that called it goes on"
        assert cleaned == [4]
        assert get_run(canceller.run_id).state.type is StateType.CANCELLED

    def test_waiting_for_a_task_run(self, canceller: Canceller) -> None:
        @flow
        async def body() -> None:
            canceller.here()
            await slow_to_retry.submit()

        with pytest.raises(FlowRunCancelled):
            asyncio.run(body())

    def test_gathered_subflows(self, canceller: Canceller) -> None:
        states: list[StateType] = []
        there = asyncio.Barrier(3)

        @flow(on_cancellation=[lambda _flow, _run, state: states.append(state.type)])
        async def inner(_number: int) -> None:
            await there.wait()
            await asyncio.sleep(600)

        @flow
        async def outer() -> None:
            both = asyncio.gather(inner(1), inner(2))
            await there.wait()
            canceller.here()
            await both

        with pytest.raises(FlowRunCancelled):
            asyncio.run(outer())
        assert states == [StateType.CANCELLED] * 2

    def test_a_blocking_subflow(self, canceller: Canceller) -> None:
        @flow
        def inner() -> None:
            sleeping()

        @flow
        async def outer() -> None:
            canceller.here()
            inner()

        with pytest.raises(FlowRunCancelled):
            asyncio.run(outer())

    def test_one_that_holds_on_to_the_event_loop(self, canceller: Canceller) -> None:
        @flow
        async def body() -> None:
            canceller.here()
            busy()

        with pytest.raises(FlowRunCancelled):
            asyncio.run(body())


def test_swallowed(canceller: Canceller) -> None:
    @flow
    def body() -> str:
        with contextlib.suppress(BaseException):
            canceller.here()
            sleeping()
        return "as if nothing had happened"

    with pytest.raises(FlowRunCancelled):
        body()


def test_asked_again_it_ends_the_cleaning_up(canceller: Canceller) -> None:
    @flow
    def body() -> None:
        canceller.here()
        try:
            sleeping()
        finally:
            stop_flow(str(runtime.flow_run.id), "you@there")
            sleeping()

    with pytest.raises(FlowRunCancelled, match="cancelled by you@there"):
        body()


class Telling(ValueError):
    """Cancels the flow run when its message is read: after the function that raised it."""

    def __str__(self) -> str:
        stop_flow(str(self.args[0]), "me@here")
        return "again"


def test_between_attempts() -> None:
    counts: list[int] = []

    @flow(retries=1, retry_delay_seconds=600)
    def body() -> None:
        counts.append(runtime.flow_run.run_count)
        raise Telling(runtime.flow_run.id)

    with pytest.raises(FlowRunCancelled):
        body()
    assert counts == [1]


def test_leaves_signals_as_they_were() -> None:
    before = signal.getsignal(signal.SIGURG)
    flow(lambda: double(1), name="f")()
    assert signal.getsignal(signal.SIGURG) is before


def test_a_run_that_is_over() -> None:
    run_id = flow(lambda: str(runtime.flow_run.id), name="f")()
    stop_flow(run_id, "me@here")
    assert stopped(run_id) is None
