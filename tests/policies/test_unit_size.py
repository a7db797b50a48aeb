"""How many task runs a unit carries."""

from hypothesis import given
from hypothesis import strategies as st

from raysched.policies.units import (
    CALL_SECONDS,
    GROWTH,
    MAX_BYTES,
    ROUNDS,
    TARGET_SECONDS,
    UNITS_A_SECOND,
    WORTH_SECONDS,
    lease_seconds,
    target_seconds,
    unit_size,
)

SIZES = st.integers(1, 10_000)


def size(**known: float) -> int:
    """Return the size with everything else generous."""
    usual = {
        "largest": 1000,
        "queued": 10**6,
        "slots": 2,
        "mean_seconds": 1e-6,
        "last": 1000,
        "payload_bytes": 10,
    }
    return unit_size(**{**usual, **known})  # type: ignore[arg-type]


class TestUnitSize:
    def test_an_unknown_task_runs_alone(self) -> None:
        assert size(mean_seconds=0) == 1

    def test_aims_at_the_target(self) -> None:
        assert size(mean_seconds=TARGET_SECONDS / 20) == 20

    def test_a_long_task_runs_alone(self) -> None:
        assert size(mean_seconds=10) == 1

    def test_grows_from_unit_to_unit(self) -> None:
        assert [size(last=last) for last in (1, 4, 16)] == [GROWTH, 4 * GROWTH, 16 * GROWTH]

    def test_gets_smaller_toward_the_end(self) -> None:
        assert size(queued=80, slots=2, mean_seconds=0.001) == 80 // (2 * ROUNDS)
        assert size(queued=3, slots=2, mean_seconds=0.01) == 1

    def test_but_not_below_what_is_worth_a_call(self) -> None:
        assert size(queued=10, slots=2, mean_seconds=0.001) == WORTH_SECONDS / 0.001
        assert size(queued=3, slots=2, mean_seconds=0.001) == 2

    def test_but_not_below_what_the_calls_cost(self) -> None:
        # No-ops: 80 of them are done before the driver has issued a second call.
        assert size(queued=80, slots=2, mean_seconds=1e-6) >= 80
        # Eight rounds of calls would take the driver longer than the slots need for the rest.
        assert size(queued=4000, slots=1000, mean_seconds=0.1) == 1000 * CALL_SECONDS / 0.1

    def test_is_larger_for_many_slots(self) -> None:
        assert size(slots=1000, mean_seconds=0.1) == 10
        assert size(slots=10_000, mean_seconds=1) == 10

    def test_carries_few_large_arguments(self) -> None:
        assert size(payload_bytes=MAX_BYTES // 3) == 3
        assert size(payload_bytes=10 * MAX_BYTES) == 1

    @given(
        largest=SIZES,
        queued=SIZES,
        slots=st.integers(1, 1000),
        mean_seconds=st.floats(0, 1000),
        last=st.integers(0, 1000),
        payload_bytes=st.integers(0, 10 * MAX_BYTES),
    )
    def test_is_within_its_limits(self, **known: float) -> None:
        assert 1 <= size(**known) <= known["largest"]


class TestTarget:
    @given(st.integers(1, 100))
    def test_few_slots_get_the_usual_target(self, slots: int) -> None:
        assert target_seconds(slots) == TARGET_SECONDS

    @given(st.integers(1, 100_000))
    def test_full_slots_never_empty_more_units_than_a_driver_issues(self, slots: int) -> None:
        assert target_seconds(slots) >= slots / UNITS_A_SECOND

    @given(st.integers(1, 100_000))
    def test_a_unit_of_the_usual_length_is_never_handed_back(self, slots: int) -> None:
        assert target_seconds(slots) < lease_seconds(slots)

    @given(st.integers(1, 100_000), st.floats(1e-7, 1000), st.integers(1, 10**7))
    def test_one_unit_more_than_an_even_share_is_cheaper_than_calls(
        self, slots: int, mean_seconds: float, queued: int
    ) -> None:
        wanted = size(slots=slots, mean_seconds=mean_seconds, queued=queued, last=10**6)
        if wanted > -(-queued // slots):
            assert wanted * mean_seconds <= slots * CALL_SECONDS * (1 + 1e-9)
