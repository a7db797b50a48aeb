"""How many units may be on their way at once."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from raysched.policies.limits import MAX_UNITS, WINDOW_SECONDS, window

slots = st.integers(1, 100_000)
seconds = st.floats(0, 1e9)


@given(slots, seconds)
def test_every_worker_has_its_next_unit_at_hand(slots: int, seconds: float) -> None:
    assert window(slots, seconds) >= 2 * slots


@given(slots, seconds)
def test_the_driver_never_pays_for_more_than_its_limit(slots: int, seconds: float) -> None:
    assert window(slots, seconds) <= max(MAX_UNITS, 4 * slots)


@given(slots, st.floats(1e-9, 1e6), st.floats(1, 1e6))
def test_longer_units_need_no_wider_window(slots: int, seconds: float, factor: float) -> None:
    assert window(slots, seconds * factor) <= window(slots, seconds)


@given(slots)
def test_unknown_durations_get_some_units_a_slot(slots: int) -> None:
    assert window(slots, 0) == 2 * slots


@given(slots, seconds)
def test_units_that_grow_wait_for_those_before(slots: int, seconds: float) -> None:
    assert window(slots, seconds, growing=True) == 2 * slots


@pytest.mark.parametrize(
    ("slots", "seconds", "expected"),
    [
        (2, 60.0, 4),
        (2, WINDOW_SECONDS, 4),
        (2, WINDOW_SECONDS / 10, 22),
        (2, 1e-9, MAX_UNITS),
        (1000, 1e-9, 4000),
        (2, 5e-324, MAX_UNITS),
    ],
)
def test_what_is_handed_over_ahead_is_a_time_not_a_number(
    slots: int, seconds: float, expected: int
) -> None:
    assert window(slots, seconds) == expected
