"""Flow functions that catch their cancellation and go on."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raysched import FlowRunCancelled, StateType, flow, get_run, runtime, task
from raysched.define import stopping
from raysched.define.stopping import stop_flow

made: list[int] = []


@task
def make(x: int) -> int:
    made.append(x)
    return x


@task(retries=1, retry_delay_seconds=600)
def slow_to_retry() -> None:
    raise ValueError("again")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lose patience soon."""
    monkeypatch.setattr(stopping, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(stopping, "INSIST_SECONDS", 0.05)
    made.clear()
    yield
    made.clear()


def cancel_soon(*, force: bool = False) -> None:
    """Cancel the flow run that this is called in, from another thread."""
    run_id = str(runtime.flow_run.id)
    threading.Thread(target=stop_flow, args=(run_id, "me@here"), kwargs={"force": force}).start()


def wait_for_it() -> None:
    slow_to_retry.submit().wait()


def sleep() -> None:
    time.sleep(600)


def cancelled(body: Callable[[], Any]) -> None:
    """Run a flow that is cancelled, and in which `make` never runs."""
    with pytest.raises(FlowRunCancelled, match="cancelled by me@here"):
        flow(body, name="around")()
    run = get_run("last")
    assert run.state.type is StateType.CANCELLED
    assert [each for each in run.task_runs() if each.task == "make"] == []


PLACES = pytest.mark.parametrize("place", [wait_for_it, sleep], ids=lambda f: f.__name__)


CALLS: dict[str, Callable[[], Any]] = {
    "call": lambda: make(1),
    "submit": lambda: make.submit(1),
    "map": lambda: make.map([1]),
    "subflow": flow(lambda: made.append(1), name="inner"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nothing_begins_after_it(call: Callable[[], Any]) -> None:
    raised: list[str] = []

    def body() -> None:
        with contextlib.suppress(BaseException):
            cancel_soon()
            wait_for_it()
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            raised.append(type(error).__name__)

    cancelled(body)
    assert (raised, made) == (["FlowStopped"], [])
    warnings = [record.message for record in get_run("last").logs()]
    assert any("goes on although it was cancelled" in each for each in warnings)


@pytest.mark.parametrize("in_main", [True, False], ids=["main thread", "other thread"])
def test_a_loop_that_never_lets_it_go(in_main: bool) -> None:
    begun = threading.Event()

    def body() -> None:
        while True:
            try:
                if not begun.is_set():
                    begun.set()
                    cancel_soon()
                wait_for_it()
            except BaseException:  # noqa: BLE001
                for _ in range(1000):
                    time.sleep(0.001)

    if in_main:
        cancelled(body)
        return
    errors: list[BaseException] = []

    def run() -> None:
        try:
            flow(body, name="around")()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [type(error) for error in errors] == [FlowRunCancelled]


def test_code_behind_it_is_interrupted_at_once() -> None:
    def body() -> None:
        with contextlib.suppress(BaseException):
            cancel_soon()
            wait_for_it()
        with contextlib.suppress(BaseException):
            make(1)
        sleep()

    cancelled(body)
    assert made == []


@PLACES
def test_handlers_may_call_tasks_and_take_their_time(place: Callable[[], None]) -> None:
    kept: list[int] = []

    def in_handler() -> None:
        time.sleep(0.5)
        kept.append(make(1))

    @contextlib.contextmanager
    def cleaning() -> Iterator[None]:
        try:
            yield
        finally:
            kept.append(make(2))

    def body() -> None:
        try:
            with cleaning():
                cancel_soon()
                place()
        except BaseException as error:
            in_handler()
            raise RuntimeError("another one") from error
        finally:
            kept.append(make.submit(3).result())
            kept.append(flow(make.fn, name="inner")(4))

    with pytest.raises(RuntimeError, match="another one"):
        flow(body, name="around")()
    assert kept == [2, 1, 3, 4]


def test_by_force_handlers_have_no_time() -> None:
    def body() -> None:
        try:
            cancel_soon(force=True)
            wait_for_it()
        finally:
            make(1)

    cancelled(body)
    assert made == []
