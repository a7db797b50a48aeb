"""What happens to task runs, told one story a test. The ledger checks the invariants throughout."""

from itertools import pairwise

import pytest

from raysched.compiler import compile_segment
from raysched.errors import InternalError
from raysched.model.options import RetryOptions
from raysched.model.states import StateType
from raysched.policies.retry import CRASH_DELAYS
from raysched.tracker.messages import (
    SegmentPlanned,
    TimePassed,
    UnitStarted,
)
from tracker.book import EPOCH, SECOND
from tracker.graphs import add, add_map, every, one, spec
from tracker.invariants import nothing_is_left
from tracker.ledger import Ledger
from tracker.stories import ledger_of

COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
CANCELLED, RUNNING, PENDING = StateType.CANCELLED, StateType.RUNNING, StateType.PENDING


class TestRetries:
    def test_are_spaced_by_the_delays_of_which_the_last_repeats(self) -> None:
        task = spec(retry=RetryOptions(retries=4, delays=(1.0, 10.0)))
        ledger = ledger_of(task)
        group = ledger.groups[0]
        times = []
        while ledger.wake_for_units():
            times.append(ledger.now)
            ledger.run_all(FAILED)
        waits = [(after - before) / SECOND for before, after in pairwise(times)]
        assert waits == [1.0, 10.0, 10.0, 10.0]
        assert group.states[0] == FAILED
        assert [row.stop_reason for row in ledger.attempts][-1] == "all 4 retries used"

    def test_hold_no_slot_while_they_wait(self) -> None:
        task = spec(retry=RetryOptions(retries=1, delays=(60.0,)))
        ledger = ledger_of(task, task, slots=1, max_parallel=1)
        ledger.ended(0, FAILED)
        assert ledger.states((ledger.groups[0], range(2))) == [StateType.AWAITING_RETRY, PENDING]
        assert ledger.sent(ledger.groups[0]) == [1]

    def test_do_not_come_before_their_time(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(retries=1, delays=(60.0,))))
        ledger.run_all(FAILED)
        ledger.now += 59 * SECOND
        ledger.tell(TimePassed(ledger.now))
        assert not ledger.units
        ledger.wake()
        assert ledger.units
        assert ledger.now == EPOCH + 60 * SECOND

    def test_jitter_stays_in_its_range_and_is_the_same_again(self) -> None:
        task = spec(retry=RetryOptions(retries=1, delays=(10.0,), jitter_factor=0.5))
        waits = []
        for _ in range(2):
            ledger = Ledger(slots=50)
            (part,) = add_map(ledger.builder, task, range(50))
            ledger.plan()
            ledger.run_all(FAILED)
            assert set(ledger.states(part)) == {StateType.AWAITING_RETRY}
            waits.append([at - ledger.now for at, *_ in sorted(ledger.run.timers)])
        assert waits[0] == waits[1]
        assert len(set(waits[0])) == 50
        assert all(10 * SECOND <= wait <= 15 * SECOND for wait in waits[0])

    def test_of_crashes_do_not_burn_those_of_failures(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(retries=1, crash_retries=2)))
        for unit, state in enumerate([CRASHED, FAILED, CRASHED, COMPLETED]):
            assert ledger.wake_for_units()
            ledger.ended(unit, state)
        group = ledger.groups[0]
        assert (group.states[0], group.attempts[0]) == (COMPLETED, 4)
        assert [row.state for row in ledger.attempts] == [CRASHED, FAILED, CRASHED, COMPLETED]

    def test_of_crashes_wait_longer_each_time(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(crash_retries=3)))
        times = []
        while ledger.wake_for_units():
            times.append(ledger.now)
            ledger.lost(min(ledger.units))
        waits = [(after - before) / SECOND for before, after in pairwise(times)]
        assert waits == list(CRASH_DELAYS[:3])
        assert ledger.groups[0].states[0] == CRASHED

    def test_ask_the_condition_and_obey(self) -> None:
        task = spec(retry=RetryOptions(retries=2, condition=lambda *_: True))
        ledger = ledger_of(task, task)
        group = ledger.groups[0]
        ledger.run_all(FAILED)
        first, second = ledger.questions.values()
        assert group.states[0] == RUNNING
        ledger.answer(first, retry=True)
        ledger.answer(second, retry=False)
        assert ledger.states((group, range(2))) == [PENDING, FAILED]
        assert ledger.attempts[-1].stop_reason == "retry_condition_fn said no"

    def test_leave_the_condition_alone_where_none_are_left(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(condition=lambda *_: True)))
        ledger.run_all(FAILED)
        assert not ledger.questions
        assert ledger.groups[0].states[0] == FAILED

    def test_wake_up_as_often_as_there_are_times(self) -> None:
        """A wake-up that asked for the next one each time would multiply.

        Beside the two retries of each there is one for the capacity.
        """
        ledger = Ledger(slots=100)
        add_map(ledger.builder, spec(retry=RetryOptions(2, (5.0,), jitter_factor=1.0)), range(100))
        ledger.plan()
        ledger.run_all(FAILED)
        wakes = 0
        while ledger.wakes:
            ledger.wake()
            wakes += 1
            ledger.run_all(FAILED)
        assert wakes <= 2 * 100 + 1
        nothing_is_left(ledger)


class TestLostUnits:
    def unit_of_four(self) -> Ledger:
        ledger = Ledger(slots=1)
        add_map(ledger.builder, spec(hooks=True), range(4))
        ledger.plan(unit_size=4)
        ledger.started(0)
        return ledger

    def test_charge_only_the_guilty_one(self) -> None:
        ledger = self.unit_of_four()
        group = ledger.groups[0]
        ledger.lost(0)
        assert [list(unit.indices) for unit in ledger.units.values()] == [[0], [1]]
        ledger.ended(ledger.unit_of((group, range(1))), StateType.COMPLETED)
        ledger.lost(ledger.unit_of((group, range(2, 3))))
        ledger.run_all()
        assert list(group.attempts) == [1, 1, 1, 1]
        assert [row.index for row in ledger.attempts] == [2]
        assert ledger.states((group, range(4))) == [
            COMPLETED,
            COMPLETED,
            StateType.AWAITING_RETRY,
            COMPLETED,
        ]

    def test_keep_what_was_reported(self) -> None:
        ledger = self.unit_of_four()
        group = ledger.groups[0]
        ledger.ended(0, COMPLETED, COMPLETED, COMPLETED)
        ledger.lost(0)
        assert ledger.states((group, range(4))) == [
            COMPLETED,
            COMPLETED,
            COMPLETED,
            StateType.AWAITING_RETRY,
        ]

    def test_say_no_second_time_that_a_suspect_is_running(self) -> None:
        ledger = self.unit_of_four()
        ledger.lost(0)
        while ledger.units:
            unit = min(ledger.units)
            ledger.started(unit)
            ledger.ended(unit, COMPLETED)
        running = [n for (_, _, kind), n in ledger.hooks.items() if kind == "on_running"]
        assert running == [1, 1, 1, 1]

    def test_that_nobody_saw_begin_call_no_hook_of_running(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(crash_retries=0), hooks=True))
        ledger.lost(0)
        assert [kind for _, _, kind in ledger.hooks] == ["on_crashed"]


class TestLateEvents:
    def test_change_nothing_and_are_counted(self) -> None:
        ledger = ledger_of(spec())
        report = ledger.report(0, [COMPLETED])
        ledger.tell(report)
        assert ledger.run.late == 0
        for event in (ledger.report(0, [FAILED]), report, UnitStarted(0, [0], ledger.now)):
            ledger.tell(event)
        ledger.lost(0)
        assert ledger.run.late == 4
        assert ledger.groups[0].states[0] == COMPLETED

    def test_of_a_position_that_has_ended_are_late_too(self) -> None:
        ledger = Ledger(slots=1)
        add_map(ledger.builder, spec(), range(2))
        ledger.plan(unit_size=2)
        ledger.ended(0, COMPLETED)
        ledger.ended(0, FAILED, COMPLETED)
        assert ledger.run.late == 1
        assert ledger.states((ledger.groups[0], range(2))) == [COMPLETED, COMPLETED]

    def test_answers_to_a_question_that_is_over_are_late(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(retries=2, condition=lambda *_: True)))
        ledger.run_all(FAILED)
        (question,) = ledger.questions.values()
        ledger.answer(question, retry=True)
        ledger.answer(question, retry=True)
        assert ledger.run.late == 1


class TestDependencies:
    def test_wait_for_all_of_a_gather(self) -> None:
        ledger = Ledger(slots=3)
        (parts,) = add_map(ledger.builder, spec("part"), range(3))
        total = add(ledger.builder, spec("total"), every(parts))
        ledger.plan()
        ledger.ended(0, COMPLETED)
        ledger.ended(2, COMPLETED)
        assert ledger.state(total) == StateType.SCHEDULED
        ledger.ended(1, COMPLETED)
        assert ledger.state(total) == PENDING

    def test_of_tasks_in_turns_are_no_cycle(self) -> None:
        """`b[0]` needs `a[0]`, `a[1]` needs `b[0]`: as groups they need each other."""
        ledger = Ledger()
        a, b = spec("a"), spec("b")
        part = add(ledger.builder, a)
        for task in (b, a, b, a):
            part = add(ledger.builder, task, one(part))
        ledger.plan()
        assert len(ledger.groups) == 2
        ledger.run_all()
        assert ledger.state(part) == COMPLETED
        nothing_is_left(ledger)

    def test_on_failures_name_the_roots_of_all_parents(self) -> None:
        ledger = Ledger(slots=4)
        (loads,) = add_map(ledger.builder, spec("load"), range(3))
        (cleans,) = add_map(ledger.builder, spec("clean"), loads)
        total = add(ledger.builder, spec("total"), every(cleans), wait_for=[one(loads, 1)])
        ledger.plan()
        ledger.ended(0, FAILED)
        ledger.ended(1, FAILED)
        assert ledger.state(total) == StateType.SCHEDULED
        ledger.ended(2, COMPLETED)
        ledger.run_all()
        assert ledger.state(total) == StateType.UPSTREAM_FAILED
        group, index = total[0], total[1][0]
        assert set(group.roots[index]) == {(loads[0], 0), (loads[0], 1)}
        message = group.errors[index].message
        assert message.startswith("total[0] did not run, because load[0] and 1 more failed")

    def test_on_a_skipped_task_run_are_skipped(self) -> None:
        ledger = Ledger()
        first = add(ledger.builder, spec("first"))
        second = add(ledger.builder, spec("second"), one(first))
        ledger.plan()
        ledger.ended(0, StateType.SKIPPED)
        assert ledger.states(second) == [StateType.SKIPPED]
        assert second[0].errors[0].message == "first[0] was skipped"

    def test_that_may_fail_hand_the_failure_over_and_handle_it(self) -> None:
        ledger = Ledger()
        risky = add(ledger.builder, spec("risky"))
        report = add(ledger.builder, spec("report"), one(risky, allow_failure=True))
        ledger.plan()
        ledger.ended(0, FAILED)
        assert ledger.state(report) == PENDING
        assert risky[0].handled == {0}

    def test_that_may_fail_handle_nothing_for_one_that_does_not_run(self) -> None:
        ledger = Ledger()
        risky, needed = add(ledger.builder, spec("risky")), add(ledger.builder, spec("needed"))
        report = add(ledger.builder, spec("report"), one(risky, allow_failure=True), one(needed))
        ledger.plan()
        ledger.run_all(FAILED)
        assert ledger.state(report) == StateType.UPSTREAM_FAILED
        assert report[0].roots[0] == ((needed[0], 0),)
        assert not risky[0].handled

    def test_of_a_later_segment_see_what_has_happened(self) -> None:
        ledger = Ledger()
        first = add(ledger.builder, spec("first"))
        ledger.plan()
        ledger.ended(0, FAILED)
        second = add(ledger.builder, spec("second"), one(first))
        ledger.plan()
        assert ledger.state(second) == StateType.UPSTREAM_FAILED

    def test_cannot_be_planned_twice(self) -> None:
        ledger = Ledger()
        add(ledger.builder, spec())
        plan = compile_segment(ledger.builder.take())
        ledger.tell(SegmentPlanned(plan))
        with pytest.raises(InternalError, match="group 0 of run run was planned twice"):
            ledger.tell(SegmentPlanned(plan))
