"""Skipping: by the task itself, and by predicates on its arguments."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from face.around import caught, in_flow
from face.steps import describe, fail, give, skipped
from raysched import (
    StateType,
    TaskRunSkipped,
    allow_failure,
    flow,
    get_run,
    runtime,
    skip,
    task,
    when,
)


class TestSkip:
    def test_the_reason_is_kept(self) -> None:
        @flow
        def body() -> str:
            future = skipped.submit("a.csv")
            future.wait()
            assert future.state.type is StateType.SKIPPED
            assert future.state.is_completed()
            return str(runtime.flow_run.id)

        run = get_run(body())
        assert run.state.type is StateType.COMPLETED
        assert [each.reason for each in run.task_runs()] == ["no data in a.csv"]

    def test_the_result_raises(self) -> None:
        assert "TaskRunSkipped" in in_flow(caught, skipped, "a.csv")
        assert "no data in a.csv" in in_flow(caught, skipped, "a.csv")

    def test_what_needs_it_is_skipped_too(self) -> None:
        def body() -> Any:
            future = describe.submit(give.submit(skipped.submit()))
            future.wait()
            return future.state.type

        assert in_flow(body) is StateType.SKIPPED

    def test_it_is_not_tried_again(self, tmp_path: Any) -> None:
        def count() -> None:
            with (tmp_path / "tried").open("a") as file:
                file.write("x")
            skip("no data")

        assert in_flow(caught, task(count, retries=3)).startswith("TaskRunSkipped")
        assert (tmp_path / "tried").read_text() == "x"

    def test_of_an_async_task(self) -> None:
        @task
        async def later() -> None:
            skip("no data")

        def body() -> Any:
            future = later.submit()
            future.wait()
            return future.state.type

        assert in_flow(body) is StateType.SKIPPED


Marked: TypeAlias = Callable[[Any, Callable[[Any], bool]], Any]


def is_exception(value: object) -> bool:
    return isinstance(value, BaseException)


@task
def class_of(x: Any) -> str:
    return type(x).__name__


@task
def fail_on_one(n: int) -> int:
    if n == 1:
        raise ValueError(n)
    return n


def over_three(value: int) -> bool:
    return value > 3


class TestWhen:
    @pytest.mark.parametrize(
        "predicate", [over_three, lambda value: value > 3], ids=["by name", "lambda"]
    )
    def test_a_future(self, predicate: Callable[[int], bool]) -> None:
        def body() -> list[Any]:
            futures = [give.submit(when(give.submit(n), predicate)) for n in (3, 4)]
            for future in futures:
                future.wait()
            return [future.state.type for future in futures]

        assert in_flow(body) == [StateType.SKIPPED, StateType.COMPLETED]

    def test_each_of_a_map(self) -> None:
        def body() -> list[Any]:
            futures = give.map(when(give.map([3, 4, 5]), over_three))
            futures.wait()
            return [state.type for state in futures.states]

        assert in_flow(body) == [StateType.SKIPPED, StateType.COMPLETED, StateType.COMPLETED]

    def test_the_reason(self) -> None:
        text = in_flow(caught, lambda: give(when(3, over_three)))
        assert "TaskRunSkipped" in text
        assert "over_three" in text

    def test_a_predicate_that_raises_fails_the_task_run(self) -> None:
        def body() -> Any:
            future = give.submit(when(give.submit(3), lambda value: value["x"]))
            return future.result(raise_on_failure=False)

        error = in_flow(body)
        assert isinstance(error, TypeError)
        assert "the predicate of when(…, <lambda>) raised this" in error.__notes__
        (failed,) = get_run("last").failures
        assert failed.error is not None
        assert failed.error.type == "builtins.TypeError"
        assert failed.error.message.endswith("\nthe predicate of when(…, <lambda>) raised this")
        assert 'lambda value: value["x"]' in failed.error.evidence["frames"][-1]["code"]
        assert "unpickled" not in failed.error.traceback

    def test_a_predicate_may_say_why_it_skips(self) -> None:
        def has_rows(value: int) -> bool:
            if not value:
                skip("no rows")
            return True

        def body() -> list[Any]:
            return [give(when(give.submit(n), has_rows), return_state=True) for n in (0, 1)]

        states = in_flow(body)
        assert [state.type for state in states] == [StateType.SKIPPED, StateType.COMPLETED]
        assert states[0].message == "no rows"

    def test_a_list_of_futures(self) -> None:
        def enough(values: list[int]) -> bool:
            return len(values) > 1

        assert in_flow(lambda: give(when(give.map([1, 2]), enough))) == [1, 2]

    def test_a_parameter_of_a_subflow(self) -> None:
        inner = flow(lambda x: x, name="inner")

        def body() -> int:
            with pytest.raises(TaskRunSkipped):
                inner(when(give.submit(3), over_three))
            return int(inner(when(give.submit(4), over_three)))

        assert in_flow(body) == 4

    def test_equal_calls_differ_by_their_predicates(self) -> None:
        def body() -> bool:
            some = give.submit(when(1, lambda x: x > 0))
            other = give.submit(when(1, lambda x: x > -1))
            return some.identity() == other.identity()

        assert not in_flow(body)


@pytest.mark.parametrize(
    "marked",
    [
        lambda future, ask: when(allow_failure(future), ask),
        lambda future, ask: allow_failure(when(future, ask)),
    ],
    ids=["allow_failure inside", "allow_failure outside"],
)
class TestWhenAndAllowFailure:
    """Whichever of the two marks is the outer one: the predicate is asked about exceptions."""

    def test_a_future(self, marked: Marked) -> None:
        def body() -> list[Any]:
            upstream = [fail.submit(), give.submit(1)]
            futures = [class_of.submit(marked(each, is_exception)) for each in upstream]
            return [future.result(raise_on_failure=False) for future in futures]

        told, skipped = in_flow(body)
        assert told == "ValueError"
        assert isinstance(skipped, TaskRunSkipped)

    def test_futures_in_a_list(self, marked: Marked) -> None:
        def some_failed(values: list[Any]) -> bool:
            return any(map(is_exception, values))

        def body() -> Any:
            return give(marked([fail.submit(), give.submit(1)], some_failed))

        error, value = in_flow(body)
        assert (type(error), value) == (ValueError, 1)

    def test_each_of_a_map(self, marked: Marked) -> None:
        def body() -> list[Any]:
            futures = class_of.map(marked(fail_on_one.map(range(3)), is_exception))
            futures.wait()
            return [state.type for state in futures.states]

        skipped, completed = StateType.SKIPPED, StateType.COMPLETED
        assert in_flow(body) == [skipped, completed, skipped]

    def test_a_parameter_of_a_subflow(self, marked: Marked) -> None:
        inner = flow(lambda x: type(x).__name__, name="inner")

        def body() -> str:
            with pytest.raises(TaskRunSkipped):
                inner(marked(give.submit(1), is_exception))
            return str(inner(marked(fail.submit(), is_exception)))

        assert in_flow(body) == "ValueError"
