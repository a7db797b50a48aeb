import asyncio
import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, PositiveInt

from face.around import ignore, in_flow
from raysched import (
    Cancelled,
    Completed,
    Failed,
    Flow,
    FlowRunCancelled,
    FlowRunFailed,
    FlowRunTimedOut,
    InvalidOption,
    ParameterError,
    ResultError,
    Running,
    State,
    StateType,
    TaskRunFailed,
    UpstreamFailed,
    flow,
    runtime,
    task,
)


@task
def double(x: Any) -> int:
    return int(2 * x)


@task
def fail(x: Any = 0) -> int:
    raise ValueError(x)


@dataclasses.dataclass
class Box:
    content: Any


class Table(BaseModel):
    rows: int


class TestParameters:
    def test_are_coerced(self) -> None:
        @flow
        def typed(day: date, n: int, path: Path, table: Table, names: tuple[str, ...] = ()) -> Any:
            return day, n, path, table, names

        result = typed("2026-11-20", "3", path="x", table={"rows": 1}, names=["a"])  # type: ignore[call-overload]
        assert result == (date(2026, 11, 20), 3, Path("x"), Table(rows=1), ("a",))

    @pytest.mark.parametrize(
        ("args", "kwargs", "message"),
        [
            (("x",), {}, r"flow 'typed': parameter 'n': .*valid integer.*got 'x'"),
            ((0,), {}, r"parameter 'n': .*greater than 0"),
            ((), {}, r"flow 'typed': missing a required argument: 'n'"),
            ((1,), {"tabel": None}, r"'tabel'.*did you mean 'table'"),
            ((1,), {"table": {"rows": "many"}}, r"parameter \"table\['rows'\]\": .*integer"),
            ((1, None, 3), {}, r"too many positional arguments"),
        ],
        ids=["type", "range", "missing", "unknown", "nested", "too many"],
    )
    def test_mistakes_are_found_before_anything_runs(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], message: str
    ) -> None:
        ran: list[int] = []

        @flow
        def typed(n: PositiveInt, table: Table | None = None) -> None:
            ran.append(n)

        with pytest.raises(ParameterError, match=message):
            typed(*args, **kwargs)
        assert ran == []

    def test_annotated(self) -> None:
        @flow
        def typed(months: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)) -> Any:
            return months

        assert typed([2]) == (2,)  # type: ignore[call-overload]
        with pytest.raises(ParameterError, match="at least 1 item"):
            typed(())

    def test_may_stay_as_they_are(self) -> None:
        @flow(validate_parameters=False)
        def untyped(n: int) -> Any:
            return n

        assert untyped("3") == "3"  # type: ignore[call-overload]

    def test_types_unknown_to_pydantic(self) -> None:
        class Odd:
            pass

        @flow
        def typed(odd: Odd) -> bool:
            return isinstance(odd, Odd)

        assert typed(Odd())

    def test_variadic(self) -> None:
        @flow
        def typed(*args: int, **kwargs: float) -> Any:
            return args, kwargs

        assert typed("1", x="2") == ((1,), {"x": 2.0})  # type: ignore[call-overload]

    def test_positional_only(self) -> None:
        @flow
        def typed(x: int, /, y: int = 1) -> int:
            return x + y

        assert typed("1") == 2  # type: ignore[call-overload]

    def test_annotations_that_cannot_be_read(self) -> None:
        @flow
        def typed(x: "Unknown") -> None:  # type: ignore[name-defined] # noqa: F821
            pass

        with pytest.raises(ParameterError, match="validate_parameters=False"):
            typed(1)

    def test_names_that_pydantic_models_do_not_allow(self) -> None:
        @flow
        def typed(_x: int, copy: int, model_config: int) -> int:
            return _x + copy + model_config

        assert typed("1", 2, model_config=3) == 6  # type: ignore[call-overload]

    def test_cannot_take_our_names(self) -> None:
        with pytest.raises(InvalidOption, match=r"cannot be named 'wait_for'"):
            flow(lambda wait_for: wait_for)


class TestReturn:
    def test_none(self) -> None:
        assert flow(lambda: None, name="none")() is None

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda f: f,
            lambda f: [f],
            lambda f: (f, 1),
            lambda f: {"k": f},
            lambda f: {f},
            lambda f: Box([f]),
        ],
        ids=["alone", "list", "tuple", "dict", "set", "dataclass"],
    )
    def test_futures_become_values(self, wrap: Callable[[Any], Any]) -> None:
        assert flow(lambda: wrap(double.submit(1)), name="f")() == wrap(2)

    def test_the_object_itself_where_there_is_no_future(self) -> None:
        value = [Box({"k": (1, 2)})]
        assert flow(lambda: value, name="f")() is value

    def test_cyclic_values(self) -> None:
        value: list[Any] = []
        value.append(value)
        assert flow(lambda: value, name="f")() is value

    def test_failed_future_raises(self) -> None:
        with pytest.raises(ValueError, match="7"):
            flow(lambda: [double.submit(1), fail.submit(7)], name="f")()

    def test_victim_raises_from_its_root(self) -> None:
        with pytest.raises(UpstreamFailed) as caught:
            in_flow(lambda: double.submit(fail.submit(7)))
        assert isinstance(caught.value.__cause__, ValueError)

    def test_state_if_asked(self) -> None:
        state = flow(lambda: 3, name="f")(return_state=True)
        assert (state.type, state.result()) == (StateType.COMPLETED, 3)
        state = flow(lambda: fail(7), name="f")(return_state=True)
        assert state.is_failed()
        with pytest.raises(ValueError, match="7"):
            state.result()

    def test_completed_state(self) -> None:
        @flow
        def returning() -> Any:
            return Completed(data=5, message="fine")

        assert returning() == 5

    def test_failed_state(self) -> None:
        @flow
        def returning() -> Any:
            return Failed(message="no rows")

        state: Any = returning(return_state=True)
        assert state.message == "no rows"
        with pytest.raises(TaskRunFailed, match="no rows"):
            returning()

    def test_failed_state_with_an_exception(self) -> None:
        with pytest.raises(KeyError):
            flow(lambda: Failed(data=KeyError("k")), name="f")()

    def test_cancelled_state(self) -> None:
        state = flow(lambda: Cancelled(message="not today"), name="f")(return_state=True)
        assert state.is_cancelled()

    def test_states_of_tasks(self) -> None:
        def states() -> list[State[int]]:
            return [double(1, return_state=True), fail(return_state=True)]

        state: Any = flow(states)(return_state=True)
        assert state.is_failed()
        assert state.message == "1/2 states failed."
        state = flow(lambda: [double(1, return_state=True)], name="f")(return_state=True)
        assert state.is_completed()
        state = flow(lambda: fail(return_state=True), name="f")(return_state=True)
        assert state.is_failed()

    def test_open_state_is_a_failure(self) -> None:
        with pytest.raises(ResultError, match="not final"):
            in_flow(Running)


class TestFailure:
    def test_raises_what_the_function_raised(self) -> None:
        def broken() -> None:
            raise KeyError("k")

        with pytest.raises(KeyError):
            flow(broken)()

    def test_unhandled_failures_are_named(self) -> None:
        def body() -> int:
            ignore(fail.submit())
            return 3

        with pytest.raises(FlowRunFailed, match=r"fail\[0\]") as caught:
            flow(body)()
        assert caught.value.failures == ("fail[0]",)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_what_is_no_exception_goes_through(self, error: type[BaseException]) -> None:
        def broken() -> None:
            raise error

        with pytest.raises(error):
            flow(broken)(return_state=True)


class TestSubflows:
    def test_have_runs_of_their_own(self) -> None:
        @flow
        def inner() -> Any:
            return runtime.flow_run.id, double(2)

        @flow
        def outer() -> Any:
            return runtime.flow_run.id, double(1), inner(), runtime.flow_run.id

        outer_id, doubled, (inner_id, inner_doubled), after = outer()
        assert outer_id == after != inner_id
        assert (doubled, inner_doubled) == (2, 4)

    def test_futures_as_parameters(self) -> None:
        @flow
        def inner(n: Any, others: Any) -> int:
            return int(n + sum(others))

        assert flow(lambda: inner(double.submit(2), [double.submit(1)]), name="o")() == 6

    def test_wait_for(self) -> None:
        @flow
        def inner() -> int:
            return 1

        assert flow(lambda: inner(wait_for=[double.submit(1)]), name="o")() == 1
        with pytest.raises(ValueError, match="0"):
            flow(lambda: inner(wait_for=[fail.submit()]), name="o")()
        with pytest.raises(ParameterError, match="wait_for has 3"):
            flow(lambda: inner(wait_for=[3]), name="o")()

    def test_failure_that_was_caught(self) -> None:
        @flow
        def inner() -> int:
            return fail()

        def outer() -> str:
            try:
                inner()
            except ValueError:
                return "caught"
            return "nothing raised"

        assert flow(outer)() == "caught"

    def test_recursion(self) -> None:
        @flow
        def countdown(n: int) -> int:
            return 0 if n == 0 else 1 + countdown(n - 1)

        assert countdown(5) == 5

    def test_gathered(self) -> None:
        order: list[str] = []

        @flow
        async def inner(name: str) -> str:
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")
            return name

        @flow
        async def outer() -> Any:
            return await asyncio.gather(inner("a"), inner("b"))

        assert asyncio.run(outer()) == ["a", "b"]
        assert order == ["a begins", "b begins", "a ends", "b ends"]

    def test_sync_in_async(self) -> None:
        @flow
        def inner() -> int:
            return double(1)

        @flow
        async def outer() -> int:
            return inner()

        assert asyncio.run(outer()) == 2

    def test_in_threads_of_the_users(self) -> None:
        @flow
        def alone(n: int) -> int:
            return double(n)

        results: dict[int, int] = {}
        threads = [
            threading.Thread(target=lambda n=n: results.update({n: alone(n)})) for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {n: 2 * n for n in range(4)}


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
            flow(lambda: [inner()], name="outer", timeout_seconds=0.05)()
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

    def test_in_time(self) -> None:
        assert flow(lambda: double(1), name="f", timeout_seconds=60)() == 2

    def test_after_tasks(self) -> None:
        def body() -> None:
            double.map(range(3)).wait()
            while True:
                pass

        with pytest.raises(FlowRunTimedOut):
            flow(body, timeout_seconds=0.1)()


class TestNames:
    def test_of_the_run(self) -> None:
        @flow(flow_run_name="for-{n}")
        def named(n: int) -> str | None:
            return runtime.flow_run.name

        assert named(3) == "for-3"
        assert named.with_options(flow_run_name=lambda: "other")(3) == "other"

    def test_by_default_tells_runs_apart(self) -> None:
        named = flow(lambda: runtime.flow_run.name, name="f")
        first, second = named(), named()
        assert first != second
        assert first is not None
        assert first.startswith("f-")

    def test_unknown_field(self) -> None:
        with pytest.raises(InvalidOption, match=r"flow_run_name='{m}' names 'm'.*use one of n"):
            flow(lambda n: n, flow_run_name="{m}")

    def test_that_cannot_be_rendered(self) -> None:
        with pytest.raises(InvalidOption, match=r"flow_run_name.*raised"):
            flow(lambda n: n, name="f", flow_run_name="{n.missing}")(1)


class TestMethods:
    def test_of_objects(self) -> None:
        class Plant:
            factor = 3

            @flow
            def run(self, n: int) -> int:
                return self.factor * n

            @flow
            @staticmethod
            def plain(n: int) -> int:
                return n

        plant: Any = Plant()
        assert (Plant().run(2), Plant.plain(2), plant.plain(3)) == (6, 2, 3)

    def test_that_are_not_here(self) -> None:
        nightly: Any = flow(lambda: None, name="nightly")
        with pytest.raises(AttributeError, match=r"no \.serve: use a scheduler"):
            nightly.serve()
        with pytest.raises(AttributeError, match=r"no \.submit: use a call"):
            nightly.submit()
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            _ = nightly.nonsense

    def test_with_options(self) -> None:
        base = flow(lambda: runtime.flow_run.flow_name, name="base", retries=2)
        changed = base.with_options(name="changed")
        assert (base(), changed(), changed.spec.retry.retries) == ("base", "changed", 2)

    def test_by_value_and_by_name(self) -> None:
        import pickle

        import cloudpickle

        local = flow(lambda: 3, name="local", timeout_seconds=7)
        copy: Flow[[], int] = cloudpickle.loads(cloudpickle.dumps(local))
        assert (copy(), copy.spec.timeout_seconds) == (3, 7)
        assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level

    def test_jupyter(self) -> None:
        async def cell() -> int:
            # A synchronous flow beside the running event loop of a notebook.
            return int(flow(lambda: double(double.submit(1)), name="cell")())

        assert asyncio.run(cell()) == 4


@flow
def at_module_level() -> None: ...


def test_cancelled_runs_raise() -> None:
    with pytest.raises(FlowRunCancelled):
        flow(lambda: _raise(FlowRunCancelled("stop")), name="f")()


def _raise(error: Exception) -> None:
    raise error
