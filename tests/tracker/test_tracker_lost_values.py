"""Large values that are lost with their node. The ledger checks the invariants throughout."""

import pytest

from raysched.graph.calls import Part
from raysched.model.options import RetryOptions
from raysched.model.states import StateType
from raysched.model.values import CrashKind, FailureClass, LargeValue
from raysched.tracker.messages import CancelRequested, InputsLost, MembersCancelled, ValueLost
from raysched.tracker.recomputing import AGAIN
from tracker.evidence import LOST, failure
from tracker.graphs import add, one, spec
from tracker.invariants import nothing_is_left
from tracker.ledger import Ledger
from tracker.stories import fail_with, wait

COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
CANCELLED, RUNNING, PENDING = StateType.CANCELLED, StateType.RUNNING, StateType.PENDING
UPSTREAM_FAILED = StateType.UPSTREAM_FAILED


def chain(length: int, crash_retries: int = 3) -> tuple[Ledger, list[Part]]:
    """A run with a chain of task runs with large values, all completed but the last one."""
    ledger = Ledger(slots=2)
    retry = RetryOptions(crash_retries=crash_retries)
    parts: list[Part] = []
    for name in "abcd"[:length]:
        needed = map(one, parts[-1:])
        parts.append(add(ledger.builder, spec(name, retry, batch=False, tags=("large",)), *needed))
    ledger.plan()
    for _ in range(length - 1):
        ledger.ended(min(ledger.units), COMPLETED)
    return ledger, parts


def lose_input(ledger: Ledger, part: Part, lost: Part) -> None:
    """The unit of one did not begin, because the value of the other is lost."""
    ledger.tell(InputsLost(ledger.unit_of(part), [(lost[0], lost[1][0])]))


class TestComputingAgain:
    def test_changes_no_state_and_is_a_marked_attempt(self) -> None:
        ledger, (a, b) = chain(2)
        lost = a[0].values[0]
        lose_input(ledger, b, a)
        assert (ledger.state(a), ledger.state(b)) == (COMPLETED, PENDING)
        assert ledger.sent(a[0]) == [0]
        assert not ledger.sent(b[0])
        ledger.ended(ledger.unit_of(a), COMPLETED)
        assert isinstance(a[0].values[0], LargeValue)
        assert a[0].values[0] is not lost
        (row,) = ledger.attempts
        assert (row.attempt, row.state, row.stop_reason) == (2, COMPLETED, AGAIN)
        assert ledger.sent(b[0]) == [0]
        ledger.run_all()
        # It was not its fault that it had to wait.
        assert (ledger.state(b), b[0].attempts[0]) == (COMPLETED, 1)
        nothing_is_left(ledger)

    def test_goes_back_as_far_as_values_are_lost(self) -> None:
        ledger, (a, b, c) = chain(3)
        lose_input(ledger, c, b)
        lose_input(ledger, b, a)
        order = []
        while ledger.units:
            (unit,) = ledger.units
            order.append(ledger.units[unit].group.spec.name)
            ledger.ended(unit, COMPLETED)
        assert order == ["a", "b", "c"]
        assert [part[0].attempts[0] for part in (a, b, c)] == [2, 2, 1]
        assert ledger.state(c) == COMPLETED
        nothing_is_left(ledger)

    def test_is_done_once_for_all_that_wait(self) -> None:
        ledger = Ledger(slots=4)
        first = add(ledger.builder, spec("first", tags=("large",)))
        others = [add(ledger.builder, spec(name, batch=False), one(first)) for name in "bcd"]
        ledger.plan()
        ledger.ended(0, COMPLETED)
        for other in others:
            lose_input(ledger, other, first)
        assert ledger.sent(first[0]) == [0]
        assert len(ledger.units) == 1
        ledger.run_all()
        assert [ledger.state(other) for other in others] == [COMPLETED] * 3
        assert first[0].attempts[0] == 2
        nothing_is_left(ledger)

    def test_is_done_when_the_flow_wants_the_value(self) -> None:
        ledger, (a, _) = chain(2)
        ledger.run_all()
        ledger.tell(ValueLost(a[0], 0))
        ledger.tell(ValueLost(a[0], 0))
        assert ledger.sent(a[0]) == [0]
        ledger.run_all()
        assert a[0].attempts[0] == 2
        nothing_is_left(ledger)

    def test_is_tried_again_when_it_crashes(self) -> None:
        ledger, (a, b) = chain(2)
        lose_input(ledger, b, a)
        ledger.lost(ledger.unit_of(a))
        assert ledger.sent(a[0]) == [0]
        ledger.run_all()
        assert (ledger.state(b), a[0].attempts[0]) == (COMPLETED, 3)
        assert [row.state for row in ledger.attempts] == [CRASHED, COMPLETED]
        nothing_is_left(ledger)

    def test_hooks_are_not_called_again(self) -> None:
        ledger = Ledger()
        first = add(ledger.builder, spec("first", tags=("large",), hooks=True))
        second = add(ledger.builder, spec("second", batch=False), one(first))
        ledger.plan()
        ledger.ended(0, COMPLETED)
        lose_input(ledger, second, first)
        ledger.run_all()
        assert set(ledger.hooks.values()) == {1}


class TestWhatCannotBeHad:
    @pytest.mark.parametrize("crash_retries", [0, 2])
    def test_is_given_up_after_as_many_losses_as_crash_retries(self, crash_retries: int) -> None:
        ledger, (a, b) = chain(2, crash_retries)
        for _ in range(crash_retries):
            lose_input(ledger, b, a)
            ledger.ended(ledger.unit_of(a), COMPLETED)
        assert ledger.state(b) == PENDING
        lose_input(ledger, b, a)
        assert not ledger.units
        error = b[0].errors[0]
        assert (ledger.state(a), ledger.state(b)) == (COMPLETED, CRASHED)
        assert (error.failure_class, error.kind) == (
            FailureClass.INFRASTRUCTURE,
            CrashKind.OBJECT_LOST,
        )
        assert error.message == (
            "the value of a[0] was lost with its node, and cannot be computed again"
        )
        nothing_is_left(ledger)

    def test_by_a_failure_of_the_users_code_lets_all_crash_that_wait(self) -> None:
        ledger, (a, b, c) = chain(3)
        after = add(ledger.builder, spec("after"), one(c))
        ledger.plan()
        lose_input(ledger, c, b)
        lose_input(ledger, b, a)
        fail_with(ledger, ledger.unit_of(a), failure(FAILED, "no such file"))
        assert [ledger.state(part) for part in (a, b, c)] == [COMPLETED, COMPLETED, CRASHED]
        message = c[0].errors[0].message
        assert message.startswith("the value of b[0] was lost with its node")
        assert "the value of a[0] was lost with its node" in message
        assert message.endswith("ValueError: no such file")
        assert ledger.state(after) == UPSTREAM_FAILED
        assert after[0].roots[0] == ((c[0], 0),)
        assert c[0].reasons[0] == "what it needs cannot be computed again"
        nothing_is_left(ledger)


class TestMeanwhile:
    def test_who_waits_may_be_cancelled(self) -> None:
        ledger, (a, b) = chain(2)
        lose_input(ledger, b, a)
        ledger.tell(MembersCancelled(b[0], [0], "me"))
        assert ledger.state(b) == CANCELLED
        ledger.run_all()
        assert not ledger.sent(b[0])
        assert ledger.state(b) == CANCELLED
        nothing_is_left(ledger)

    def test_the_run_may_be_cancelled(self) -> None:
        ledger, (a, b) = chain(2)
        lose_input(ledger, b, a)
        ledger.tell(CancelRequested("Ctrl-C"))
        assert (ledger.state(a), ledger.state(b)) == (COMPLETED, CANCELLED)
        ledger.run_all(CANCELLED)
        assert (ledger.state(a), ledger.state(b)) == (COMPLETED, CANCELLED)
        nothing_is_left(ledger)

    def test_who_waits_may_have_waited_too_long(self) -> None:
        ledger = Ledger()
        first = add(ledger.builder, spec("first", tags=("large",)))
        task = spec("second", batch=False, total_timeout_seconds=2.0)
        second = add(ledger.builder, task, one(first))
        ledger.plan()
        ledger.ended(0, COMPLETED)
        lose_input(ledger, second, first)
        wait(ledger, 2)
        assert ledger.state(second) == StateType.TIMED_OUT
        ledger.run_all()
        nothing_is_left(ledger)

    def test_one_that_was_to_stop_ends_when_its_unit_does_not_begin(self) -> None:
        ledger, (a, b) = chain(2)
        ledger.tell(MembersCancelled(b[0], [0], "me"))
        lose_input(ledger, b, a)
        assert (ledger.state(b), b[0].reasons[0]) == (CANCELLED, "cancelled by me")
        assert b[0].attempts[0] == 0
        ledger.run_all()
        nothing_is_left(ledger)

    def test_a_teardown_gets_its_value_in_a_cancelled_run(self) -> None:
        ledger = Ledger()
        first = add(ledger.builder, spec("first", tags=("large",)))
        clean = add(ledger.builder, spec("clean", batch=False, teardown=True), one(first))
        ledger.plan()
        ledger.ended(0, COMPLETED)
        ledger.tell(CancelRequested("Ctrl-C"))
        lose_input(ledger, clean, first)
        assert ledger.state(clean) == PENDING
        ledger.run_all()
        assert ledger.state(clean) == COMPLETED
        nothing_is_left(ledger)

    def test_times_of_what_is_lost_do_not_move(self) -> None:
        ledger, (a, b) = chain(2)
        ended = a[0].ended[0]
        ledger.now += 5
        lose_input(ledger, b, a)
        ledger.lost(ledger.unit_of(a), LOST)
        ledger.run_all()
        assert a[0].ended[0] == ended
