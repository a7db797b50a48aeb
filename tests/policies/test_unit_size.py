"""How many task runs a unit carries."""

from hypothesis import given
from hypothesis import strategies as st

from raysched.policies.units import GROWTH, MAX_BYTES, ROUNDS, TARGET_SECONDS, unit_size

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
        assert size(queued=80, slots=2) == 80 // (2 * ROUNDS)
        assert size(queued=3, slots=2) == 1

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
