"""Single members that are cancelled, and what a cancelled run spares. The ledger checks."""

import pytest

from raysched.model.options import RetryOptions
from raysched.model.states import StateType
from raysched.model.triggers import TriggerRule
from raysched.model.values import FailureClass
from raysched.tracker.messages import (
    AbortUnit,
    CancelRequested,
    CapacityKnown,
    MembersCancelled,
    UnitHandedBack,
)
from tracker.evidence import STOPPED, failure
from tracker.graphs import add, add_map, every, one, spec
from tracker.invariants import nothing_is_left
from tracker.ledger import Ledger
from tracker.stories import fail_with, ledger_of

COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
CANCELLED, RUNNING, PENDING = StateType.CANCELLED, StateType.RUNNING, StateType.PENDING
CANCELLING, TIMED_OUT = StateType.CANCELLING, StateType.TIMED_OUT
AWAITING_RETRY, UPSTREAM_FAILED = StateType.AWAITING_RETRY, StateType.UPSTREAM_FAILED
SCHEDULED = StateType.SCHEDULED


def unit_of_three(*, hooks: bool = False) -> Ledger:
    """A run with a map of three in one unit."""
    ledger = Ledger(slots=1)
    add_map(ledger.builder, spec(hooks=hooks), range(3))
    ledger.plan(unit_size=3)
    return ledger


class TestCancellingSome:
    def test_of_those_that_are_queued_ends_them_at_once(self) -> None:
        ledger = Ledger(slots=0)
        add_map(ledger.builder, spec(hooks=True), range(4))
        ledger.plan()
        (group,) = ledger.groups
        ledger.tell(MembersCancelled(group, [1, 2], "me@host"))
        assert ledger.states((group, range(4))) == [PENDING, CANCELLED, CANCELLED, PENDING]
        assert group.reasons == {1: "cancelled by me@host", 2: "cancelled by me@host"}
        assert group.errors[1].failure_class is FailureClass.CANCELLED
        assert sorted(ledger.hooks) == [
            (group, 1, "on_cancellation"),
            (group, 2, "on_cancellation"),
        ]
        assert not ledger.attempts
        ledger.slots = 1
        ledger.tell(CapacityKnown((), 1))
        ledger.run_all()
        assert ledger.states((group, range(4))) == [COMPLETED, CANCELLED, CANCELLED, COMPLETED]
        nothing_is_left(ledger)

    def test_of_those_that_wait_for_others_keeps_them_ended(self) -> None:
        ledger = Ledger()
        first = add(ledger.builder, spec("first"))
        second = add(ledger.builder, spec("second", batch=False), one(first))
        third = add(ledger.builder, spec("third", batch=False), one(second))
        ledger.plan()
        ledger.tell(MembersCancelled(second[0], [0], "me"))
        assert (ledger.state(second), ledger.state(third)) == (CANCELLED, UPSTREAM_FAILED)
        assert third[0].roots[0] == ((second[0], 0),)
        ledger.run_all()
        assert (ledger.state(first), ledger.state(second)) == (COMPLETED, CANCELLED)
        nothing_is_left(ledger)

    def test_of_one_that_runs_tells_its_unit_of_just_that_one(self) -> None:
        ledger = unit_of_three(hooks=True)
        (group,) = ledger.groups
        ledger.started(0)
        commands = ledger.tell(MembersCancelled(group, [1], "me"))
        assert [each for each in commands if isinstance(each, AbortUnit)] == [AbortUnit(0, [1])]
        assert ledger.states((group, range(3))) == [RUNNING, CANCELLING, RUNNING]
        ledger.ended(0, COMPLETED, CANCELLED, COMPLETED)
        assert ledger.states((group, range(3))) == [COMPLETED, CANCELLED, COMPLETED]
        assert group.errors[1].message == "task[1]: cancelled by me"
        (row,) = ledger.attempts
        assert (row.index, row.state, row.stop_reason) == (1, CANCELLED, "cancelled by me")
        assert ledger.hooks[group, 1, "on_cancellation"] == 1
        nothing_is_left(ledger)

    @pytest.mark.parametrize("told", [FAILED, TIMED_OUT, CRASHED])
    def test_of_one_that_runs_is_what_it_ends_with_however_it_ends(self, told: StateType) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(retries=3)))
        (group,) = ledger.groups
        ledger.started(0)
        ledger.tell(MembersCancelled(group, [0], "me"))
        fail_with(ledger, 0, failure(told))
        assert ledger.states((group, [0])) == [CANCELLED]
        nothing_is_left(ledger)

    def test_of_one_that_completes_first_changes_nothing(self) -> None:
        ledger = ledger_of(spec())
        (group,) = ledger.groups
        ledger.tell(MembersCancelled(group, [0], "me"))
        ledger.ended(0, COMPLETED)
        assert ledger.states((group, [0])) == [COMPLETED]
        nothing_is_left(ledger)

    @pytest.mark.parametrize("how", ["lost", "handed back"])
    def test_does_not_hurt_the_neighbours_when_the_worker_goes(self, how: str) -> None:
        ledger = unit_of_three()
        (group,) = ledger.groups
        ledger.started(0, [0])
        ledger.tell(MembersCancelled(group, [1], "me"))
        if how == "lost":
            ledger.lost(0)
        else:
            ledger.ended(0, COMPLETED)
            ledger.tell(UnitHandedBack(0, [1, 2]))
        assert ledger.states((group, [1])) == [CANCELLED]
        ledger.run_all()
        assert ledger.states((group, range(3))) == [COMPLETED, CANCELLED, COMPLETED]
        assert group.attempts[2] == 1
        nothing_is_left(ledger)

    def test_of_one_that_rides_is_told_its_unit_by_its_position(self) -> None:
        ledger = Ledger(slots=1)
        ledger.run.unit_size = 2
        (first,) = add_map(ledger.builder, spec("first"), range(2))
        (second,) = add_map(ledger.builder, spec("second"), first)
        ledger.plan()
        ledger.tell(MembersCancelled(second[0], [1], "me"))
        assert ledger.stopped == {0: {3}}
        assert ledger.states(second) == [SCHEDULED, SCHEDULED]
        ledger.ended(0, COMPLETED, COMPLETED, COMPLETED, CANCELLED)
        assert ledger.states(second) == [COMPLETED, CANCELLED]
        nothing_is_left(ledger)

    def test_of_one_that_rode_and_did_not_begin_ends_it(self) -> None:
        ledger = Ledger(slots=1)
        ledger.run.unit_size = 2
        (first,) = add_map(ledger.builder, spec("first"), range(2))
        (second,) = add_map(ledger.builder, spec("second"), first)
        ledger.plan()
        ledger.tell(MembersCancelled(second[0], [1], "me"))
        ledger.ended(0, COMPLETED)
        ledger.tell(UnitHandedBack(0, [1, 2, 3]))
        assert ledger.states(second) == [PENDING, CANCELLED]
        assert second[0].attempts[1] == 0
        ledger.run_all()
        assert ledger.states(second) == [COMPLETED, CANCELLED]
        nothing_is_left(ledger)

    def test_of_one_that_awaits_a_retry_keeps_the_row_of_its_failure(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(retries=1, delays=(60.0,))))
        (group,) = ledger.groups
        ledger.ended(0, FAILED)
        ledger.tell(MembersCancelled(group, [0], "me"))
        assert ledger.states((group, [0])) == [CANCELLED]
        assert [row.state for row in ledger.attempts] == [FAILED]
        while ledger.wakes:
            ledger.wake()
        assert not ledger.units
        nothing_is_left(ledger)

    def test_of_one_that_is_asked_about_ends_with_its_failure(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(retries=1, condition=lambda *_: True)))
        (group,) = ledger.groups
        ledger.ended(0, FAILED)
        (question,) = ledger.questions.values()
        ledger.tell(MembersCancelled(group, [0], "me"))
        assert ledger.states((group, [0])) == [FAILED]
        assert ledger.attempts[-1].stop_reason == "cancelled by me"
        ledger.answer(question, retry=True)
        nothing_is_left(ledger)

    def test_of_those_that_have_ended_does_nothing(self) -> None:
        ledger = ledger_of(spec(), spec("other"))
        ledger.run_all()
        for group in ledger.groups:
            assert not ledger.tell(MembersCancelled(group, [0], "me"))

    def test_lets_what_came_after_run_where_its_rule_allows(self) -> None:
        ledger = Ledger()
        (part,) = add_map(ledger.builder, spec("part"), range(2))
        total = add(ledger.builder, spec("total", trigger_rule=TriggerRule.ALL_DONE), every(part))
        ledger.plan()
        ledger.tell(MembersCancelled(part[0], [0, 1], "me"))
        ledger.ended(0, CANCELLED)
        assert ledger.state(total) == SCHEDULED
        ledger.ended(1, CANCELLED)
        assert part[0].handled == {0, 1}
        assert ledger.state(total) == PENDING


def with_teardown(*, ride: bool = False) -> Ledger:
    """A run with work that has begun, and a teardown after it."""
    ledger = Ledger(slots=1)
    ledger.run.unit_size = 1
    work = add(ledger.builder, spec("work"))
    rule = TriggerRule.ALL_SUCCESS if ride else TriggerRule.ALL_DONE_SETUP_SUCCESS
    add(ledger.builder, spec("clean", teardown=True, trigger_rule=rule), one(work))
    ledger.plan()
    ledger.started(0)
    return ledger


class TestTeardowns:
    @pytest.mark.parametrize("running", [True, False])
    def test_run_after_the_run_was_cancelled(self, *, running: bool) -> None:
        ledger = with_teardown()
        work, clean = ledger.groups
        ledger.tell(CancelRequested("Ctrl-C", running=running))
        assert ledger.states((clean, [0])) == [SCHEDULED]
        ledger.ended(0, CANCELLED)
        assert ledger.states((clean, [0])) == [PENDING]
        ledger.run_all()
        assert ledger.states((work, [0])) == [CANCELLED]
        assert ledger.states((clean, [0])) == [COMPLETED]
        # It cleans up after the failure, and does not deal with it.
        assert not work.handled
        nothing_is_left(ledger)

    def test_run_when_they_are_recorded_only_then(self) -> None:
        ledger = with_teardown()
        ledger.tell(CancelRequested("Ctrl-C"))
        late = add(ledger.builder, spec("late", teardown=True))
        ledger.plan()
        assert ledger.state(late) == PENDING
        ledger.run_all()
        assert ledger.state(late) == COMPLETED

    def test_that_run_already_are_not_stopped(self) -> None:
        ledger = ledger_of(spec("clean", teardown=True), spec("work"))
        ledger.started(0)
        ledger.started(1)
        ledger.tell(CancelRequested("Ctrl-C", force=True))
        assert ledger.aborted == {1: True}
        assert ledger.states((ledger.groups[0], [0])) == [RUNNING]

    def test_are_tried_again_and_handed_back_like_others(self) -> None:
        retry = RetryOptions(retries=1)
        ledger = ledger_of(spec("clean", retry, teardown=True))
        (group,) = ledger.groups
        ledger.tell(CancelRequested("Ctrl-C"))
        ledger.ended(0, FAILED)
        assert ledger.states((group, [0])) == [PENDING]
        ledger.tell(UnitHandedBack(1, [0]))
        assert ledger.states((group, [0])) == [PENDING]
        ledger.run_all()
        assert (ledger.states((group, [0])), group.attempts[0]) == ([COMPLETED], 2)

    def test_that_lose_their_worker_are_tried_again(self) -> None:
        ledger = Ledger(slots=1)
        add_map(ledger.builder, spec("clean", teardown=True), range(2))
        ledger.plan(unit_size=2)
        (group,) = ledger.groups
        ledger.started(0)
        ledger.tell(CancelRequested("Ctrl-C"))
        ledger.lost(0)
        assert ledger.states((group, range(2))) == [PENDING, PENDING]
        ledger.run_all()
        nothing_is_left(ledger)

    def test_stop_when_they_are_meant_too(self) -> None:
        ledger = with_teardown()
        _, clean = ledger.groups
        again = add(ledger.builder, spec("again", teardown=True))
        ledger.plan()
        ledger.tell(CancelRequested("Ctrl-C", force=True, teardowns=True))
        assert ledger.states((clean, [0])) == [CANCELLED]
        assert ledger.state(again) == CANCELLING
        assert ledger.aborted == {0: True, 1: True}
        for unit in sorted(ledger.units):
            ledger.lost(unit, STOPPED)
        assert ledger.state(again) == CANCELLED
        nothing_is_left(ledger)

    def test_do_not_ride_with_what_is_cancelled(self) -> None:
        ledger = with_teardown(ride=True)
        assert not ledger.units[0].riders
        ledger.tell(CancelRequested("Ctrl-C", running=False))
        ledger.ended(0, COMPLETED)
        _, clean = ledger.groups
        assert ledger.states((clean, [0])) == [PENDING]
        ledger.run_all()
        nothing_is_left(ledger)
