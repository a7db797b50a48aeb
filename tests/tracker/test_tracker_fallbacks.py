"""What takes the place of a failure. The ledger checks the invariants throughout."""

import pytest

from raysched.model.options import Fallback, RetryOptions, TaskSpec
from raysched.model.states import StateType
from raysched.model.values import TimeoutKind
from raysched.tracker import verdict
from raysched.tracker.messages import (
    CancelRequested,
    CapacityKnown,
    MembersCancelled,
    UnitHandedBack,
)
from tracker.evidence import LOST
from tracker.graphs import add, add_map, one, spec
from tracker.invariants import nothing_is_left
from tracker.ledger import Ledger
from tracker.stories import ledger_of, wait

COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
CANCELLED, PENDING, TIMED_OUT = StateType.CANCELLED, StateType.PENDING, StateType.TIMED_OUT
AWAITING_RETRY, UPSTREAM_FAILED = StateType.AWAITING_RETRY, StateType.UPSTREAM_FAILED
CANCELLING = StateType.CANCELLING

VALUE = Fallback(b"instead")


def by_task(**options: object) -> Fallback:
    """A fallback that is a task of its own."""
    return Fallback(spec=spec("instead", RetryOptions(crash_retries=1), **options))


class TestByValue:
    def test_completes_with_it_after_the_last_attempt(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(retries=1), fallback=VALUE, hooks=True))
        (group,) = ledger.groups
        ledger.ended(0, FAILED)
        assert ledger.states((group, [0])) == [PENDING]
        ledger.ended(1, FAILED)
        assert ledger.states((group, [0])) == [COMPLETED]
        assert group.values[0] == b"instead"
        assert group.reasons[0] == "its fallback took its place"
        assert [row.state for row in ledger.attempts] == [FAILED, FAILED]
        assert ledger.attempts[-1].stop_reason == "all 1 retries used; then the fallback"
        assert [kind for *_, kind in ledger.hooks] == ["on_running", "on_completion"]
        nothing_is_left(ledger)

    def test_counts_as_a_handled_failure(self) -> None:
        ledger = ledger_of(spec(fallback=VALUE), spec("fine", fallback=VALUE))
        ledger.ended(0, FAILED)
        ledger.run_all()
        found = verdict(ledger.run)
        assert (found.unhandled, found.handled) == ((), 1)
        assert ledger.groups[0].handled == {0}

    def test_is_given_to_what_needs_it(self) -> None:
        ledger = Ledger()
        first = add(ledger.builder, spec("first", fallback=VALUE))
        second = add(ledger.builder, spec("second", batch=False), one(first))
        ledger.plan()
        ledger.ended(0, FAILED)
        assert ledger.state(second) == PENDING

    def test_is_not_for_what_only_followed_or_was_cancelled(self) -> None:
        ledger = Ledger()
        first = add(ledger.builder, spec("first"))
        second = add(ledger.builder, spec("second", fallback=VALUE), one(first))
        third = add(ledger.builder, spec("third", fallback=VALUE))
        ledger.plan()
        ledger.ended(0, FAILED)
        assert ledger.state(second) == UPSTREAM_FAILED
        ledger.tell(MembersCancelled(third[0], [0], "me"))
        ledger.run_all(CANCELLED)
        assert ledger.state(third) == CANCELLED

    @pytest.mark.parametrize("running", [True, False])
    def test_is_not_for_what_fails_in_a_run_that_was_cancelled(self, *, running: bool) -> None:
        ledger = ledger_of(spec(fallback=VALUE))
        ledger.started(0)
        ledger.tell(CancelRequested("Ctrl-C", running=running))
        ledger.ended(0, FAILED)
        assert ledger.states((ledger.groups[0], [0])) == [FAILED]

    def test_follows_a_crash_that_used_up_its_budget(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(crash_retries=0), fallback=VALUE))
        ledger.lost(0)
        assert ledger.states((ledger.groups[0], [0])) == [COMPLETED]
        assert [row.state for row in ledger.attempts] == [CRASHED]


class TestByTask:
    def test_runs_with_its_own_options_under_the_tasks_name(self) -> None:
        instead = by_task(ray={"num_gpus": 1})
        ledger = ledger_of(spec("load", ray={"num_cpus": 4}, tags=("a",), fallback=instead))
        (group,) = ledger.groups
        ledger.ended(0, FAILED)
        (command,) = ledger.units.values()
        assert command.variant is not None
        assert (command.variant.name, command.variant.tags) == ("load", ("a",))
        assert command.variant.ray == {"num_gpus": 1}
        assert ledger.asked[-1].scheduling_class == (("num_gpus", "1"),)
        assert list(command.attempts) == [2]
        ledger.run_all()
        assert ledger.states((group, [0])) == [COMPLETED]
        assert group.reasons[0] == "its fallback, instead, took its place"
        assert [(row.attempt, row.state) for row in ledger.attempts] == [
            (1, FAILED),
            (2, COMPLETED),
        ]

    def test_runs_in_a_unit_of_its_own(self) -> None:
        ledger = Ledger(slots=1)
        (part,) = add_map(ledger.builder, spec(fallback=by_task()), range(3))
        add_map(ledger.builder, spec("then"), part)
        ledger.plan(unit_size=3)
        ledger.ended(0, FAILED, FAILED, FAILED)
        for command in ledger.units.values():
            assert (len(command.indices), command.riders) == (1, ())
            assert command.variant is not None
        assert len({id(command.variant) for command in ledger.units.values()}) == 1
        ledger.run_all()
        nothing_is_left(ledger)

    def test_that_fails_is_how_it_ends_whatever_retries_are_left(self) -> None:
        instead = Fallback(spec=spec("instead", RetryOptions(retries=5)))
        ledger = ledger_of(spec(fallback=instead))
        (group,) = ledger.groups
        ledger.ended(0, FAILED)
        ledger.ended(1, TIMED_OUT)
        assert ledger.states((group, [0])) == [TIMED_OUT]
        assert verdict(ledger.run).unhandled == ((group, 0),)
        assert 0 not in group.handled
        nothing_is_left(ledger)

    def test_that_crashes_has_a_budget_of_its_own(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(crash_retries=1), fallback=by_task()))
        (group,) = ledger.groups
        for crash in range(3):
            assert ledger.wake_for_units()
            ledger.lost(crash)
        assert ledger.states((group, [0])) == [AWAITING_RETRY]
        assert ledger.wake_for_units()
        assert ledger.units[3].variant is not None
        ledger.ended(3, COMPLETED)
        assert [row.state for row in ledger.attempts] == [CRASHED, CRASHED, CRASHED, COMPLETED]
        assert ledger.states((group, [0])) == [COMPLETED]

    def test_that_crashes_again_and_again_ends_crashed(self) -> None:
        ledger = ledger_of(spec(retry=RetryOptions(crash_retries=0), fallback=by_task()))
        for crash in range(3):
            assert ledger.wake_for_units()
            ledger.lost(crash)
        assert ledger.states((ledger.groups[0], [0])) == [CRASHED]
        assert ledger.attempts[-1].stop_reason == "all 1 crash_retries used"
        nothing_is_left(ledger)

    @pytest.mark.parametrize("suspected", [False, True])
    def test_that_comes_back_unbegun_is_still_what_runs(self, *, suspected: bool) -> None:
        ledger = ledger_of(spec(fallback=by_task()), slots=1)
        ledger.ended(0, FAILED)
        if suspected:
            ledger.lost(1, LOST)
            assert ledger.wake_for_units()
        else:
            ledger.tell(UnitHandedBack(1, [0]))
        (command,) = ledger.units.values()
        assert command.variant is not None
        assert command.variant.fn is print
        assert list(command.attempts) == [3 if suspected else 2]

    def test_may_be_cancelled(self) -> None:
        ledger = ledger_of(spec(fallback=by_task(ray={"num_gpus": 1})), slots=None)
        ledger.tell(CapacityKnown((), 1))
        ledger.ended(0, FAILED)
        (group,) = ledger.groups
        assert ledger.states((group, [0])) == [PENDING]
        ledger.tell(MembersCancelled(group, [0], "me"))
        assert ledger.states((group, [0])) == [CANCELLED]
        nothing_is_left(ledger)


class TestAfterALimitOfTime:
    """A fallback is for whatever failed for good, so also for what took too long."""

    def tasks(self, fallback: Fallback) -> list[TaskSpec]:
        return [
            spec("queued", fallback=fallback, queue_timeout_seconds=2.0),
            spec("slow", fallback=fallback, total_timeout_seconds=2.0),
        ]

    @pytest.mark.parametrize("which", [0, 1])
    def test_of_what_was_not_dispatched(self, which: int) -> None:
        ledger = ledger_of(self.tasks(VALUE)[which], slots=0)
        (group,) = ledger.groups
        wait(ledger, 2)
        assert ledger.states((group, [0])) == [COMPLETED]
        assert group.reasons[0] == "its fallback took its place"
        assert verdict(ledger.run).handled == 1
        nothing_is_left(ledger)

    @pytest.mark.parametrize("told", [CANCELLED, FAILED])
    @pytest.mark.parametrize("which", [0, 1])
    def test_of_what_was_stopped(self, which: int, told: StateType) -> None:
        ledger = ledger_of(self.tasks(VALUE)[which])
        (group,) = ledger.groups
        wait(ledger, 2)
        assert ledger.states((group, [0])) == [CANCELLING]
        ledger.ended(0, told)
        assert ledger.states((group, [0])) == [COMPLETED]
        (row,) = ledger.attempts
        assert row.state == TIMED_OUT
        assert row.error is not None
        assert row.error.kind == (TimeoutKind.TOTAL if which else TimeoutKind.QUEUED)
        nothing_is_left(ledger)

    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.parametrize("how", ["queued", "handed back", "stopped"])
    def test_by_a_task_that_then_runs(self, which: int, how: str) -> None:
        task = self.tasks(by_task(ray={"num_gpus": 1}))[which]
        ledger = ledger_of(task, slots=None)
        (group,) = ledger.groups
        ledger.tell(CapacityKnown((), int(how != "queued")))
        wait(ledger, 2)
        if how == "stopped":
            ledger.ended(0, CANCELLED)
        elif how == "handed back":
            ledger.tell(UnitHandedBack(0, [0]))
        assert ledger.states((group, [0])) == [PENDING]
        ledger.tell(CapacityKnown((("num_gpus", "1"),), 1))
        (command,) = ledger.units.values()
        assert command.variant is not None
        ledger.run_all()
        assert ledger.states((group, [0])) == [COMPLETED]
        nothing_is_left(ledger)

    def test_has_a_time_in_the_queue_of_its_own(self) -> None:
        fallback = by_task(ray={"num_gpus": 1})
        ledger = ledger_of(spec(fallback=fallback, queue_timeout_seconds=2.0), slots=None)
        (group,) = ledger.groups
        ledger.tell(CapacityKnown((), 1))
        ledger.started(0)
        wait(ledger, 1)
        ledger.ended(0, FAILED)
        wait(ledger, 1.5)
        assert ledger.states((group, [0])) == [PENDING]
        wait(ledger, 0.5)
        assert ledger.states((group, [0])) == [TIMED_OUT]

    def test_is_not_for_what_is_cancelled_with_its_run_meanwhile(self) -> None:
        ledger = ledger_of(spec(fallback=by_task(), total_timeout_seconds=2.0))
        wait(ledger, 2)
        ledger.tell(CancelRequested("Ctrl-C"))
        ledger.ended(0, CANCELLED)
        assert ledger.states((ledger.groups[0], [0])) == [TIMED_OUT]
        nothing_is_left(ledger)
