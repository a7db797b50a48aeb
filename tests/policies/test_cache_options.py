"""Key functions, lifetimes, what has no key, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from policies.cached import CACHED, COMPLETED, RAN, states
from raysched import (
    INPUTS,
    InvalidOption,
    StateType,
    allow_failure,
    flow,
    get_run,
    task,
)
from raysched.settings import settings
from raysched.testing import FakeClock, inline
from raysched.wiring import Configuration, configure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("here")
class TestKeyFunctions:
    def test_are_given_the_task_run_and_live_parameters(self) -> None:
        seen: list[Any] = []

        def key(context: Any, parameters: dict[str, Any]) -> str:
            seen.append((context.task.name, context.task_run.key, dict(parameters)))
            assert context.parameters == parameters
            assert context.flow_parameters == {"x": 5}
            return f"of {sorted(parameters['numbers'])}"

        @task
        def give(x: int) -> int:
            return x

        @task(cache_key_fn=key)
        def f(numbers: list[int], more: int = 1) -> int:
            return sum(numbers) + more

        @flow
        def run(x: int) -> list[StateType]:
            first = f.submit([give.submit(x), 1])
            first.wait()
            return states(first, f.submit(give.map([1, x])))

        assert run(5) == [COMPLETED, CACHED]
        assert seen == [
            ("f", "f[0]", {"numbers": [5, 1], "more": 1}),
            ("f", "f[1]", {"numbers": [1, 5], "more": 1}),
        ]

    def test_none_means_no_caching_and_tasks_may_share(self) -> None:
        @task(cache_key_fn=lambda _, p: None if p["x"] < 0 else f"{p['x']}")
        def f(x: int) -> str:
            return "f"

        @task(cache_key_fn=lambda _, p: f"{p['x']}")
        def g(x: int) -> str:
            return "g"

        @flow
        def run() -> list[str]:
            assert states(f.submit(-1), f.submit(-1)) == [COMPLETED, COMPLETED]
            return [f(1), g(1), g(2)]

        assert run() == ["f", "f", "g"]

    def test_a_failing_one_fails_the_task_run(self) -> None:
        def broken(_: Any, parameters: dict[str, Any]) -> str:
            return str(parameters["y"])

        @task(cache_key_fn=broken)
        def f(x: int) -> int:
            RAN.append(x)
            return x

        @task(cache_key_fn=lambda _, p: p["x"])
        def g(x: int) -> int:
            RAN.append(x)
            return x

        @flow
        def run() -> None:
            with pytest.raises(KeyError, match="y"):
                f(1)
            with pytest.raises(TypeError, match="cache_key_fn of task 'g' returned int"):
                g(1)

        run()
        assert RAN == []


class TestLifetimes:
    def test_a_result_expires(self) -> None:
        clock = FakeClock()

        @task(cache_policy=INPUTS, cache_expiration=timedelta(hours=2))
        def f(x: int) -> int:
            return x

        @task(retries=1, retry_delay_seconds=3600)
        def an_hour_later(tries: list[int] = []) -> None:  # noqa: B006 - kept on purpose
            tries.append(1)
            if len(tries) % 2:
                raise OSError("not yet")

        @flow
        def run() -> list[StateType]:
            found = []
            for _ in range(3):
                found += states(f.submit(1))
                an_hour_later()
            return found

        with inline(clock):
            assert run() == [COMPLETED, CACHED, COMPLETED]
            notes = [row.message for row in get_run("last").logs()]
        assert any("cache miss: the result of f[0]" in text and "expired" in text for text in notes)

    @pytest.mark.usefixtures("here")
    def test_refresh_makes_it_anew(self) -> None:
        @task(cache_policy=INPUTS)
        def f(x: int) -> int:
            RAN.append(x)
            return len(RAN)

        fresh = f.with_options(refresh_cache=True)

        @flow
        def run() -> list[int]:
            return [f(1), fresh(1), f(1)]

        assert run() == [1, 2, 2]

    def test_the_setting_refreshes_what_does_not_say_otherwise(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
        monkeypatch.setenv("RAYSCHED_REFRESH_CACHE", "true")
        settings.cache_clear()
        before = configure(Configuration("inline"))

        @task(cache_policy=INPUTS)
        def f(x: int) -> int:
            return x

        @flow
        def run() -> list[StateType]:
            f.submit(1).wait()
            return states(f.submit(1), f.with_options(refresh_cache=False).submit(1))

        assert run() == [COMPLETED, CACHED]
        configure(before)
        settings.cache_clear()


@pytest.mark.usefixtures("here")
class TestWhatHasNoKey:
    def test_runs_uncached_and_says_so(self) -> None:
        @task(persist_result=False)
        def not_kept() -> bytes:
            return b"x" * 100_000

        @task(cache_policy=INPUTS)
        def f(data: bytes) -> int:
            RAN.append(1)
            return len(data)

        @flow
        def run() -> int:
            return f.submit(not_kept.submit()).result()

        assert run() == run() == 100_000
        assert len(RAN) == 2
        (told,) = [row for row in get_run("last").logs() if "not cached" in row.message]
        assert told.message == "not cached: the result of not_kept[0], which it needs, is not kept"
        assert told.key == "f[0]"

    def test_a_failure_that_is_handed_over_is_no_content(self) -> None:
        @task
        def broken() -> int:
            raise ValueError("no")

        @task(cache_policy=INPUTS)
        def f(x: object) -> str:
            return type(x).__name__

        @flow
        def run() -> StateType:
            return states(f.submit(allow_failure(broken.submit())))[0]

        assert [run(), run()] == [COMPLETED, COMPLETED]

    def test_failures_are_not_cached(self) -> None:
        @task(cache_policy=INPUTS)
        def f(x: int) -> int:
            RAN.append(x)
            if len(RAN) == 1:
                raise ValueError("no")
            return x

        @flow
        def run() -> int:
            with pytest.raises(ValueError, match="no"):
                f(1)
            return f(1)

        assert run() == 1

    def test_those_who_wait_for_one_that_fails_try_themselves(self) -> None:
        @task(cache_policy=INPUTS)
        def f(x: int) -> int:
            RAN.append(x)
            if len(RAN) < 3:
                raise ValueError("no")
            return x

        @flow
        def run() -> list[StateType]:
            return states(*f.map([7] * 5))

        assert sorted(run()) == sorted(
            [StateType.FAILED, StateType.FAILED, COMPLETED, CACHED, CACHED]
        )
        assert len(RAN) == 3


class TestDeclarations:
    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"cache_policy": "INPUTS"}, "must be a policy"),
            ({"cache_policy": INPUTS - "pth"}, r"'pth' is no parameter \(did you mean 'path'\?\)"),
            ({"cache_policy": INPUTS, "persist_result": False}, "leave out persist_result=False"),
            (
                {"cache_key_fn": lambda _, __: "", "persist_result": False},
                "a result that is not kept cannot be cached",
            ),
            ({"cache_policy": INPUTS, "setup": True}, "a setup task"),
            ({"cache_policy": INPUTS, "teardown": True}, "a teardown task"),
            ({"cache_key_fn": lambda: ""}, r"is called as \(context, parameters\)"),
            ({"cache_key_fn": "key"}, "must be a function"),
            ({"cache_expiration": 3600}, "must be a timedelta"),
            ({"cache_expiration": timedelta()}, "must be a timedelta, more than 0"),
            ({"refresh_cache": "yes"}, "must be True or False"),
        ],
    )
    def test_what_cannot_be_is_refused(self, options: dict[str, Any], problem: str) -> None:
        def parse(path: str) -> str:
            return path

        with pytest.raises(InvalidOption, match=problem):
            task(**options)(parse)

    @pytest.mark.parametrize("argument", ["two words", "", 3, ["a"]])
    def test_what_is_no_argument_is_refused(self, argument: Any) -> None:
        with pytest.raises(InvalidOption, match="subtract the name of one argument"):
            INPUTS - argument

    def test_a_key_function_comes_before_a_policy(self, caplog: pytest.LogCaptureFixture) -> None:
        @task(cache_policy=INPUTS, cache_key_fn=lambda _, __: "k")
        def f(x: int) -> int:
            return x

        assert f.spec.cache is not None
        assert not f.spec.cache.parts
        assert "cache_key_fn is used" in caplog.text
