"""What each attempt asks Ray for."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from raysched.model.options import Escalation, RetryOptions, TaskSpec
from raysched.policies.resources import ray_options

GIB = 2**30

memories = st.integers(1, 64 * GIB)
factors = st.floats(1.01, 10)
kills = st.integers(0, 40)
attempts = st.integers(1, 100)
options = st.fixed_dictionaries(
    {"num_cpus": st.integers(1, 4), "memory": memories}, optional={"num_gpus": st.just(1)}
)
rows = st.lists(options, min_size=1, max_size=5).map(tuple)


def task(ray: Any = None, by_attempt: Any = (), on_oom: Escalation | None = None) -> TaskSpec:
    ray = ray if ray is not None else by_attempt[0]
    retry = RetryOptions(on_oom=on_oom)
    return TaskSpec("task", fn=print, retry=retry, ray=ray, ray_by_attempt=by_attempt)


class TestWithoutEscalation:
    @given(options, attempts, kills)
    def test_are_the_same_for_all(self, ray: Any, attempt: int, killed: int) -> None:
        assert ray_options(task(ray), attempt, killed) == ray

    @given(rows, attempts, kills)
    def test_are_those_of_the_attempt_and_the_last_ones_repeat(
        self, by_attempt: Any, attempt: int, killed: int
    ) -> None:
        expected = [*by_attempt, *[by_attempt[-1]] * 100][attempt - 1]
        assert ray_options(task(by_attempt=by_attempt), attempt, killed) == expected


class TestEscalation:
    @given(memories, factors, memories)
    def test_begins_with_the_first_kill(self, memory: int, factor: float, up_to: int) -> None:
        ray = {"memory": memory}
        escalating = task(ray, on_oom=Escalation(factor, up_to))
        assert ray_options(escalating, 1, 0) == ray
        assert ray_options(escalating, 7, 0) == ray

    @given(memories, factors, memories, attempts, kills)
    def test_is_between_what_was_asked_for_and_the_limit(
        self, memory: int, factor: float, up_to: int, attempt: int, killed: int
    ) -> None:
        escalating = task({"memory": memory}, on_oom=Escalation(factor, up_to))
        asked = ray_options(escalating, attempt, killed)["memory"]
        assert isinstance(asked, int)
        assert memory <= asked <= max(memory, up_to)

    @given(memories, factors, memories, kills)
    def test_never_shrinks_with_another_kill(
        self, memory: int, factor: float, up_to: int, killed: int
    ) -> None:
        escalating = task({"memory": memory}, on_oom=Escalation(factor, up_to))
        before, after = (
            ray_options(escalating, number, number)["memory"] for number in (killed, killed + 1)
        )
        assert before <= after

    @given(memories, factors, st.integers(1, 5))
    def test_multiplies_with_each_kill_whatever_the_attempt(
        self, memory: int, factor: float, killed: int
    ) -> None:
        escalating = task({"memory": memory}, on_oom=Escalation(factor, 2**80))
        asked = ray_options(escalating, 9, killed)["memory"]
        assert asked == pytest.approx(memory * factor**killed, abs=1)

    @given(options, kills)
    def test_changes_nothing_else(self, ray: Any, killed: int) -> None:
        before = dict(ray)
        asked = ray_options(task(ray, on_oom=Escalation(2, 100 * GIB)), 1, killed)
        assert {**asked, "memory": 0} == {**before, "memory": 0}
        assert ray == before

    @given(rows, attempts, st.integers(1, 3))
    def test_multiplies_what_the_attempt_asks_for(
        self, by_attempt: Any, attempt: int, killed: int
    ) -> None:
        escalating = task(by_attempt=by_attempt, on_oom=Escalation(2, 2**80))
        plain = ray_options(task(by_attempt=by_attempt), attempt, killed)
        expected = {**plain, "memory": plain["memory"] * 2**killed}
        assert ray_options(escalating, attempt, killed) == expected
