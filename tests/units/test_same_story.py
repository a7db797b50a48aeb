"""What a flow means does not depend on how it is cut: random flows, run in two ways, compared."""

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings

from raysched import wiring
from raysched.settings import settings
from units.random_programs import DEEDS, TASKS, Step, Story, play, timed

KINDS = (
    *("loop", "chain", "map", "pairs"),
    *("each", "each", "each", "submit each", "each but the first", "line"),
)

PLAIN = (1, "off")
"""A unit for each task run, and no fusion."""

OTHERS = ((0, "on"), (1000, "on"), (3, "on"), (1, "on"), (1000, "off"))
"""Adaptive units, as large as can be, small ones that are cut often; fusion and size alone."""


@st.composite
def steps(draw: st.DrawFn) -> tuple[Step, ...]:
    """Make up a flow. At most one task run of it takes too long."""
    late = draw(st.integers(0, 40))
    made: list[Step] = []
    for number in range(draw(st.integers(1, 7))):
        some = st.just(number - 1) | st.integers(0, max(0, number - 1))
        earlier = st.lists(some, min_size=min(1, number), max_size=min(2, number))
        position = draw(st.integers(0, len(TASKS) - 1))
        size = draw(st.integers(1, 3) | st.integers(1, 24))
        deeds = draw(st.dictionaries(st.integers(0, size - 1), st.sampled_from(DEEDS), max_size=3))
        if number == late:
            position, deeds[draw(st.integers(0, size - 1))] = TASKS.index(timed), "too late"
        step = Step(
            draw(st.sampled_from(KINDS)),
            position,
            size,
            tuple(deeds.items()),
            tuple(draw(earlier)),
            tuple(draw(earlier)) if draw(st.integers(0, 7)) == 0 else (),
            draw(st.booleans()),
            draw(st.integers(0, 2)) == 0,
            draw(st.sampled_from(("", "", "", "", "", "wait", "state", "result", "failures"))),
        )
        made.append(step)
    return tuple(made)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Run flows inline, in a database of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSCHED_BACKEND", "inline")
        patch.setenv("RAYSCHED_HOME", str(tmp_path_factory.mktemp("home")))
        yield patch
        wiring.disconnect()
    settings.cache_clear()


def story_of(way: tuple[int, str], patch: pytest.MonkeyPatch, *given: Any, **more: Any) -> Story:
    """Run a program in one way."""
    patch.setenv("RAYSCHED_UNIT_SIZE", str(way[0]))
    patch.setenv("RAYSCHED_FUSION", way[1])
    settings.cache_clear()
    wiring.disconnect()
    return play(*given, **more)


@hypothesis_settings(
    max_examples=40,
    deadline=None,
    # To shrink a flow takes minutes: run what was found once more by hand, and then cut it down.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(steps(), st.sampled_from(OTHERS), st.integers(0, 9))
def test_random_flows(
    home: pytest.MonkeyPatch, program: tuple[Step, ...], way: tuple[int, str], chance: int
) -> None:
    plain, optimised = (story_of(each, home, program, raising=not chance) for each in (PLAIN, way))
    assert optimised == plain
