"""What takes too long in a queue, or in all. The ledger checks the invariants throughout."""

import pytest

from raysched.model.options import RetryOptions
from raysched.model.states import StateType
from raysched.model.values import FailureClass, TimeoutKind
from raysched.tracker.messages import CapacityKnown, UnitHandedBack
from tracker.evidence import STOPPED, failure
from tracker.graphs import add, add_map, one, spec
from tracker.invariants import nothing_is_left
from tracker.ledger import Ledger
from tracker.stories import fail_with, ledger_of, wait

COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
CANCELLED, RUNNING, PENDING = StateType.CANCELLED, StateType.RUNNING, StateType.PENDING
CANCELLING, TIMED_OUT = StateType.CANCELLING, StateType.TIMED_OUT
AWAITING_RETRY, UPSTREAM_FAILED = StateType.AWAITING_RETRY, StateType.UPSTREAM_FAILED

GPU = (("num_gpus", "1"),)
NO_GPU = "num_gpus=1; the cluster has 0"


class TestInTheQueue:
    def test_what_was_not_dispatched_ends_without_an_attempt(self) -> None:
        ledger = ledger_of(spec("gpu", queue_timeout_seconds=2.0), slots=0)
        (group,) = ledger.groups
        wait(ledger, 1.5)
        assert ledger.states((group, [0])) == [PENDING]
        wait(ledger, 0.5)
        error = group.errors[0]
        assert ledger.states((group, [0])) == [TIMED_OUT]
        assert (error.failure_class, error.kind) == (FailureClass.TIMEOUT, TimeoutKind.QUEUED)
        assert error.message == "gpu[0]: queue_timeout_seconds=2 passed"
        assert group.reasons[0] == "queue_timeout_seconds=2 passed"
        assert (group.attempts[0], group.ended[0]) == (0, ledger.now)
        assert not ledger.attempts
        nothing_is_left(ledger)

    def test_the_message_names_what_the_cluster_lacks(self) -> None:
        task = spec("gpu", ray={"num_gpus": 1}, queue_timeout_seconds=2.0)
        ledger = ledger_of(task, slots=None)
        ledger.tell(CapacityKnown(GPU, 0, NO_GPU))
        wait(ledger, 2)
        message = ledger.groups[0].errors[0].message
        assert message == f"gpu[0]: queue_timeout_seconds=2 passed: it needs {NO_GPU}"

    def test_of_an_attempt_with_options_of_its_own_it_names_what_that_one_lacks(self) -> None:
        options: tuple[dict[str, int], ...] = ({}, {"num_gpus": 1})
        retry = RetryOptions(retries=1)
        task = spec("t", retry, ray_by_attempt=options, queue_timeout_seconds=2.0)
        ledger = ledger_of(task, slots=None)
        ledger.tell(CapacityKnown((), 1))
        ledger.ended(0, FAILED)
        ledger.tell(CapacityKnown(GPU, 0, NO_GPU))
        wait(ledger, 2)
        (group,) = ledger.groups
        assert ledger.states((group, [0])) == [TIMED_OUT]
        assert group.errors[0].message == (
            f"t[0]: queue_timeout_seconds=2 passed: it needs {NO_GPU}; "
            "the last attempt failed with builtins.ValueError: broken"
        )

    def test_what_was_dispatched_and_has_not_begun_is_stopped_alone(self) -> None:
        ledger = Ledger(slots=1)
        add_map(ledger.builder, spec(queue_timeout_seconds=2.0), range(3))
        ledger.plan(unit_size=3)
        (group,) = ledger.groups
        ledger.started(0, [0])
        wait(ledger, 2)
        assert ledger.states((group, range(3))) == [RUNNING, CANCELLING, CANCELLING]
        assert ledger.stopped == {0: {1, 2}}
        ledger.ended(0, COMPLETED, CANCELLED, CANCELLED)
        assert ledger.states((group, range(3))) == [COMPLETED, TIMED_OUT, TIMED_OUT]
        assert group.errors[1].kind == TimeoutKind.QUEUED
        nothing_is_left(ledger)

    @pytest.mark.parametrize("how", ["handed back", "lost"])
    def test_one_that_turns_out_not_to_have_begun_ends_as_if_queued(self, how: str) -> None:
        ledger = ledger_of(spec(queue_timeout_seconds=2.0), slots=1)
        (group,) = ledger.groups
        wait(ledger, 2)
        assert ledger.states((group, [0])) == [CANCELLING]
        if how == "lost":
            ledger.lost(0, STOPPED)
        else:
            ledger.tell(UnitHandedBack(0, [0]))
        assert ledger.states((group, [0])) == [TIMED_OUT]
        assert group.errors[0].kind == TimeoutKind.QUEUED
        nothing_is_left(ledger)

    def test_what_has_begun_has_all_the_time(self) -> None:
        ledger = ledger_of(spec(queue_timeout_seconds=2.0))
        ledger.started(0)
        wait(ledger, 100)
        assert ledger.states((ledger.groups[0], [0])) == [RUNNING]
        assert not ledger.stopped

    def test_each_retry_waits_anew(self) -> None:
        task = spec(retry=RetryOptions(retries=1, delays=(10.0,)), queue_timeout_seconds=2.0)
        ledger = ledger_of(task)
        (group,) = ledger.groups
        wait(ledger, 1)
        ledger.started(0)
        wait(ledger, 5)
        ledger.ended(0, FAILED)
        ledger.slots = 0
        ledger.tell(CapacityKnown((), 0))
        wait(ledger, 11.5)
        assert ledger.states((group, [0])) == [PENDING]
        wait(ledger, 0.5)
        assert ledger.states((group, [0])) == [TIMED_OUT]
        assert (ledger.attempts[0].attempt, ledger.attempts[0].state) == (1, FAILED)

    def test_only_those_end_that_have_waited_so_long(self) -> None:
        """Members of one group become ready at different times, by what they need."""
        ledger = Ledger(slots=None)
        gpu = spec("gpu", ray={"num_gpus": 1}, queue_timeout_seconds=4.0)
        (loads,) = add_map(ledger.builder, spec("load"), range(2))
        (part,) = add_map(ledger.builder, gpu, loads)
        ledger.plan()
        ledger.tell(CapacityKnown((), 2))
        ledger.tell(CapacityKnown(GPU, 0, NO_GPU))
        ledger.ended(0, COMPLETED)
        wait(ledger, 3)
        ledger.ended(1, COMPLETED)
        wait(ledger, 2)
        assert ledger.states(part) == [TIMED_OUT, PENDING]
        wait(ledger, 2)
        assert ledger.states(part) == [TIMED_OUT, TIMED_OUT]

    def test_what_needs_it_names_it_as_the_root(self) -> None:
        ledger = Ledger(slots=0)
        first = add(ledger.builder, spec("first", queue_timeout_seconds=2.0))
        second = add(ledger.builder, spec("second"), one(first))
        ledger.plan()
        wait(ledger, 2)
        assert ledger.state(second) == UPSTREAM_FAILED
        assert second[0].roots[0] == ((first[0], 0),)


class TestInAll:
    def test_ends_what_is_queued(self) -> None:
        ledger = ledger_of(spec("t", total_timeout_seconds=3.0), slots=0)
        (group,) = ledger.groups
        wait(ledger, 3)
        assert ledger.states((group, [0])) == [TIMED_OUT]
        assert group.errors[0].kind == TimeoutKind.TOTAL
        assert group.errors[0].message == "t[0]: total_timeout_seconds=3 passed"

    def three_in_a_unit(self) -> Ledger:
        """Of three in one unit the second has run too long, and was told to stop."""
        ledger = Ledger(slots=1)
        add_map(ledger.builder, spec(total_timeout_seconds=3.0), range(3))
        ledger.plan(unit_size=3)
        ledger.ended(0, COMPLETED)
        ledger.started(0, [1])
        wait(ledger, 3)
        return ledger

    def test_stops_what_runs_and_what_is_behind_it_in_its_unit(self) -> None:
        ledger = self.three_in_a_unit()
        assert ledger.stopped == {0: {1, 2}}
        assert ledger.states((ledger.groups[0], range(3))) == [COMPLETED, CANCELLING, CANCELLING]

    @pytest.mark.parametrize("told", [CANCELLED, FAILED, TIMED_OUT, CRASHED])
    def test_is_what_it_ends_with_whatever_the_worker_tells(self, told: StateType) -> None:
        task = spec(retry=RetryOptions(retries=5), total_timeout_seconds=3.0)
        ledger = ledger_of(task)
        (group,) = ledger.groups
        ledger.started(0)
        wait(ledger, 3)
        fail_with(ledger, 0, failure(told, "told"))
        error = group.errors[0]
        assert ledger.states((group, [0])) == [TIMED_OUT]
        assert (error.failure_class, error.kind) == (FailureClass.TIMEOUT, TimeoutKind.TOTAL)
        assert error.type == "raysched.errors.TaskRunTimedOut"
        (row,) = ledger.attempts
        assert (row.state, row.stop_reason) == (TIMED_OUT, "total_timeout_seconds=3 passed")
        nothing_is_left(ledger)

    def test_does_not_undo_what_completed_before_it_was_stopped(self) -> None:
        ledger = self.three_in_a_unit()
        ledger.ended(0, COMPLETED, CANCELLED, positions=[1, 2])
        assert ledger.states((ledger.groups[0], range(3))) == [COMPLETED, COMPLETED, TIMED_OUT]
        nothing_is_left(ledger)

    def test_ends_what_is_lost_with_its_worker(self) -> None:
        ledger = self.three_in_a_unit()
        ledger.lost(0)
        assert ledger.states((ledger.groups[0], range(3))) == [COMPLETED, TIMED_OUT, TIMED_OUT]

    def test_ends_what_awaits_a_retry_and_tells_its_last_failure(self) -> None:
        task = spec("t", RetryOptions(retries=1, delays=(60.0,)), total_timeout_seconds=3.0)
        ledger = ledger_of(task)
        (group,) = ledger.groups
        ledger.run_all(FAILED)
        wait(ledger, 3)
        assert ledger.states((group, [0])) == [TIMED_OUT]
        assert group.errors[0].message == (
            "t[0]: total_timeout_seconds=3 passed; "
            "the last attempt failed with builtins.ValueError: broken"
        )
        wait(ledger, 100)
        assert not ledger.units

    def test_ends_what_is_being_asked_about_and_tells_its_failure(self) -> None:
        task = spec("t", RetryOptions(2, condition=lambda *_: True), total_timeout_seconds=3.0)
        ledger = ledger_of(task)
        (group,) = ledger.groups
        ledger.run_all(FAILED)
        (question,) = ledger.questions.values()
        wait(ledger, 3)
        assert ledger.states((group, [0])) == [TIMED_OUT]
        assert "the last attempt failed with builtins.ValueError: broken" in group.errors[0].message
        ledger.answer(question, retry=True)
        assert ledger.run.late == 1
        nothing_is_left(ledger)

    def test_counts_from_the_first_time_on_over_all_attempts(self) -> None:
        task = spec(retry=RetryOptions(retries=100, delays=(1.0,)), total_timeout_seconds=3.5)
        ledger = ledger_of(task)
        (group,) = ledger.groups
        for _ in range(3):
            ledger.run_all(FAILED)
            wait(ledger, 1)
        assert ledger.states((group, [0])) == [PENDING]
        wait(ledger, 0.5)
        assert ledger.states((group, [0])) == [CANCELLING]
        ledger.run_all(CANCELLED)
        assert (ledger.states((group, [0])), group.attempts[0]) == ([TIMED_OUT], 4)

    def test_begins_when_what_it_needs_has_ended(self) -> None:
        ledger = Ledger(slots=1)
        first = add(ledger.builder, spec("first"))
        second = add(
            ledger.builder, spec("second", batch=False, total_timeout_seconds=3.0), one(first)
        )
        ledger.plan()
        wait(ledger, 100)
        assert ledger.state(second) == StateType.SCHEDULED
        ledger.ended(0, COMPLETED)
        wait(ledger, 2)
        assert ledger.state(second) == PENDING
        wait(ledger, 1)
        assert ledger.state(second) == CANCELLING

    def test_begins_for_what_rides_when_what_it_needs_has_ended(self) -> None:
        ledger = Ledger(slots=1)
        ledger.run.unit_size = 1
        first = add(ledger.builder, spec("first"))
        second = add(ledger.builder, spec("second", total_timeout_seconds=3.0), one(first))
        ledger.plan()
        assert ledger.units[0].riders
        wait(ledger, 100)
        ledger.ended(0, COMPLETED)
        wait(ledger, 2)
        ledger.started(0)
        assert ledger.state(second) == RUNNING
        wait(ledger, 1)
        assert (ledger.state(second), ledger.stopped) == (CANCELLING, {0: {1}})
        ledger.ended(0, CANCELLED, positions=[1])
        assert ledger.state(second) == TIMED_OUT
        nothing_is_left(ledger)
