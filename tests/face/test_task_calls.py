import dataclasses
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydantic
import pytest

from face.around import caught, ignore, in_flow
from raysched import (
    FutureError,
    ParameterError,
    SerializationError,
    TaskFuture,
    TaskFutureList,
    UpstreamFailed,
    allow_failure,
    flow,
    in_context,
    quote,
    runtime,
    task,
    unmapped,
)


@task
def add(x: Any, y: Any = 10) -> int:
    return int(x + y)


@task
def fail(message: str = "no") -> int:
    raise ValueError(message)


@task
def same(value: Any) -> Any:
    return value


@task
def total(values: list[int]) -> int:
    return sum(values)


@task
def describe(error: Any) -> str:
    return f"{type(error).__name__}: {error}"


@dataclasses.dataclass
class Box:
    content: Any


class Model(pydantic.BaseModel):
    content: Any


class TestCall:
    def test_in_a_flow_is_a_task_run(self) -> None:
        @task
        def key() -> str | None:
            return runtime.task_run.key

        assert in_flow(lambda: (key(), key())) == ("key[0]", "key[1]")

    def test_outside_a_flow_is_the_function(self) -> None:
        @task
        def key() -> str | None:
            return runtime.task_run.key

        assert add(1) == 11
        assert key() is None

    def test_takes_positional_and_named_arguments(self) -> None:
        assert in_flow(lambda: [add(1), add(1, 2), add(y=3, x=1), add(x=1)]) == [11, 3, 4, 11]

    def test_raises_what_the_function_raised(self) -> None:
        assert in_flow(caught, fail, "broken") == "ValueError: broken"

    def test_returns_a_state_if_asked(self) -> None:
        def body() -> list[bool]:
            good, bad = add(1, return_state=True), fail(return_state=True)
            assert good.result() == 11
            return [good.is_completed(), bad.is_failed()]

        assert in_flow(body) == [True, True]

    def test_takes_futures(self) -> None:
        assert in_flow(lambda: add(add.submit(1))) == 21

    def test_with_a_failed_upstream_raises_from_its_root(self) -> None:
        def body() -> None:
            root = fail.submit("root")
            with pytest.raises(UpstreamFailed, match=r"fail\[0\] failed") as error:
                add(root)
            assert isinstance(error.value.__cause__, ValueError)
            assert error.value.roots == ("fail[0]",)

        in_flow(body)

    def test_unknown_argument_names_the_closest(self) -> None:
        with pytest.raises(ParameterError, match=r"task 'add'.*'yy'.*did you mean 'y'"):
            in_flow(lambda: add.submit(1, yy=2))

    def test_missing_argument(self) -> None:
        with pytest.raises(ParameterError, match=r"task 'add': missing a required argument: 'x'"):
            in_flow(add.submit)

    def test_hint_is_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        @task(retries=2)
        def patient() -> int:
            return 1

        with caplog.at_level(logging.WARNING, "raysched"):
            assert [patient(), patient()] == [1, 1]
        assert sum("outside a flow" in record.message for record in caplog.records) <= 1


class TestSubmit:
    def test_outside_a_flow_raises(self) -> None:
        for method in (add.submit, add.map):
            with pytest.raises(FutureError, match=r"'add'.*only works in a flow"):
                ignore(method([1]))

    def test_in_a_thread_of_the_users_names_the_way_in(self) -> None:
        errors: list[str] = []

        def elsewhere() -> None:
            errors.append(caught(add.submit, 1))

        def body() -> None:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()

        in_flow(body)
        assert "in_context" in errors[0]

    def test_threads_with_the_context_record(self) -> None:
        import contextvars

        def body() -> int:
            futures: list[TaskFuture[int]] = []
            contexts = [contextvars.copy_context() for _ in range(4)]

            def record(number: int) -> None:
                run = contexts[number].run
                futures.extend(run(add.submit, i, number) for i in range(25))

            threads = [threading.Thread(target=record, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return sum(future.result() for future in futures)

        assert in_flow(body) == 4 * sum(range(25)) + 25 * (0 + 1 + 2 + 3)

    def test_threads_enter_by_what_in_context_returns(self) -> None:
        def body() -> int:
            with ThreadPoolExecutor(4) as pool:
                return sum(pool.map(in_context(add), range(40), range(40)))

        assert in_flow(body) == 2 * sum(range(40))

    def test_arguments_are_copied_at_the_call(self) -> None:
        def body() -> list[int]:
            values = [1]
            future = same.submit(values)
            values.append(2)
            result: list[int] = future.result()
            return result

        assert in_flow(body) == [1]

    def test_values_are_not_shared(self) -> None:
        @task
        def extend(values: list[int]) -> list[int]:
            values.append(0)
            return values

        def body() -> Any:
            start = same.submit([1])
            return [extend.submit(start), extend.submit(start), start]

        assert in_flow(body) == [[1, 0], [1, 0], [1]]

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda f: [f],
            lambda f: (f, f),
            lambda f: {"key": f},
            lambda f: {f},
            lambda f: frozenset({f}),
            lambda f: Box(content=f),
            lambda f: Model(content=f),
            lambda f: [{"deep": (Box([f]),)}],
        ],
        ids=["list", "tuple", "dict", "set", "frozenset", "dataclass", "model", "deep"],
    )
    def test_futures_are_found_inside(self, wrap: Callable[[Any], Any]) -> None:
        assert in_flow(lambda: same.submit(wrap(add.submit(1))).result()) == wrap(11)

    def test_futures_are_resolved_by_identity_of_their_call(self) -> None:
        def body() -> Any:
            first, second = add.submit(1), add.submit(2)
            return same.submit({"a": first, "b": [second, first]})

        assert in_flow(body) == {"a": 11, "b": [12, 11]}

    def test_what_cannot_be_pickled_raises_at_the_call(self) -> None:
        with pytest.raises(SerializationError, match=r"task 'add': argument 'y'.*lock"):
            in_flow(lambda: add.submit(1, y=threading.Lock()))

    def test_future_of_another_run(self) -> None:
        def body() -> None:
            inner = flow(lambda: keep.append(add.submit(1)), name="inner")
            keep: list[TaskFuture[int]] = []
            inner()
            with pytest.raises(FutureError, match=r"belongs to flow run .* pass its value"):
                ignore(add.submit(keep[0]))
            assert keep[0].result() == 11

        in_flow(body)

    def test_quoted_values_travel_as_they_are(self) -> None:
        assert in_flow(lambda: same(quote([1, 2]))) == [1, 2]

    def test_quoted_futures_raise(self) -> None:
        def body() -> None:
            future = add.submit(1)
            with pytest.raises(FutureError, match="cannot be pickled"):
                ignore(same.submit(quote([future])))

        in_flow(body)

    def test_marks_are_taken_off(self) -> None:
        assert in_flow(lambda: [same(unmapped([1])), same(allow_failure(2))]) == [[1], 2]
        assert same(unmapped([1])) == [1]

    def test_states_stand_for_their_values(self) -> None:
        assert in_flow(lambda: add(add(1, return_state=True))) == 21

    def test_returning_a_future_list_from_a_slice(self) -> None:
        def body() -> Any:
            futures = add.map(range(10))
            return total.submit(futures[::3]), total.submit(futures[5:]), total.submit(futures)

        assert in_flow(body) == (10 + 13 + 16 + 19, 15 + 16 + 17 + 18 + 19, 145)


class TestWaitFor:
    def test_orders(self, tmp_path: Path) -> None:
        @task
        def write(path: Path) -> None:
            path.write_text("there")

        @task
        def read(path: Path) -> str:
            return path.read_text()

        def body() -> str:
            written = write.submit(tmp_path / "file")
            return read.submit(tmp_path / "file", wait_for=[written]).result()

        assert in_flow(body) == "there"

    @pytest.mark.parametrize("shape", ["future", "list", "nested", "map", "allowed"])
    def test_failure_before_it_stops_it(self, shape: str) -> None:
        def body() -> bool:
            failures = fail.map(["a", "b"])
            shapes: dict[str, Any] = {
                "future": failures[0],
                "list": [failures[0]],
                "nested": [[failures[0]]],
                "map": failures,
                "allowed": [allow_failure(failures)],
            }
            future = add.submit(1, wait_for=shapes[shape])
            assert [failure.state.is_failed() for failure in failures if failure.wait()] == [
                True
            ] * 2
            future.wait()
            return future.state.is_upstream_failed()

        assert in_flow(body) == (shape != "allowed")

    def test_of_a_call(self) -> None:
        assert in_flow(lambda: add(1, wait_for=[add.submit(5)])) == 11

    def test_something_else_raises(self) -> None:
        with pytest.raises(ParameterError, match=r"task 'add': wait_for has 3"):
            in_flow(lambda: add.submit(1, wait_for=[3]))


class TestAllowFailure:
    def test_hands_over_the_exception(self) -> None:
        assert in_flow(lambda: describe(allow_failure(fail.submit("x")))) == "ValueError: x"

    def test_hands_over_the_value(self) -> None:
        assert in_flow(lambda: describe(allow_failure(add.submit(1)))) == "int: 11"

    def test_reaches_inside(self) -> None:
        @task
        def kinds(values: Any) -> list[str]:
            return [type(value).__name__ for value in values]

        def body() -> Any:
            return [
                kinds(allow_failure([fail.submit(), add.submit(1)])),
                kinds(allow_failure(fail.map(["a", "b"]))),
                kinds(allow_failure(fail.map(["a", "b"])[::-1])),
            ]

        assert in_flow(body) == [["ValueError", "int"], ["ValueError"] * 2, ["ValueError"] * 2]

    def test_as_elements_of_a_map(self) -> None:
        def body() -> Any:
            return describe.map(allow_failure(fail.map(["a", "b"])))

        assert in_flow(body) == ["ValueError: a", "ValueError: b"]


def test_future_lists_are_lazy() -> None:
    def body() -> int:
        futures = add.map(range(1000))
        assert isinstance(futures, TaskFutureList)
        assert len(futures.parts) == 1
        return len(futures)

    assert in_flow(body) == 1000
