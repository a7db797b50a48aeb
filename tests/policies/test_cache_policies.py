"""What the policies make of a call: which ones are hits, and which are misses."""

from __future__ import annotations

import pytest

from policies.cached import CACHED, COMPLETED, RAN, Colour, hits, states
from raysched import (
    DEFAULT,
    FILES,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    StateType,
    flow,
    get_run,
    once_per_worker,
    task,
    unmapped,
)


@pytest.mark.usefixtures("here")
class TestPolicies:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (1, 1),
            ("a", "a"),
            ({"x", "yy", "zzz"}, {"zzz", "yy", "x"}),
            ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
            ([1, [2]], [1, [2]]),
            (Colour("red"), Colour("red")),
            (len, len),
        ],
    )
    def test_equal_inputs_are_a_hit(self, first: object, second: object) -> None:
        assert hits(INPUTS, (first,), (second,)) == [False, True]

    @pytest.mark.parametrize(
        ("first", "second"),
        [(1, 2), (1, 1.0), (1, True), ([1], (1,)), (Colour("red"), Colour("blue")), ("1", 1)],
    )
    def test_other_inputs_are_a_miss(self, first: object, second: object) -> None:
        assert hits(INPUTS, (first,), (second,)) == [False, False]

    def test_calls_maps_and_defaults_have_one_key(self) -> None:
        @task(cache_policy=INPUTS)
        def f(x: int, y: int = 2, **rest: int) -> int:
            return x + y

        @flow
        def all_ways() -> list[StateType]:
            first = f.submit(1)
            assert states(first) == [COMPLETED]
            return states(f.submit(x=1), f.submit(1, y=2), *f.map([1]), *f.map(x=[1], y=[2]))

        assert all_ways() == [CACHED] * 4

        @flow
        def with_more() -> list[StateType]:
            assert states(f.submit(1, z=3)) == [COMPLETED]
            return states(*f.map([1], z=3), *f.map([1], z=[3]))

        assert with_more() == [CACHED] * 2

    def test_results_of_tasks_and_values_have_one_key(self) -> None:
        @task
        def one() -> int:
            return 1

        @task(cache_policy=INPUTS)
        def f(x: int) -> int:
            return x

        @flow
        def both() -> list[StateType]:
            f.submit(1).wait()
            return states(f.submit(one.submit()))

        assert both() == [CACHED]

    def test_futures_inside_arguments_count_by_their_content(self) -> None:
        @task
        def give(x: int) -> int:
            return x

        @task(cache_policy=INPUTS)
        def f(data: dict[str, list[int]]) -> int:
            return sum(data["numbers"])

        @flow
        def run(x: int) -> StateType:
            return states(f.submit({"numbers": [1, give.submit(x)]}))[0]

        assert [run(2), run(2), run(3)] == [COMPLETED, CACHED, COMPLETED]

    def test_an_argument_that_is_left_out(self) -> None:
        @task(cache_policy=INPUTS - "loud")
        def f(x: int, loud: bool) -> int:
            return x

        @flow
        def run(x: int, *, loud: bool) -> StateType:
            return states(f.submit(x, loud))[0]

        runs = run(1, loud=True), run(1, loud=False), run(2, loud=False)
        assert runs == (COMPLETED, CACHED, COMPLETED)

    def test_two_tasks_never_share_a_result(self) -> None:
        def twice(x: int) -> int:
            return 2 * x

        def thrice(x: int) -> int:
            return 3 * x

        tasks = [task(cache_policy=INPUTS)(each) for each in (twice, thrice)]

        @flow
        def both() -> list[int]:
            return [each(5) for each in tasks]

        assert both() == both() == [10, 15]

    def test_run_id_and_default_share_within_a_run_only(self) -> None:
        def f(x: int) -> int:
            return x

        cached = task(cache_policy=DEFAULT)(f)
        kept = task(persist_result=True)(f)
        plain = task(f)

        @flow
        def twice(which: str) -> list[StateType]:
            used = {"cached": cached, "kept": kept, "plain": plain}[which]
            first = used.submit(1)
            first.wait()
            return states(first, used.submit(1))

        for which in ("cached", "kept"):
            assert [twice(which), twice(which)] == [[COMPLETED, CACHED]] * 2
        assert twice("plain") == [COMPLETED, COMPLETED]

    def test_a_flow_that_keeps_results_caches_them_as_in_prefect(self) -> None:
        @task
        def f(x: int) -> int:
            return x

        @task(cache_policy=NO_CACHE)
        def g(x: int) -> int:
            return x

        @flow(persist_result=True)
        def run() -> list[StateType]:
            f.submit(1).wait()
            g.submit(1).wait()
            return states(f.submit(1), g.submit(1))

        assert run() == [CACHED, COMPLETED]

    def test_flow_parameters(self) -> None:
        @task(cache_policy=FLOW_PARAMETERS)
        def f(x: int) -> int:
            return x

        @flow
        def run(day: str, x: int) -> int:
            return f(x)

        @flow
        def without() -> list[int]:
            return [f(1), f(2)]

        assert [run("mon", 1), run("mon", 1), run("tue", 2)] == [1, 1, 2]
        # As in Prefect, nothing to go by is no key.
        assert without() == [1, 2]

    def test_without_arguments_inputs_are_no_key(self) -> None:
        assert hits(INPUTS, (), ()) == [False, False]

        @task(cache_policy=INPUTS)
        def nothing() -> int:
            RAN.append(1)
            return len(RAN)

        @flow
        def run() -> list[int]:
            return [nothing(), nothing()]

        assert run() == [1, 2]
        assert "no arguments" in get_run("last").logs()[0].message

    def test_the_source_of_helpers_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @task(cache_policy=TASK_SOURCE)
        def f() -> int:
            return helper()

        @flow
        def run() -> int:
            return f()

        assert (run(), run()) == (1, 1)
        monkeypatch.setitem(globals(), "helper", lambda: 2)
        assert (run(), run()) == (2, 2)

    def test_no_cache(self) -> None:
        assert hits(NO_CACHE, (1,), (1,)) == [False, False]
        assert hits(NONE + INPUTS, (1,), (1,)) == [False, True]

    def test_the_algebra(self) -> None:
        assert repr(DEFAULT) == "INPUTS + TASK_SOURCE + RUN_ID"
        assert repr(INPUTS - "b" - "a" + FILES) == "INPUTS - 'a' - 'b' + FILES"
        assert INPUTS + RUN_ID == RUN_ID + INPUTS + NO_CACHE
        assert RUN_ID - "a" == RUN_ID
        assert INPUTS - "a" + FILES != (INPUTS + FILES) - "a"

    def test_an_object_of_the_worker_counts_by_how_it_is_made(self) -> None:
        @task(cache_policy=INPUTS)
        def f(model: Colour, x: int) -> str:
            return model.name

        @flow
        def run(name: str) -> list[StateType]:
            model = once_per_worker(Colour, name)
            return states(f.submit(model, 1), *f.map(unmapped(model), [1]))

        assert run("red") == [COMPLETED, CACHED]
        assert run("red") == [CACHED, CACHED]
        assert run("blue") == [COMPLETED, CACHED]


def helper() -> int:
    return 1
