"""What attempts ask Ray for that follow others. The ledger checks the invariants throughout."""

from dataclasses import replace

from raysched.model.options import Escalation, RetryOptions
from raysched.model.states import StateType
from raysched.model.values import CrashKind, ErrorInfo
from raysched.tracker.messages import AskCapacity, CapacityKnown, UnitHandedBack
from tracker.evidence import LOST
from tracker.graphs import add_map, spec
from tracker.invariants import nothing_is_left
from tracker.ledger import Ledger
from tracker.stories import ledger_of

COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
PENDING, AWAITING_RETRY = StateType.PENDING, StateType.AWAITING_RETRY

OUT_OF_MEMORY = replace(LOST, kind=CrashKind.OUT_OF_MEMORY)


def asked_for(ledger: Ledger, unit: int) -> object:
    """Return the memory that a unit is dispatched with."""
    command = ledger.units[unit]
    return (command.variant or command.group.spec).ray.get("memory")


class TestByAttempt:
    OPTIONS: tuple[dict[str, int], ...] = ({}, {"memory": 2}, {"memory": 3})

    def test_each_has_those_of_its_number_and_the_last_ones_repeat(self) -> None:
        retry = RetryOptions(retries=3)
        ledger = ledger_of(spec(retry=retry, ray_by_attempt=self.OPTIONS))
        seen = []
        while ledger.units:
            (unit,) = ledger.units
            seen.append(asked_for(ledger, unit))
            ledger.ended(unit, FAILED)
        assert seen == [None, 2, 3, 3]
        nothing_is_left(ledger)

    def test_crashes_count_too(self) -> None:
        ledger = ledger_of(spec(ray_by_attempt=self.OPTIONS))
        ledger.lost(0)
        assert ledger.wake_for_units()
        assert asked_for(ledger, 1) == 2

    def test_they_wait_in_a_queue_of_their_class_for_which_the_capacity_is_asked(self) -> None:
        retry = RetryOptions(retries=1)
        options: tuple[dict[str, int], ...] = ({}, {"num_gpus": 1})
        ledger = ledger_of(spec(retry=retry, ray_by_attempt=options), slots=None)
        (group,) = ledger.groups
        ledger.tell(CapacityKnown((), 1))
        ledger.ended(0, FAILED)
        (asked,) = [each for each in ledger.commands if isinstance(each, AskCapacity)]
        assert asked.scheduling_class == (("num_gpus", "1"),)
        assert asked.spec.ray == {"num_gpus": 1}
        assert ledger.states((group, [0])) == [PENDING]
        assert not ledger.units
        ledger.tell(CapacityKnown((("num_gpus", "1"),), 1))
        assert ledger.sent(group) == [0]

    def test_they_hold_up_nobody_else(self) -> None:
        """What asks for more than there is waits beside the others of its group."""
        retry = RetryOptions(retries=1)
        options: tuple[dict[str, int], ...] = ({}, {"num_gpus": 1})
        ledger = Ledger(slots=None)
        add_map(ledger.builder, spec(retry=retry, ray_by_attempt=options), range(4))
        ledger.plan()
        (group,) = ledger.groups
        ledger.tell(CapacityKnown((), 1))
        ledger.ended(min(ledger.units), FAILED)
        ledger.run_all()
        assert ledger.states((group, range(4))) == [PENDING, *[COMPLETED] * 3]

    def test_equal_ones_share_a_queue_and_run_one_by_one(self) -> None:
        ledger = Ledger(slots=8)
        retry = RetryOptions(retries=1)
        (part,) = add_map(ledger.builder, spec(retry=retry, ray_by_attempt=self.OPTIONS), range(3))
        add_map(ledger.builder, spec("then"), part)
        ledger.plan(unit_size=3)
        for unit in sorted(ledger.units):
            ledger.ended(unit, *[FAILED] * len(ledger.unanswered[unit]))
        commands = list(ledger.units.values())
        assert [list(command.indices) for command in commands] == [[0], [1], [2]]
        assert not any(command.riders for command in commands)
        assert len({id(command.variant) for command in commands}) == 1
        assert len(ledger.run.lanes) == 2

    def test_those_of_the_group_are_no_variant(self) -> None:
        retry = RetryOptions(retries=2)
        ledger = ledger_of(spec(retry=retry, ray_by_attempt=({}, {"memory": 2}, {})))
        ledger.ended(0, FAILED)
        ledger.ended(1, FAILED)
        assert ledger.units[2].variant is None

    def test_what_is_handed_back_keeps_them(self) -> None:
        retry = RetryOptions(retries=1)
        ledger = ledger_of(spec(retry=retry, ray_by_attempt=self.OPTIONS), slots=1)
        ledger.ended(0, FAILED)
        ledger.tell(UnitHandedBack(1, [0]))
        assert (asked_for(ledger, 2), list(ledger.units[2].attempts)) == (2, [2])

    def test_the_limit_of_the_task_holds_for_them(self) -> None:
        ledger = Ledger(slots=8)
        retry = RetryOptions(retries=1)
        add_map(ledger.builder, spec(retry=retry, ray_by_attempt=self.OPTIONS), range(4))
        ledger.plan(max_parallel=2)
        for unit in sorted(ledger.units):
            ledger.ended(unit, FAILED)
        assert len(ledger.units) == 2


class TestEscalation:
    def memories(self, up_to: int, errors: list[ErrorInfo]) -> list[object]:
        """Return what each attempt asks for, where these follow upon each other."""
        retry = RetryOptions(retries=2, crash_retries=9, on_oom=Escalation(2, up_to))
        ledger = ledger_of(spec(retry=retry, ray={"memory": 100}))
        seen = [asked_for(ledger, 0)]
        for unit, error in enumerate(errors):
            ledger.lost(unit, error)
            assert ledger.wake_for_units()
            seen.append(asked_for(ledger, unit + 1))
        ledger.run_all()
        nothing_is_left(ledger)
        return seen

    def test_multiplies_with_each_kill_up_to_its_limit(self) -> None:
        assert self.memories(700, [OUT_OF_MEMORY] * 4) == [100, 200, 400, 700, 700]

    def test_does_not_follow_other_crashes(self) -> None:
        assert self.memories(700, [LOST, OUT_OF_MEMORY, LOST]) == [100, 100, 200, 200]

    def test_never_asks_for_less(self) -> None:
        assert self.memories(50, [OUT_OF_MEMORY]) == [100, 100]

    def test_costs_a_crash_and_no_retry(self) -> None:
        retry = RetryOptions(retries=1, crash_retries=1, on_oom=Escalation(2, 1000))
        ledger = ledger_of(spec(retry=retry, ray={"memory": 100}))
        ledger.lost(0, OUT_OF_MEMORY)
        assert ledger.wake_for_units()
        ledger.ended(1, FAILED)
        assert asked_for(ledger, 2) == 200
        ledger.lost(2, OUT_OF_MEMORY)
        assert ledger.states((ledger.groups[0], [0])) == [CRASHED]
        assert ledger.attempts[-1].stop_reason == "all 1 crash_retries used"

    def test_is_for_the_guilty_one_alone(self) -> None:
        """Several died with one worker: each runs again alone, with what it had asked for."""
        ledger = Ledger(slots=1)
        retry = RetryOptions(on_oom=Escalation(2, 1000))
        add_map(ledger.builder, spec(retry=retry, ray={"memory": 100}), range(2))
        ledger.plan(unit_size=2)
        (group,) = ledger.groups
        ledger.lost(0, OUT_OF_MEMORY)
        assert [asked_for(ledger, unit) for unit in ledger.units] == [100, 100]
        ledger.ended(ledger.unit_of((group, [0])), COMPLETED)
        ledger.lost(ledger.unit_of((group, [1])), OUT_OF_MEMORY)
        assert ledger.states((group, range(2))) == [COMPLETED, AWAITING_RETRY]
        assert ledger.wake_for_units()
        assert asked_for(ledger, ledger.unit_of((group, [1]))) == 200

    def test_is_asked_for_as_a_class_of_its_own(self) -> None:
        retry = RetryOptions(on_oom=Escalation(2, 1000))
        ledger = ledger_of(spec(retry=retry, ray={"memory": 100}))
        ledger.lost(0, OUT_OF_MEMORY)
        assert ledger.wake_for_units()
        assert ledger.asked[-1].scheduling_class == (("memory", "200"),)

    def test_ends_with_a_crash_where_no_node_has_as_much(self) -> None:
        retry = RetryOptions(on_oom=Escalation(2, 1000))
        ledger = ledger_of(spec(retry=retry, ray={"memory": 100}))
        (group,) = ledger.groups
        ledger.slots = None
        ledger.lost(0, OUT_OF_MEMORY)
        ledger.wake()
        assert ledger.states((group, [0])) == [PENDING]
        ledger.tell(CapacityKnown((("memory", "200"),), 0, "memory=200; the largest node has 150"))
        assert ledger.states((group, [0])) == [CRASHED]
        assert ledger.attempts[-1].stop_reason == (
            "out of memory, and there is no more of it: it needs memory=200; "
            "the largest node has 150"
        )
        nothing_is_left(ledger)

    def test_waits_where_it_has_been_asked_for_from_the_beginning(self) -> None:
        ledger = ledger_of(spec(ray={"memory": 100}), slots=None)
        ledger.tell(CapacityKnown((("memory", "100"),), 0, "memory=100; the largest node has 50"))
        assert ledger.states((ledger.groups[0], [0])) == [PENDING]
