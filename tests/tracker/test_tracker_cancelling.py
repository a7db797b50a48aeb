"""Cancelling, limits and handling, told one story a test. The ledger checks the invariants."""

import pytest

from raysched.errors import IllegalTransition
from raysched.model.options import RetryOptions
from raysched.model.states import StateType
from raysched.tracker import Run
from raysched.tracker.messages import (
    AbortUnit,
    CancelRequested,
    CapacityKnown,
    FailuresHandled,
    FlowRestarted,
)
from raysched.tracker.transitions import TRANSITIONS, move
from tracker.evidence import STOPPED
from tracker.graphs import add, add_map, one, spec
from tracker.invariants import nothing_is_left
from tracker.ledger import Ledger
from tracker.stories import ledger_of

COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
CANCELLED, RUNNING, PENDING = StateType.CANCELLED, StateType.RUNNING, StateType.PENDING


class TestCancelling:
    def test_while_a_question_is_open_ends_with_the_failure(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(retries=2, condition=lambda *_: True)))
        ledger.run_all(FAILED)
        (question,) = ledger.questions.values()
        ledger.tell(CancelRequested("Ctrl-C"))
        assert ledger.groups[0].states[0] == FAILED
        assert ledger.attempts[-1].stop_reason == "cancelled by Ctrl-C"
        ledger.answer(question, retry=True)
        assert ledger.run.late == 1
        assert ledger.groups[0].states[0] == FAILED

    def test_while_a_retry_waits_keeps_the_row_of_its_failed_attempt(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(retries=1, delays=(60.0,))))
        ledger.run_all(FAILED)
        ledger.tell(CancelRequested("Ctrl-C"))
        assert ledger.groups[0].states[0] == CANCELLED
        assert [row.state for row in ledger.attempts] == [FAILED]
        assert not ledger.run.timers

    def test_to_drain_lets_what_runs_end_and_begins_nothing(self) -> None:
        task = spec(retry=RetryOptions(retries=3))
        ledger = ledger_of(task, task, slots=1, max_parallel=1)
        child = add(ledger.builder, spec("child"), one((ledger.groups[0], range(1))))
        ledger.plan()
        ledger.started(0)
        ledger.tell(CancelRequested("the flow's failure", running=False))
        group = ledger.groups[0]
        assert ledger.states((group, range(2))) == [RUNNING, CANCELLED]
        assert ledger.state(child) == CANCELLED
        assert not ledger.aborted
        ledger.ended(0, FAILED)
        assert group.states[0] == FAILED
        assert not ledger.wake_for_units()
        nothing_is_left(ledger)

    def test_what_runs_waits_for_the_worker(self) -> None:
        ledger = ledger_of(spec(), spec())
        ledger.started(0)
        ledger.tell(CancelRequested("Ctrl-C"))
        assert ledger.state((ledger.groups[0], range(1))) == StateType.CANCELLING
        assert ledger.aborted == {0: False, 1: False}
        ledger.ended(0, CANCELLED)
        ledger.ended(1, COMPLETED)
        assert [group.states[0] for group in ledger.groups] == [CANCELLED, COMPLETED]

    def test_by_force_tells_the_units_again(self) -> None:
        ledger = ledger_of(spec())
        ledger.tell(CancelRequested("Ctrl-C"))
        commands = ledger.tell(CancelRequested("Ctrl-C", force=True))
        assert AbortUnit(0, force=True) in commands
        ledger.lost(0, STOPPED)
        assert ledger.groups[0].states[0] == CANCELLED

    def test_cancels_also_what_is_recorded_later(self) -> None:
        ledger = ledger_of(spec())
        ledger.tell(CancelRequested("Ctrl-C"))
        late = add(ledger.builder, spec("late"))
        ledger.plan()
        assert ledger.state(late) == CANCELLED

    def test_is_over_when_the_flow_begins_again(self) -> None:
        ledger = ledger_of(spec())
        child = add(ledger.builder, spec("child"), one((ledger.groups[0], range(1))))
        ledger.plan()
        ledger.tell(CancelRequested("the flow's failure"))
        ledger.tell(FlowRestarted())
        again = add(ledger.builder, spec("again"))
        ledger.plan()
        assert ledger.state(again) == PENDING
        # The last of the earlier attempt's: what waited for it was cancelled and stays so.
        ledger.ended(0, COMPLETED)
        assert ledger.state(child) == CANCELLED
        assert ledger.state(again) == PENDING

    def test_a_unit_lost_meanwhile_cancels_its_suspects(self) -> None:
        ledger = Ledger(slots=1)
        add_map(ledger.builder, spec(), range(2))
        ledger.plan(unit_size=2)
        ledger.started(0)
        ledger.tell(CancelRequested("the flow's failure", running=False))
        ledger.lost(0)
        assert ledger.states((ledger.groups[0], range(2))) == [CANCELLED, CANCELLED]


class TestCapacity:
    def test_of_nothing_is_asked_for_again_by_the_clock(self) -> None:
        ledger = ledger_of(spec("cpu"), spec("gpu", ray={"num_gpus": 1}), slots=0)
        asked = len(ledger.asked)
        for _ in range(5):
            ledger.wake()
        assert len(ledger.asked) == asked + 10
        assert len(ledger.wakes) == 1

    def test_one_class_does_not_wait_for_another(self) -> None:
        ledger = Ledger(slots=None)
        gpu = add(ledger.builder, spec("gpu", ray={"num_gpus": 1}))
        cpu = add(ledger.builder, spec("cpu"))
        ledger.plan()
        ledger.tell(CapacityKnown((("num_gpus", "1"),), 0, "num_gpus=1; the cluster has 0"))
        ledger.tell(CapacityKnown((), 2))
        assert not ledger.sent(gpu[0])
        assert ledger.sent(cpu[0]) == [0]

    def test_that_grows_lets_more_begin(self) -> None:
        ledger = Ledger(slots=1)
        (part,) = add_map(ledger.builder, spec(), range(40))
        ledger.plan()
        before = len(ledger.units)
        ledger.slots = 5
        ledger.wake()
        assert before == 2
        assert len(ledger.units) == 10
        assert ledger.sent(part[0]) == list(range(10))

    def test_max_parallel_holds_whatever_the_cluster_offers(self) -> None:
        ledger = Ledger(Run("run", max_parallel=3), slots=100)
        add_map(ledger.builder, spec(is_async=True), range(10))
        ledger.plan()
        assert ledger.run.running == 3

    def test_units_of_many_spread_over_the_slots(self) -> None:
        ledger = Ledger(slots=4)
        add_map(ledger.builder, spec(is_async=True), range(100))
        ledger.plan()
        assert [len(unit.indices) for unit in ledger.units.values()][:2] == [25, 19]


class TestHandling:
    def test_is_noted_once_and_only_for_failures(self) -> None:
        ledger = Ledger(slots=2)
        (part,) = add_map(ledger.builder, spec(), range(2))
        ledger.plan()
        ledger.ended(0, FAILED)
        ledger.ended(1, COMPLETED)
        group = part[0]
        assert len(ledger.tell(FailuresHandled(group, [0, 1]))) == 1
        assert group.handled == {0}
        assert not ledger.tell(FailuresHandled(group, [0, 1]))


class TestTransitions:
    def test_tell_the_story_of_an_illegal_one(self) -> None:
        ledger = ledger_of(spec("parse"))
        ledger.run_all()
        with pytest.raises(IllegalTransition, match=r"parse\[0\]: COMPLETED -> RUNNING is illegal"):
            move(ledger.groups[0], 0, RUNNING)

    def test_nothing_leaves_a_terminal_state(self) -> None:
        assert not any(state.is_terminal for state in TRANSITIONS)
        assert {state for state in StateType if not state.is_terminal} - {StateType.PAUSED} == set(
            TRANSITIONS
        )
