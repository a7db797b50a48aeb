"""Groups of which too much fails. The ledger checks the invariants throughout."""

from dataclasses import replace
from typing import Any

import pytest

from raysched.graph.group import Group
from raysched.model.options import Fallback, RetryOptions
from raysched.model.states import StateType
from raysched.model.values import FailureClass
from raysched.tracker import Run
from raysched.tracker.messages import UnitHandedBack
from tracker.evidence import failure
from tracker.graphs import add, add_map, every, one, spec
from tracker.invariants import nothing_is_left
from tracker.ledger import Ledger
from tracker.stories import fail_with

COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
RUNNING, PENDING, TIMED_OUT = StateType.RUNNING, StateType.PENDING, StateType.TIMED_OUT
AWAITING_RETRY, UPSTREAM_FAILED = StateType.AWAITING_RETRY, StateType.UPSTREAM_FAILED
SCHEDULED, SKIPPED = StateType.SCHEDULED, StateType.SKIPPED


def mapped(
    size: int,
    *,
    slots: int = 1,
    max_parallel: int | None = 1,
    retry: RetryOptions | None = None,
    **options: Any,
) -> tuple[Ledger, Group]:
    """A run with one map, planned in units of one."""
    run = Run("run", max_parallel, unit_size=1)
    ledger = Ledger(run, slots=slots)
    (part,) = add_map(ledger.builder, spec(retry=retry, **options), range(size))
    ledger.plan()
    return ledger, part[0]


def end_next(ledger: Ledger, state: StateType) -> None:
    """The unit that was dispatched first ends."""
    ledger.ended(min(ledger.units), state)


class TestByCount:
    def test_goes_on_with_as_many_failures_as_are_allowed(self) -> None:
        ledger, group = mapped(5, max_failures=2)
        for state in (FAILED, COMPLETED, FAILED, COMPLETED, COMPLETED):
            end_next(ledger, state)
        assert list(group.states).count(COMPLETED) == 3
        nothing_is_left(ledger)

    def test_stops_at_one_more(self) -> None:
        ledger, group = mapped(5, max_failures=1)
        end_next(ledger, FAILED)
        end_next(ledger, FAILED)
        reason = "max_failures=1: 2 of 5 failed"
        assert ledger.states((group, range(5))) == [FAILED, FAILED, *[UPSTREAM_FAILED] * 3]
        assert set(group.roots[4]) == {(group, 0), (group, 1)}
        assert group.reasons == dict.fromkeys((2, 3, 4), reason)
        assert group.errors[2].message == f"task[2] did not run: {reason}"
        assert group.errors[2].failure_class is FailureClass.UPSTREAM
        assert not ledger.units
        nothing_is_left(ledger)

    @pytest.mark.parametrize("state", [FAILED, TIMED_OUT, CRASHED])
    def test_counts_all_that_failed_by_themselves(self, state: StateType) -> None:
        ledger, group = mapped(2, max_failures=0, retry=RetryOptions(crash_retries=0))
        end_next(ledger, state)
        assert ledger.states((group, range(2))) == [state, UPSTREAM_FAILED]

    def test_does_not_count_what_was_skipped_or_followed(self) -> None:
        ledger = Ledger(Run("run", 1, unit_size=1), slots=1)
        (first,) = add_map(ledger.builder, spec("first"), range(3))
        (second,) = add_map(ledger.builder, spec("second", batch=False, max_failures=0), first)
        ledger.plan()
        group = first[0]
        ledger.ended(ledger.unit_of((group, [0])), FAILED)
        ledger.ended(ledger.unit_of((group, [1])), SKIPPED)
        ledger.run_all()
        assert ledger.states(second) == [UPSTREAM_FAILED, SKIPPED, COMPLETED]
        assert not ledger.run.nodes[second[0].id].stopped

    def test_counts_task_runs_not_attempts(self) -> None:
        ledger, group = mapped(2, max_failures=0, retry=RetryOptions(retries=1))
        end_next(ledger, FAILED)
        assert ledger.states((group, [1])) == [PENDING]
        ledger.run_all()
        assert ledger.states((group, range(2))) == [COMPLETED, COMPLETED]

    def test_is_of_one_map_alone(self) -> None:
        ledger = Ledger(Run("run", 1, unit_size=1), slots=1)
        task = spec(max_failures=0)
        (one_part,) = add_map(ledger.builder, task, range(2))
        (other,) = add_map(ledger.builder, spec("other", max_failures=0), range(2))
        ledger.plan()
        end_next(ledger, FAILED)
        ledger.run_all()
        assert ledger.states(one_part) == [FAILED, UPSTREAM_FAILED]
        assert ledger.states(other) == [COMPLETED, COMPLETED]


class TestByShare:
    @pytest.mark.parametrize(("share", "allowed"), [(0.0, 0), (0.1, 1), (0.25, 2), (1.0, 10)])
    def test_is_of_the_size_of_the_map(self, share: float, allowed: int) -> None:
        ledger, group = mapped(10, max_failures=share)
        while ledger.units:
            end_next(ledger, FAILED)
        failed = list(group.states).count(FAILED)
        assert failed == min(allowed + 1, 10)
        if failed < 10:
            assert group.reasons[9] == f"max_failures={share!r}: {failed} of 10 failed"


class TestTheSameInARow:
    def test_stops_whatever_is_left_of_retries(self) -> None:
        retry = RetryOptions(retries=5)
        ledger, group = mapped(2, max_same_failures=3, retry=retry)
        for _ in range(3):
            end_next(ledger, FAILED)
        assert all(state in {FAILED, UPSTREAM_FAILED} for state in group.states)
        assert not ledger.units
        reason = "max_same_failures=3: so many failed in a row in the same way"
        assert ledger.attempts[-1].stop_reason == reason
        nothing_is_left(ledger)

    def test_begins_anew_with_another_failure_or_a_success(self) -> None:
        ledger, group = mapped(7, max_same_failures=2)
        for state in (FAILED, TIMED_OUT, FAILED, COMPLETED, FAILED, TIMED_OUT, FAILED):
            end_next(ledger, state)
        assert UPSTREAM_FAILED not in ledger.states((group, range(7)))

    def test_begins_anew_with_a_success_after_a_retry(self) -> None:
        ledger, group = mapped(3, max_same_failures=2, retry=RetryOptions(retries=1))
        for state in (FAILED, COMPLETED, FAILED, COMPLETED, FAILED):
            end_next(ledger, state)
        assert list(group.attempts) == [2, 1, 2]
        assert not ledger.run.nodes[group.id].stopped

    def test_tells_failures_by_their_fingerprint(self) -> None:
        ledger, group = mapped(4, max_same_failures=2)
        for fingerprint in "aba":
            error = replace(failure(FAILED), fingerprint=fingerprint)
            fail_with(ledger, min(ledger.units), error)
        assert ledger.states((group, [3])) == [PENDING]
        fail_with(ledger, min(ledger.units), replace(failure(FAILED), fingerprint=""))
        assert not ledger.run.nodes[group.id].stopped

    @pytest.mark.parametrize(("own", "stopped"), [(None, True), (0, False), (9, False)])
    def test_is_the_runs_number_unless_the_task_has_its_own(
        self, own: int | None, stopped: bool
    ) -> None:
        ledger = Ledger(Run("run", 1, unit_size=1, max_same_failures=2), slots=1)
        (part,) = add_map(ledger.builder, spec(max_same_failures=own), range(4))
        ledger.plan()
        while ledger.units:
            end_next(ledger, FAILED)
        assert (ledger.states(part)[3] == UPSTREAM_FAILED) == stopped

    def test_leaves_single_task_runs_and_those_with_a_fallback_alone(self) -> None:
        ledger, group = mapped(1, max_same_failures=1, retry=RetryOptions(retries=2))
        while ledger.units:
            end_next(ledger, FAILED)
        assert group.attempts[0] == 3
        ledger, group = mapped(3, max_same_failures=1, fallback=Fallback(b"instead"))
        while ledger.units:
            end_next(ledger, FAILED)
        assert ledger.states((group, range(3))) == [COMPLETED] * 3


class TestWhatIsStopped:
    def test_what_runs_may_end_and_is_not_tried_again(self) -> None:
        retry = RetryOptions(retries=3, delays=(60.0,))
        ledger, group = mapped(4, slots=2, max_parallel=2, max_same_failures=1, retry=retry)
        ledger.started(0)
        ledger.started(1)
        ledger.ended(0, FAILED)
        assert ledger.states((group, range(4))) == [
            FAILED,
            RUNNING,
            UPSTREAM_FAILED,
            UPSTREAM_FAILED,
        ]
        assert not ledger.stopped
        ledger.ended(1, TIMED_OUT)
        assert ledger.states((group, [1])) == [TIMED_OUT]
        assert ledger.attempts[-1].stop_reason == ledger.run.nodes[group.id].stopped
        nothing_is_left(ledger)

    def test_what_runs_may_complete(self) -> None:
        ledger, group = mapped(3, slots=2, max_parallel=2, max_failures=0)
        ledger.ended(0, FAILED)
        ledger.ended(1, COMPLETED)
        assert ledger.states((group, range(3))) == [FAILED, COMPLETED, UPSTREAM_FAILED]

    @pytest.mark.parametrize("delays", [(60.0,), ()])
    def test_what_waits_for_its_retry_ends_with_its_last_failure(
        self, delays: tuple[float, ...]
    ) -> None:
        """Whether it waits for its time or, as with no delay, for a slot."""
        ledger, group = mapped(
            4, max_failures=0, retry=RetryOptions(retries=1, delays=delays, crash_retries=0)
        )
        end_next(ledger, FAILED)
        waits = AWAITING_RETRY if delays else PENDING
        assert ledger.states((group, range(4))) == [waits, *[PENDING] * 3]
        end_next(ledger, CRASHED)
        reason = "max_failures=0: 1 of 4 failed"
        assert ledger.states((group, range(4))) == [FAILED, CRASHED, *[UPSTREAM_FAILED] * 2]
        assert group.errors[0].message == "broken"
        told = [(row.index, row.attempt, row.stop_reason) for row in ledger.attempts]
        assert (0, 1, reason) in told
        assert not ledger.units
        nothing_is_left(ledger)

    def test_what_was_handed_back_before_its_retry_ends_with_its_last_failure(self) -> None:
        retry = RetryOptions(retries=1, crash_retries=0)
        ledger, group = mapped(2, slots=2, max_parallel=2, max_failures=0, retry=retry)
        ledger.ended(0, FAILED)
        ledger.slots = 0
        again = ledger.unit_of((group, [0]))
        ledger.run.max_parallel = 1
        ledger.tell(UnitHandedBack(again, [0]))
        ledger.ended(1, CRASHED)
        assert ledger.states((group, range(2))) == [FAILED, CRASHED]
        nothing_is_left(ledger)

    def test_what_is_being_asked_about_ends_with_its_failure(self) -> None:
        retry = RetryOptions(retries=1, condition=lambda *_: True, crash_retries=0)
        ledger, group = mapped(3, max_failures=0, retry=retry)
        end_next(ledger, FAILED)
        (question,) = ledger.questions.values()
        end_next(ledger, CRASHED)
        assert ledger.states((group, range(3))) == [FAILED, CRASHED, UPSTREAM_FAILED]
        ledger.answer(question, retry=True)
        assert ledger.run.late == 1

    def test_what_waits_for_others_is_stopped_too(self) -> None:
        ledger = Ledger(Run("run", unit_size=1), slots=1)
        task = spec("load", batch=False, max_failures=0)
        slow = add(ledger.builder, spec("slow", ray={"num_gpus": 1}))
        (part,) = add_map(ledger.builder, task, [1, one(slow)])
        ledger.plan()
        ledger.ended(ledger.unit_of((part[0], [0])), FAILED)
        assert ledger.states(part) == [FAILED, UPSTREAM_FAILED]
        ledger.run_all()
        assert ledger.states(part) == [FAILED, UPSTREAM_FAILED]
        nothing_is_left(ledger)

    def test_what_rides_ends_with_what_it_needs(self) -> None:
        """Riders of a stopped map are on their way: those whose parents fail do not run."""
        ledger = Ledger(Run("run", unit_size=2), slots=2)
        (first,) = add_map(ledger.builder, spec("first"), range(4))
        (second,) = add_map(ledger.builder, spec("second", max_failures=0), first)
        ledger.plan()
        one_unit, other = sorted(ledger.units)
        ledger.ended(one_unit, COMPLETED, COMPLETED, FAILED, COMPLETED)
        assert ledger.states(second) == [FAILED, COMPLETED, SCHEDULED, SCHEDULED]
        ledger.ended(other, COMPLETED, FAILED, COMPLETED, positions=[0, 1, 2])
        ledger.tell(UnitHandedBack(other, [3]))
        assert ledger.states(second) == [FAILED, COMPLETED, COMPLETED, UPSTREAM_FAILED]
        nothing_is_left(ledger)

    def test_victims_name_the_latest_ten_failures(self) -> None:
        ledger, group = mapped(20, max_failures=14)
        for _ in range(15):
            ledger.now += 1
            end_next(ledger, FAILED)
        assert group.roots[19] == tuple((group, index) for index in range(14, 4, -1))

    def test_what_needs_it_names_those_roots(self) -> None:
        ledger = Ledger(Run("run", 1, unit_size=1), slots=1)
        (part,) = add_map(ledger.builder, spec(max_failures=0), range(3))
        total = add(ledger.builder, spec("total"), every(part))
        ledger.plan()
        end_next(ledger, FAILED)
        assert ledger.state(total) == UPSTREAM_FAILED
        assert total[0].roots[0] == ((part[0], 0),)


class TestWithFallbacks:
    def test_who_waits_for_a_fallback_gets_it(self) -> None:
        ledger, group = mapped(3, max_failures=0, fallback=Fallback(spec=spec("instead")))
        for _ in range(3):
            end_next(ledger, FAILED)
        assert ledger.states((group, range(3))) == [PENDING] * 3
        end_next(ledger, FAILED)
        assert ledger.run.nodes[group.id].stopped == "max_failures=0: 1 of 3 failed"
        assert ledger.states((group, range(3))) == [FAILED, PENDING, PENDING]
        ledger.run_all()
        assert ledger.states((group, range(3))) == [FAILED, COMPLETED, COMPLETED]
        nothing_is_left(ledger)

    def test_who_waits_for_a_retry_falls_back(self) -> None:
        ledger, group = mapped(
            3,
            max_failures=0,
            fallback=Fallback(spec=spec("instead")),
            retry=RetryOptions(retries=1, delays=(60.0,), crash_retries=0),
        )
        for state in (FAILED, FAILED, CRASHED):
            end_next(ledger, state)
        assert ledger.states((group, range(3))) == [AWAITING_RETRY, AWAITING_RETRY, PENDING]
        end_next(ledger, FAILED)
        assert ledger.states((group, range(3))) == [PENDING, PENDING, FAILED]
        ledger.run_all()
        assert ledger.states((group, range(3))) == [COMPLETED, COMPLETED, FAILED]
        nothing_is_left(ledger)
