import asyncio
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest

from face.around import ignore, in_flow
from raysched import (
    Cancelled,
    Completed,
    Failed,
    Flow,
    FlowRunCancelled,
    FlowRunFailed,
    InvalidOption,
    ParameterError,
    ResultError,
    Running,
    State,
    StateType,
    TaskRunFailed,
    UpstreamFailed,
    allow_failure,
    flow,
    quote,
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

    def test_marked_parameters(self) -> None:
        @flow
        def inner(value: Any, others: Any = None) -> str:
            return f"{value!r} {others!r}"

        def outer() -> Any:
            failed = fail.submit(7)
            return inner(allow_failure(failed)), inner(
                quote([1]), allow_failure([double.submit(1)])
            )

        assert in_flow(outer) == ("ValueError(7) None", "[1] [2]")

    def test_wait_for(self) -> None:
        @flow
        def inner() -> int:
            return 1

        def around() -> int:
            state = double(1, return_state=True)
            return inner(wait_for=[[double.submit(1)], state, allow_failure(fail.submit())])

        assert in_flow(around) == 1

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
