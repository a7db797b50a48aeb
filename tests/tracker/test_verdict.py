"""What the task runs of a flow run say about it."""

from raysched.model.states import ROOT_FAILURES, StateType
from raysched.tracker import verdict
from raysched.tracker.messages import FailuresHandled
from tracker.graphs import add, add_map, one, spec
from tracker.ledger import Ledger


def test_counts_every_task_run_by_its_state() -> None:
    ledger = Ledger(slots=2)
    (part,) = add_map(ledger.builder, spec(), range(4))
    late = add(ledger.builder, spec("late"), one(part, 1))
    ledger.plan()
    for unit, state in enumerate([StateType.COMPLETED, StateType.FAILED, StateType.SKIPPED]):
        ledger.ended(unit, state)
    assert verdict(ledger.run).counts == {
        StateType.COMPLETED: 1,
        StateType.FAILED: 1,
        StateType.SKIPPED: 1,
        StateType.PENDING: 1,
        StateType.UPSTREAM_FAILED: 1,
    }
    assert ledger.state(late) == StateType.UPSTREAM_FAILED


def test_names_roots_and_not_what_followed() -> None:
    ledger = Ledger()
    root = add(ledger.builder, spec("root"))
    add(ledger.builder, spec("after"), one(add(ledger.builder, spec("between"), one(root))))
    ledger.plan()
    ledger.run_all(StateType.FAILED)
    found = verdict(ledger.run)
    assert found.unhandled == ((root[0], 0),)
    assert found.handled == 0


def test_every_kind_of_root_counts_until_it_is_handled() -> None:
    for state in ROOT_FAILURES:
        ledger = Ledger()
        group, _ = add(ledger.builder, spec())
        ledger.plan()
        while ledger.wake_for_units():
            ledger.run_all(state)
        assert verdict(ledger.run).unhandled == ((group, 0),)
        ledger.tell(FailuresHandled(group, [0]))
        found = verdict(ledger.run)
        assert (found.unhandled, found.handled) == ((), 1)


def test_what_was_skipped_is_no_failure() -> None:
    ledger = Ledger()
    first = add(ledger.builder, spec("first"))
    add(ledger.builder, spec("second"), one(first))
    ledger.plan()
    ledger.ended(0, StateType.SKIPPED)
    assert verdict(ledger.run).unhandled == ()


def test_failures_of_teardowns_are_told_apart() -> None:
    ledger = Ledger(slots=2)
    group, _ = add(ledger.builder, spec(teardown=True))
    add(ledger.builder, spec("fine", teardown=True))
    ledger.plan()
    ledger.ended(0, StateType.FAILED)
    ledger.run_all()
    found = verdict(ledger.run)
    assert (found.unhandled, found.handled, found.teardowns) == ((), 0, ((group, 0),))
