"""Maps of which enough have to succeed. The ledger checks the invariants throughout."""

import pytest

from raysched.model.states import StateType
from raysched.tracker import Run, verdict
from tracker.graphs import add, add_map, every, one, spec
from tracker.invariants import nothing_is_left
from tracker.ledger import Ledger

COMPLETED, FAILED, SKIPPED = StateType.COMPLETED, StateType.FAILED, StateType.SKIPPED
SCHEDULED, PENDING = StateType.SCHEDULED, StateType.PENDING
UPSTREAM_FAILED = StateType.UPSTREAM_FAILED


def loads(needed: float, *states: StateType) -> Ledger:
    """A run with a map of loads, and a map of parses over it of which enough have to succeed.

    The loads end like this. A total needs all parses, and a single task run the first of them.
    """
    ledger = Ledger(Run("run"), slots=len(states))
    (part,) = add_map(ledger.builder, spec("load", batch=False), range(len(states)))
    (parses,) = add_map(ledger.builder, spec("parse", batch=False), part, min_success=needed)
    add(ledger.builder, spec("total", batch=False), every(parses))
    add(ledger.builder, spec("first", batch=False), one(parses))
    ledger.plan()
    for number, state in enumerate(states):
        ledger.ended(ledger.unit_of((part[0], [number])), state)
    return ledger


def ends(ledger: Ledger) -> dict[str, list[StateType]]:
    return {group.spec.name: ledger.states((group, range(group.size))) for group in ledger.groups}


class TestThatHold:
    def test_let_all_of_them_be_used_once_all_have_ended(self) -> None:
        ledger = loads(2, FAILED, COMPLETED, COMPLETED)
        assert ends(ledger)["total"] == [SCHEDULED]
        parse = ledger.groups[1]
        ledger.ended(ledger.unit_of((parse, [1])), COMPLETED)
        assert ends(ledger)["total"] == [SCHEDULED]
        ledger.ended(ledger.unit_of((parse, [2])), COMPLETED)
        assert ends(ledger)["total"] == [PENDING]

    def test_handle_the_failures_and_their_roots_in_the_map_before(self) -> None:
        ledger = loads(2, FAILED, COMPLETED, COMPLETED)
        ledger.run_all()
        load = ledger.groups[0]
        found = verdict(ledger.run)
        assert load.handled == {0}
        assert (found.unhandled, found.handled) == ((), 1)
        nothing_is_left(ledger)

    def test_handle_them_also_where_nobody_uses_the_map(self) -> None:
        ledger = Ledger(slots=2)
        (part,) = add_map(ledger.builder, spec("load", batch=False), range(2))
        add_map(ledger.builder, spec("parse", batch=False), part, min_success=1)
        ledger.plan()
        ledger.ended(0, FAILED)
        ledger.run_all()
        assert part[0].handled == {0}
        assert verdict(ledger.run).unhandled == ()

    def test_are_waited_for_as_a_whole_by_who_needs_a_part(self) -> None:
        ledger = Ledger(slots=3)
        ((group, indices),) = add_map(ledger.builder, spec(batch=False), range(3), min_success=2)
        some = add(ledger.builder, spec("some", batch=False), every((group, indices[:2])))
        ledger.plan()
        ledger.ended(0, FAILED)
        ledger.ended(1, COMPLETED)
        assert ledger.state(some) == SCHEDULED
        ledger.ended(2, COMPLETED)
        assert ledger.state(some) == PENDING

    def test_have_no_value_where_one_failed_all_the_same(self) -> None:
        ledger = loads(2, FAILED, COMPLETED, COMPLETED)
        ledger.run_all()
        assert ends(ledger)["first"] == [UPSTREAM_FAILED]
        assert ends(ledger)["total"] == [COMPLETED]

    @pytest.mark.parametrize(
        ("needed", "held"), [(0.5, True), (0.75, False), (2, True), (3, False)]
    )
    def test_are_those_with_as_many_successes(self, needed: float, held: bool) -> None:
        ledger = loads(needed, FAILED, COMPLETED, COMPLETED, SKIPPED)
        ledger.run_all()
        assert ends(ledger)["total"] == [COMPLETED if held else UPSTREAM_FAILED]


class TestThatDoNotHold:
    def test_fail_as_any_other_map(self) -> None:
        ledger = loads(3, FAILED, COMPLETED, FAILED)
        ledger.run_all()
        load, _, total, _ = ledger.groups
        assert ends(ledger)["total"] == [UPSTREAM_FAILED]
        assert set(total.roots[0]) == {(load, 0), (load, 2)}
        assert not load.handled
        assert verdict(ledger.run).unhandled == ((load, 0), (load, 2))
        nothing_is_left(ledger)
