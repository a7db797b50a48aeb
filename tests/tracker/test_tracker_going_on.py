"""Stories of runs that go on: values that have to be made again, and what must not run twice."""

from collections.abc import Callable

from raysched.graph.group import Group
from raysched.model.options import RetryOptions
from raysched.model.records import Kept
from raysched.model.states import StateType
from tracker.earlier import answer
from tracker.graphs import add, one, spec
from tracker.ledger import Ledger


def unkept(*names: str) -> Callable[[Group], None]:
    """Return what has these tasks answered, with values that were not kept."""

    def answered(group: Group) -> None:
        done = group.spec.name in names
        answer(group, [done] * group.size, [Kept.NOTHING] * group.size, int(done))

    return answered


def test_who_needs_several_values_waits_for_all_of_them() -> None:
    ledger = Ledger(slots=3)
    first, second = add(ledger.builder, spec("a")), add(ledger.builder, spec("b"))
    child = add(ledger.builder, spec("c"), one(first), one(second))
    ledger.plan(answer=unkept("a", "b"))
    ledger.ended(ledger.unit_of(first), StateType.COMPLETED)
    assert not ledger.sent(child[0])
    ledger.ended(ledger.unit_of(second), StateType.COMPLETED)
    assert ledger.sent(child[0]) == [0]
    # Once in vain, before it was known that the values have to be made.
    assert ledger.dispatches[child[0], 0] == 2


def test_a_value_is_made_again_after_what_sets_up_for_it() -> None:
    ledger = Ledger(slots=3)
    ready = add(ledger.builder, spec("s", setup=True))
    value = add(ledger.builder, spec("a"), wait_for=[one(ready)])
    child = add(ledger.builder, spec("c"), one(value))
    ledger.plan(answer=unkept("a"))
    assert not ledger.sent(value[0])
    ledger.ended(ledger.unit_of(ready), StateType.COMPLETED)
    ledger.run_all()
    assert ledger.state(child) is StateType.COMPLETED
    assert ledger.dispatches[value[0], 0] == 1


def test_without_its_setup_a_value_cannot_be_made_again() -> None:
    ledger = Ledger(slots=3)
    ready = add(ledger.builder, spec("s", setup=True))
    value = add(ledger.builder, spec("a"), wait_for=[one(ready)])
    child = add(ledger.builder, spec("c"), one(value))
    ledger.plan(answer=unkept("a"))
    ledger.ended(ledger.unit_of(ready), StateType.FAILED)
    assert ledger.states(value) == [StateType.COMPLETED]
    assert ledger.state(child) is StateType.CRASHED
    assert "its setup failed" in child[0].errors[0].message


def test_what_must_not_run_twice_is_not_tried_after_a_crash() -> None:
    ledger = Ledger()
    task = add(
        ledger.builder, spec("a", RetryOptions(retries=3, crash_retries=3), idempotent=False)
    )
    ledger.plan()
    ledger.lost(ledger.unit_of(task))
    assert ledger.state(task) is StateType.CRASHED
    assert not ledger.units
