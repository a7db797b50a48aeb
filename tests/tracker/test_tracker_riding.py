"""Task runs that ride in the unit of what they need. The ledger checks the invariants."""

import pytest

from raysched.model.states import StateType
from raysched.model.values import LargeValue
from raysched.tracker.messages import CancelRequested, UnitEnded
from tracker.evidence import STOPPED
from tracker.graphs import add_map, spec
from tracker.ledger import Ledger

COMPLETED, CANCELLED = StateType.COMPLETED, StateType.CANCELLED


def two_maps(size: int = 2) -> Ledger:
    """A run with a map, and one over it that rides, planned; all in one unit."""
    ledger = Ledger(slots=1)
    ledger.run.unit_size = size
    (part,) = add_map(ledger.builder, spec("fetch"), range(size))
    add_map(ledger.builder, spec("parse", hooks=True), part)
    ledger.plan()
    return ledger


class TestCancelling:
    @pytest.mark.parametrize("began", [False, True])
    def test_what_has_begun_counts(self, began: bool) -> None:
        """The worker tells of both in one report: only that knows how far it came."""
        ledger = two_maps(1)
        fetch, parse = ledger.groups
        ledger.started(0, [0])
        ledger.tell(CancelRequested("Ctrl-C"))
        assert parse.states[0] == StateType.SCHEDULED
        ledger.tell(ledger.report(0, [COMPLETED if began else CANCELLED, CANCELLED]))
        assert (fetch.states[0], parse.states[0]) == (COMPLETED if began else CANCELLED, CANCELLED)
        assert parse.attempts[0] == (1 if began else 0)
        assert [kind for *_, kind in ledger.hooks] == ["on_cancellation"]

    def test_of_a_unit_that_is_lost_ends_all(self) -> None:
        ledger = two_maps()
        ledger.started(0, [0])
        ledger.tell(CancelRequested("Ctrl-C", force=True))
        ledger.lost(0, STOPPED)
        for group in ledger.groups:
            assert ledger.states((group, range(2))) == [CANCELLED, CANCELLED]
        assert list(ledger.groups[1].attempts) == [0, 0]


@pytest.mark.parametrize(("seconds", "ride"), [(0.01, 1), (1.0, 0)])
def test_large_values_wait_for_nothing_long(seconds: float, ride: int) -> None:
    """They are told when their unit ends: once it is known to take long, nothing rides."""
    ledger = Ledger(slots=1)
    (part,) = add_map(ledger.builder, spec("fetch"), range(100))
    add_map(ledger.builder, spec("parse"), part)
    ledger.plan()
    began, ledger.now = ledger.now, ledger.now + int(seconds * 1e9)
    values: list[bytes | LargeValue | None] = [LargeValue(object(), 0, 100_000), b"value"]
    states = bytes([COMPLETED, COMPLETED])
    times = [ledger.now] * 2
    ledger.tell(UnitEnded(0, range(2), states, [began] * 2, times, values, large=True))
    assert len(ledger.units[max(ledger.units)].riders) == ride
