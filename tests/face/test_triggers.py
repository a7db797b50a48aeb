"""Trigger rules, as flows see them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from face.around import caught, ignore, in_flow
from face.steps import describe, fail, give, skipped
from raysched import (
    FlowRunFailed,
    InvalidOption,
    StateType,
    Successes,
    TriggerRule,
    allow_failure,
    flow,
    get_run,
    min_success,
    runtime,
    task,
)


class TestRules:
    def test_all_done(self) -> None:
        def body() -> Any:
            return describe(
                fail.submit(), give.submit(1), skipped.submit(), trigger_rule="all_done"
            )

        assert in_flow(body) == ["ValueError", "1", "TaskRunSkipped"]

    def test_what_a_rule_lets_through_is_handled(self) -> None:
        @flow
        def body() -> str:
            ignore(describe.submit(fail.submit(), trigger_rule=TriggerRule.ALL_DONE))
            return str(runtime.flow_run.id)

        assert get_run(body()).message == "1 failure handled"

    def test_one_failed_does_not_wait(self) -> None:
        @task(retries=1, retry_delay_seconds=600)
        def slow_to_retry() -> None:
            raise ValueError("again")

        @flow
        def body() -> Any:
            slow = slow_to_retry.submit()
            found = describe(fail.submit(), slow, trigger_rule="one_failed")
            ignore(slow.cancel())
            return found

        assert body() == ["ValueError", "TaskRunUnfinished"]

    def test_all_failed_is_not_met(self) -> None:
        def body() -> Any:
            future = give.submit(give.submit(1), trigger_rule="all_failed")
            future.wait()
            return future.state.type

        assert in_flow(body) is StateType.SKIPPED

    def test_a_rule_that_a_failure_breaks_names_its_root(self) -> None:
        def body() -> Any:
            return describe.submit(
                fail.submit("why"), give.submit(1), trigger_rule="none_failed"
            ).result()

        assert in_flow(caught, body).startswith("UpstreamFailed")

    @pytest.mark.parametrize(
        ("call", "number"),
        [
            (
                lambda few: give.submit(few.submit(1), trigger_rule=min_success(3)),
                "1 task run only",
            ),
            (
                lambda few: give.submit(1, wait_for=[few.map([1, 2])], trigger_rule=min_success(3)),
                "2 task runs only",
            ),
            (
                lambda few: give.map(few.map([1, 2, 3]), trigger_rule=min_success(3)),
                "1 task run only",
            ),
            (
                lambda few: give.map([[few.submit(1), few.submit(2)]], trigger_rule=min_success(3)),
                "2 task runs only",
            ),
        ],
        ids=["call", "wait_for", "map", "elements"],
    )
    def test_more_successes_than_there_are(
        self, call: Callable[[Any], object], number: str
    ) -> None:
        text = in_flow(caught, lambda: call(give.with_options(name="few")))
        assert text.startswith("InvalidOption: task 'give': trigger_rule=min_success(3)")
        assert number in text

    def test_as_many_successes_as_there_are(self) -> None:
        def body() -> Any:
            return give(give.map([1, 2]), wait_for=[give.submit(3)], trigger_rule=min_success(3))

        assert in_flow(body) == [1, 2]
        assert in_flow(lambda: give(1, trigger_rule=min_success(3))) == 1  # it needs none

    def test_min_success(self) -> None:
        def body() -> Any:
            numbers = [give.submit(1), fail.submit(), give.submit(2)]
            return describe(*numbers, trigger_rule=min_success(2))

        assert in_flow(body) == ["1", "ValueError", "2"]

    def test_with_options(self) -> None:
        always = describe.with_options(trigger_rule="all_done")
        assert in_flow(lambda: always(fail.submit())) == ["ValueError"]

    def test_of_a_map(self) -> None:
        named = task(lambda value: type(value).__name__)

        def body() -> Any:
            mixed = [fail.submit(), give.submit(1)]
            return named.map(mixed, trigger_rule="all_done").result()

        assert in_flow(body) == ["ValueError", "int"]

    def test_a_parameter_of_that_name_wins(self) -> None:
        own: Any = task(lambda trigger_rule: trigger_rule)

        def body() -> list[Any]:
            return [
                own(trigger_rule="mine"),
                own.submit(trigger_rule="mine").result(),
                own.map(trigger_rule=["mine"]).result(),
            ]

        assert in_flow(body) == ["mine", "mine", ["mine"]]

    def test_outside_a_flow_it_says_nothing(self) -> None:
        assert give(3, trigger_rule="always") == 3

    @pytest.mark.parametrize("call", [give, give.submit, give.map], ids=["call", "submit", "map"])
    def test_mistakes(self, call: Any) -> None:
        def body() -> None:
            with pytest.raises(InvalidOption, match="did you mean 'all_done'"):
                call([1], trigger_rule="all_doen")

        in_flow(body)

    def test_calls_with_one_rule_are_of_one_kind(self) -> None:
        def body() -> int:
            futures = [give.submit(n, trigger_rule="all_done") for n in range(5)]
            return len({id(future.member[0].spec) for future in futures})

        assert in_flow(body) == 1


class TestMinSuccessOfMaps:
    def test_the_result(self) -> None:
        def body() -> Any:
            found = odd.map([1, 2, 3], min_success=2).result()
            assert isinstance(found, Successes)
            return found, [str(error) for error in found.failures]

        assert in_flow(body) == ([1, 3], ["2"])

    def test_the_failures_are_handled(self) -> None:
        @flow
        def body() -> str:
            odd.map([1, 2, 3], min_success=0.5).wait()
            return str(runtime.flow_run.id)

        assert get_run(body()).message == "1 failure handled"

    def test_too_few(self) -> None:
        def body() -> Any:
            return odd.map([1, 2, 4], min_success=2).result()

        @flow
        def around() -> list[str]:
            with pytest.raises(ValueError, match="2") as caught_one:
                body()
            return caught_one.value.__notes__

        assert "1 of 3 task runs succeeded, and min_success asks for 2" in around()

    def test_too_few_that_nobody_looks_at(self) -> None:
        with pytest.raises(FlowRunFailed):
            in_flow(lambda: odd.map([1, 2, 4], min_success=2).wait())

    def test_gathered_by_a_task(self) -> None:
        @task
        def summarise(found: Any) -> Any:
            return type(found).__name__, list(found), [str(error) for error in found.failures]

        def body() -> Any:
            return summarise(odd.map([1, 2, 3], min_success=0.6))

        assert in_flow(body) == ("Successes", [1, 3], ["2"])

    def test_too_few_for_a_task(self) -> None:
        def body() -> Any:
            return give(odd.map([1, 2, 4], min_success=2))

        assert in_flow(caught, body).startswith("UpstreamFailed")

    def test_not_raised(self) -> None:
        def body() -> list[str]:
            found = odd.map([1, 2], min_success=1).result(raise_on_failure=False)
            return [type(each).__name__ for each in found]

        assert in_flow(body) == ["int", "ValueError"]

    def test_awaited(self) -> None:
        @flow
        async def body() -> Any:
            return (await odd.map([1, 2, 3], min_success=2)).failures

        assert [str(error) for error in asyncio.run(body())] == ["2"]

    def test_returned(self) -> None:
        assert in_flow(lambda: odd.map([1, 2, 3], min_success=2)) == [1, 3]

    def test_nothing_to_map(self) -> None:
        assert in_flow(lambda: odd.map([], min_success=0.5).result()) == []

    def test_a_slice_is_an_ordinary_list(self) -> None:
        def body() -> Any:
            return odd.map([1, 2], min_success=1)[:2].result()

        assert in_flow(caught, body) == "ValueError: 2"

    def test_all_may_fail(self) -> None:
        assert in_flow(lambda: odd.map([2, 4], min_success=0).result()) == []

    def test_a_parameter_of_that_name_wins(self) -> None:
        own: Any = task(lambda min_success: min_success)
        assert in_flow(lambda: own.map(min_success=[1, 2]).result()) == [1, 2]

    @pytest.mark.parametrize(
        ("least", "message"),
        [
            (4, r"task 'odd': min_success=4: there are 3 task runs only"),
            (1.5, r"task 'odd': min_success=1.5: must be a number such as 3, or a share"),
            (True, r"min_success=True"),
        ],
    )
    def test_mistakes(self, least: Any, message: str) -> None:
        def body() -> None:
            with pytest.raises(InvalidOption, match=message):
                odd.map([1, 2, 3], min_success=least)

        in_flow(body)

    def test_needs_parameters_by_name(self) -> None:
        def body() -> None:
            with pytest.raises(InvalidOption, match="needs a function without"):
                ignore(describe.map([1, 2], min_success=1))

        in_flow(body)

    def test_beside_allow_failure(self) -> None:
        def body() -> Any:
            return describe(allow_failure(odd.map([2], min_success=0)))

        assert in_flow(body)


@task
def odd(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(x)
    return x


class TestSetupAndTeardown:
    def test_a_teardown_runs_after_a_failure(self, tmp_path: Any) -> None:
        @task(setup=True)
        def make() -> str:
            return "a cluster"

        @task(teardown=True)
        def delete(name: str) -> None:
            (tmp_path / "deleted").write_text(name)

        @flow
        def body() -> None:
            cluster = make.submit()
            work = fail.submit(cluster)
            ignore(delete.submit(cluster, wait_for=[work]))

        with pytest.raises(FlowRunFailed, match="fail"):
            body()
        assert (tmp_path / "deleted").read_text() == "a cluster"

    def test_its_own_failure_does_not_matter(self) -> None:
        broken = fail.with_options(teardown=True)

        def body() -> int:
            ignore(broken.submit())
            return int(give(1))

        assert in_flow(body) == 1

    def test_it_runs_also_when_the_flow_raises(self, tmp_path: Any) -> None:
        @task(teardown=True)
        def delete(name: str) -> None:
            (tmp_path / "deleted").write_text(name)

        def body() -> None:
            ignore(delete.submit(give.submit("a cluster", return_state=True)))
            raise KeyError("mine")

        assert caught(in_flow, body).startswith("KeyError")
        assert (tmp_path / "deleted").read_text() == "a cluster"
