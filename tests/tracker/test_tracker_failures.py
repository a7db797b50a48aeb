"""What `retry_on` says, and what is kept of a failure. The ledger checks the invariants."""

from dataclasses import replace

import pytest

from raysched.model.options import RetryOptions
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, RetryVerdict
from raysched.tracker.messages import CompensationPlanned, Record, RolledBack
from tracker.book import SECOND
from tracker.evidence import failure
from tracker.graphs import add_map, spec
from tracker.ledger import Ledger
from tracker.stories import fail_with, ledger_of

COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
PENDING, AWAITING_RETRY, TIMED_OUT = (
    StateType.PENDING,
    StateType.AWAITING_RETRY,
    StateType.TIMED_OUT,
)


def judged(state: StateType, **verdict: object) -> ErrorInfo:
    """A failure of which `retry_on` has said this."""
    told = RetryVerdict(**verdict)  # type: ignore[typeddict-item]
    return replace(failure(state), evidence={"retry": told})


def failed_with(error: ErrorInfo, **options: object) -> Ledger:
    """A run whose only task run has failed like this."""
    ledger = ledger_of(spec(retry=RetryOptions(**options)))  # type: ignore[arg-type]
    fail_with(ledger, 0, error)
    return ledger


def state(ledger: Ledger) -> StateType:
    return ledger.states((ledger.groups[0], [0]))[0]


class TestVerdicts:
    @pytest.mark.parametrize("how", [FAILED, TIMED_OUT])
    def test_that_say_no_end_it_with_their_reason(self, how: StateType) -> None:
        ledger = failed_with(judged(how, retry=False, reason="not ours"), retries=5)
        assert state(ledger) == how
        assert [row.stop_reason for row in ledger.attempts] == ["not ours"]

    def test_that_say_no_without_a_reason_say_who_did(self) -> None:
        ledger = failed_with(judged(FAILED, retry=False), retries=5)
        assert ledger.attempts[0].stop_reason == "retry_on said no"

    def test_that_say_yes_keep_their_reason(self) -> None:
        error = judged(FAILED, retry=True, delay_seconds=None, reason="busy")
        ledger = failed_with(error, retries=1)
        assert state(ledger) == PENDING
        assert [row.stop_reason for row in ledger.attempts] == ["busy"]

    def test_that_say_when_are_obeyed_instead_of_the_delays(self) -> None:
        error = judged(FAILED, retry=True, delay_seconds=7.5)
        ledger = failed_with(error, retries=2, delays=(600.0,), jitter_factor=1.0)
        began = ledger.now
        assert state(ledger) == AWAITING_RETRY
        assert ledger.wake_for_units()
        assert ledger.now - began == 7.5 * SECOND
        ledger.ended(1, FAILED)
        assert ledger.wake_for_units()
        assert ledger.now - began >= 607.5 * SECOND

    def test_that_say_at_once_are_obeyed(self) -> None:
        error = judged(FAILED, retry=True, delay_seconds=0.0)
        assert state(failed_with(error, retries=1, delays=(600.0,))) == PENDING

    def test_that_say_yes_give_no_more_than_the_budget(self) -> None:
        ledger = failed_with(judged(FAILED, retry=True, reason="busy"), retries=0)
        assert state(ledger) == FAILED
        assert ledger.attempts[0].stop_reason == "no retries"

    def test_come_before_the_condition(self) -> None:
        def condition(*_: object) -> bool:
            return True

        refused = failed_with(judged(FAILED, retry=False), retries=1, condition=condition)
        assert not refused.questions
        asked = failed_with(judged(FAILED, retry=True), retries=1, condition=condition)
        assert len(asked.questions) == 1

    def test_of_crashes_are_none(self) -> None:
        ledger = failed_with(judged(CRASHED, retry=False, reason="no"), crash_retries=1)
        assert state(ledger) == AWAITING_RETRY
        assert ledger.attempts[0].state == CRASHED


class TestWhatIsKept:
    def test_of_every_attempt_is_its_own_error(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(retries=2)))
        for number in range(3):
            fail_with(ledger, number, failure(FAILED, f"attempt {number}"))
        assert [row.error and row.error.message for row in ledger.attempts] == [
            "attempt 0",
            "attempt 1",
            "attempt 2",
        ]
        assert ledger.groups[0].errors[0].message == "attempt 2"

    def test_of_the_last_one_are_the_arguments(self) -> None:
        """They are kept so that it can be run again alone; the task run lets go of them."""
        ledger = ledger_of(spec(retry=RetryOptions(retries=1)))
        for number in range(2):
            ledger.ended(number, FAILED)
        first, last = ledger.attempts
        assert first.arguments is None
        assert last.arguments is not None
        assert last.arguments.payload
        assert ledger.groups[0].payloads[0] is None


class TestUndoing:
    """When a compensation completes, what it undoes is marked in the same turn."""

    def test_marks_what_was_undone(self) -> None:
        ledger = Ledger(slots=1)
        (books,) = add_map(ledger.builder, spec("book"), range(2))
        (undos,) = add_map(ledger.builder, spec("undo", batch=False), range(2))
        ledger.plan(unit_size=2)
        for index in range(2):
            ledger.tell(CompensationPlanned((undos[0], index), (books[0], 1 - index)))
        ledger.ended(ledger.unit_of(books), COMPLETED, COMPLETED)
        commands = ledger.tell(ledger.report(ledger.unit_of(undos), [COMPLETED, FAILED]))
        assert books[0].rolled_back == {1}
        assert Record(books[0], (1,)) in commands

    def test_marks_only_what_completed_and_only_once(self) -> None:
        ledger = ledger_of(spec("book"), spec("other"))
        book, other = ledger.groups
        ledger.ended(0, COMPLETED)
        assert ledger.tell(RolledBack(book, [0]))
        assert not ledger.tell(RolledBack(book, [0]))
        assert not ledger.tell(RolledBack(other, [0]))
        assert (book.rolled_back, other.rolled_back) == ({0}, set())
