"""The tracker under everything that can happen to it, in any order."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from raysched.graph.calls import Part
from raysched.graph.group import Group
from raysched.model.caching import CacheOptions
from raysched.model.options import Fallback, RetryOptions, TaskSpec
from raysched.model.records import Kept
from raysched.model.states import ROOT_FAILURES, StateType
from raysched.model.triggers import TriggerRule
from raysched.tracker import Run
from raysched.tracker.messages import (
    CacheAnswered,
    CancelRequested,
    CapacityKnown,
    Event,
    FailuresHandled,
    FlowRestarted,
    InputsLost,
    MembersCancelled,
    RetryAnswered,
    TimePassed,
    UnitEnded,
    UnitHandedBack,
    UnitLost,
    UnitStarted,
)
from tracker.book import SECOND
from tracker.earlier import answer
from tracker.evidence import LOST, STOPPED, failure
from tracker.graphs import Need, add, add_map, one, spec
from tracker.invariants import nothing_is_left
from tracker.ledger import Ledger

OUTCOMES = (
    StateType.COMPLETED,
    StateType.COMPLETED,
    StateType.FAILED,
    StateType.TIMED_OUT,
    StateType.CRASHED,
    StateType.CANCELLED,
    StateType.SKIPPED,
)

RULES = (
    *[TriggerRule.ALL_SUCCESS] * 4,
    TriggerRule.ALL_FAILED,
    TriggerRule.ALL_DONE,
    TriggerRule.ONE_SUCCESS,
    TriggerRule.ONE_FAILED,
    TriggerRule.NONE_FAILED,
    TriggerRule.ALWAYS,
)

retry_options = st.builds(
    RetryOptions,
    retries=st.integers(0, 2),
    delays=st.sampled_from([(), (1.0,), (0.5, 3.0)]),
    jitter_factor=st.sampled_from((0.0, 0.5)),
    condition=st.sampled_from([None, None, lambda *_: True]),
    crash_retries=st.integers(0, 2),
)
specs = st.builds(
    spec,
    name=st.sampled_from("abc"),
    retry=retry_options,
    is_async=st.booleans(),
    ray=st.sampled_from([{}, {}, {"num_gpus": 1}]),
    hooks=st.booleans(),
    cache=st.sampled_from([None, None, CacheOptions()]),
    idempotent=st.sampled_from([True, True, False]),
)
failing = st.builds(
    spec,
    name=st.sampled_from("de"),
    retry=retry_options,
    ray_by_attempt=st.sampled_from([(), ({}, {"memory": 1}, {"memory": 2})]),
    trigger_rule=st.sampled_from(RULES),
    setup=st.booleans(),
    max_failures=st.sampled_from([None, None, 0, 1, 0.5]),
    max_same_failures=st.sampled_from([0, 2]),
    fallback=st.sampled_from(
        [None] * 2
        + [Fallback(b"fallback"), Fallback(spec=spec("g", RetryOptions(crash_retries=1)))]
    ),
    queue_timeout_seconds=st.sampled_from([None, None, 1.0]),
    total_timeout_seconds=st.sampled_from([None, None, 2.0]),
    tags=st.sampled_from([(), (), ("large",)]),
    cache=st.sampled_from([None, None, CacheOptions()]),
    idempotent=st.sampled_from([True, True, False]),
)
teardowns = st.builds(
    spec,
    name=st.just("f"),
    teardown=st.just(value=True),
    trigger_rule=st.just(TriggerRule.ALL_DONE_SETUP_SUCCESS),
)

ANSWERS = ("hit", "hit", "miss", "miss", "busy", "error")


def cache_answer(group: Group, ways: Mapping[int, str]) -> CacheAnswered:
    """Return the answer of the cache that says this of members."""
    misses: Sequence[int] = [index for index, way in ways.items() if way == "miss"]
    if misses and misses[-1] - misses[0] == len(misses) - 1:
        misses = range(misses[0], misses[-1] + 1)
    return CacheAnswered(
        group,
        {index: (b"value", "from another run") for index, way in ways.items() if way == "hit"},
        misses,
        {index: "made by another run" for index, way in ways.items() if way == "busy"},
        {index: failure(StateType.FAILED) for index, way in ways.items() if way == "error"},
    )


class TrackerMachine(RuleBasedStateMachine):
    """Records, plans, runs, breaks, repeats, cancels; the ledger checks after each event."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.specs: list[TaskSpec] = []
        self.parts: list[Part] = []
        self.told: list[Event] = []
        self.calm = False
        """Whether nobody cancels: what is cancelled does little more."""
        self.ending = StateType.COMPLETED
        self.share = 0.0
        """How much of what is recorded an earlier execution has completed."""

    @initialize(
        specs=st.lists(specs | failing | failing | teardowns, min_size=2, max_size=5),
        max_parallel=st.sampled_from([None, None, 1, 3]),
        slots=st.sampled_from([None, 1, 1, 2, 3]),
        unit_size=st.sampled_from([0, 0, 1, 4]),
        calm=st.booleans(),
        ending=st.sampled_from([StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]),
        share=st.sampled_from([0.0, 0.0, 0.5, 0.9, 1.0]),
    )
    def begin(  # noqa: PLR0913 - all that a run begins with
        self,
        specs: list[TaskSpec],
        max_parallel: int | None,
        slots: int | None,
        unit_size: int,
        *,
        calm: bool,
        ending: StateType,
        share: float,
    ) -> None:
        self.specs = specs
        self.calm = calm
        self.ending = ending
        self.share = share
        self.ledger = Ledger(Run("run", max_parallel, unit_size=unit_size), slots=slots)

    @rule(
        data=st.data(),
        unit_size=st.sampled_from([None, 1, 3, 8]),
        max_parallel=st.sampled_from([None, None, 1, 2]),
    )
    def segment(self, data: st.DataObject, unit_size: int | None, max_parallel: int | None) -> None:
        for _ in range(data.draw(st.integers(1, 4))):
            self._record(data)
        random = data.draw(st.randoms(use_true_random=False))
        self.ledger.plan(unit_size, max_parallel, lambda group: self._answer(group, random))

    def _answer(self, group: Group, random: Random) -> None:
        """Let an earlier execution, if there was one, answer members of a group."""
        if self.share:
            completed = [random.random() < self.share for _ in range(group.size)]
            kept = [random.choice(list(Kept)) for _ in range(group.size)]
            answer(group, completed, kept, random.randint(0, 2))

    @precondition(lambda self: self.ledger.units)
    @rule(data=st.data())
    def unit_started(self, data: st.DataObject) -> None:
        unit, positions = self._some_of_a_unit(data)
        self._tell(UnitStarted(unit, self.ledger.runnable(unit, positions), self.ledger.now))

    @precondition(lambda self: self.ledger.units)
    @rule(data=st.data())
    def unit_ended(self, data: st.DataObject) -> None:
        unit, positions = self._some_of_a_unit(data)
        if data.draw(st.booleans()):
            states = [StateType.COMPLETED for _ in positions]
        else:
            states = [data.draw(st.sampled_from(OUTCOMES)) for _ in positions]
        parents = self.ledger.parents_in(unit)
        ended: dict[int, StateType] = {}
        for position, state in zip(positions, states, strict=True):
            may_run = ended.get(parents.get(position, -1)) in {None, StateType.COMPLETED}
            if may_run and self.ledger.runnable(unit, [*ended, position])[-1:] == [position]:
                ended[position] = state
        if ended:
            self._tell(self.ledger.report(unit, list(ended.values()), list(ended)))

    @precondition(lambda self: self.ledger.units)
    @rule(data=st.data(), stopped=st.booleans())
    def unit_lost(self, data: st.DataObject, *, stopped: bool) -> None:
        unit = data.draw(st.sampled_from(sorted(self.ledger.units)))
        self._tell(UnitLost(unit, STOPPED if stopped else LOST))

    @precondition(lambda self: any(map(self.ledger.large_inputs, self.ledger.units)))
    @rule(data=st.data())
    def inputs_lost(self, data: st.DataObject) -> None:
        ledger = self.ledger
        unit = data.draw(st.sampled_from([u for u in ledger.units if ledger.large_inputs(u)]))
        values = ledger.large_inputs(unit)
        lost = data.draw(st.lists(st.sampled_from(values), min_size=1, unique=True))
        self._tell(InputsLost(unit, lost))

    @precondition(lambda self: self.ledger.units)
    @rule(data=st.data())
    def unit_handed_back(self, data: st.DataObject) -> None:
        """A worker gives back the last members of a unit, which it has not begun."""
        unit = data.draw(st.sampled_from(sorted(self.ledger.units)))
        command = self.ledger.units[unit]
        unbegun = []
        for position in sorted(self.ledger.unanswered[unit]):
            group, index = command.member(position)
            if group.states[index] != StateType.RUNNING:
                unbegun.append(position)
        number = data.draw(st.integers(0, len(unbegun)))
        self._tell(UnitHandedBack(unit, unbegun[len(unbegun) - number :]))

    @precondition(lambda self: self.ledger.questions)
    @rule(data=st.data(), retry=st.booleans())
    def answered(self, data: st.DataObject, *, retry: bool) -> None:
        question = data.draw(st.sampled_from(list(self.ledger.questions.values())))
        self.told.append(RetryAnswered(question.group, question.index, question.attempt, retry))
        self.ledger.answer(question, retry=retry)

    @precondition(lambda self: self.ledger.asking)
    @rule(data=st.data(), late=st.booleans())
    def cache_answered(self, data: st.DataObject, *, late: bool) -> None:
        """The cache answers for some members, of which some may have ended meanwhile."""
        ledger = self.ledger
        asked = sorted(ledger.asking, key=lambda member: (member[0].id, member[1]))
        group, _ = data.draw(st.sampled_from(asked))
        indices = range(group.size) if late else [i for other, i in asked if other is group]
        asked_about = [index for index in indices if ledger.asked_cache[group, index]]
        some = data.draw(st.lists(st.sampled_from(asked_about), min_size=1, unique=True))
        ways = {index: data.draw(st.sampled_from(ANSWERS)) for index in sorted(some)}
        self._tell(cache_answer(group, ways))

    @precondition(lambda self: self.ledger.wakes)
    @rule()
    def woken(self) -> None:
        self.told.append(TimePassed(min(self.ledger.wakes)))
        self.ledger.wake()

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.ledger.now += int(seconds * SECOND)

    @rule(seconds=st.sampled_from([-5.0, 0.0]))
    def woken_for_nothing(self, seconds: float) -> None:
        self._tell(TimePassed(self.ledger.now + int(seconds * SECOND)))

    @precondition(lambda self: self.ledger.run.lanes)
    @rule(data=st.data(), slots=st.integers(0, 4))
    def capacity(self, data: st.DataObject, slots: int) -> None:
        scheduling_class, _ = data.draw(st.sampled_from(list(self.ledger.run.lanes)))
        self._tell(CapacityKnown(scheduling_class, slots))

    @precondition(lambda self: not self.calm)
    @rule(running=st.booleans(), force=st.booleans())
    def cancel(self, *, running: bool, force: bool) -> None:
        self._tell(CancelRequested("someone", running, force))

    @precondition(lambda self: self.ledger.groups)
    @rule(data=st.data())
    def cancel_some(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(self.ledger.groups))
        indices = data.draw(st.lists(st.sampled_from(range(group.size)), min_size=1, unique=True))
        self._tell(MembersCancelled(group, sorted(indices), "someone"))

    @precondition(lambda self: self.ledger.run.cancelled_by)
    @rule()
    def flow_restarted(self) -> None:
        kept = {
            group.identity(index): (group, index)
            for group, index in self.ledger.members
            if group.states[index] == StateType.COMPLETED
        }
        self.ledger.builder.restart(kept)
        self._tell(FlowRestarted())

    @precondition(lambda self: self.ledger.groups)
    @rule(data=st.data())
    def handled(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(self.ledger.groups))
        failed = [i for i, state in enumerate(group.states) if state in ROOT_FAILURES]
        self._tell(FailuresHandled(group, failed))

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """What was told already is told again: it changes nothing, and is counted if late."""
        event = data.draw(st.sampled_from(self.told))
        states = {group: bytes(group.states) for group in self.ledger.groups}
        self.ledger.tell(event)
        if isinstance(
            event,
            UnitEnded | UnitLost | InputsLost | UnitHandedBack | RetryAnswered | CacheAnswered,
        ):
            assert all(bytes(group.states) == before for group, before in states.items())

    def teardown(self) -> None:
        """Everything comes to its end, whatever has happened before."""
        ledger = self.ledger
        ledger.slots = 2
        for scheduling_class, _ in ledger.run.lanes:
            ledger.tell(CapacityKnown(scheduling_class, 2))
        while ledger.units or ledger.questions or ledger.wakes or ledger.asking:
            for group, index in list(ledger.asking):
                ledger.tell(CacheAnswered(group, misses=[index]))
            for question in list(ledger.questions.values()):
                ledger.answer(question, retry=True)
            ledger.run_all(self.ending)
            if ledger.wakes:
                ledger.wake()
        nothing_is_left(ledger)

    def _tell(self, event: Event) -> None:
        self.told.append(event)
        self.ledger.tell(event)

    def _some_of_a_unit(self, data: st.DataObject) -> tuple[int, Sequence[int]]:
        unit = data.draw(st.sampled_from(sorted(self.ledger.units)))
        open_positions = sorted(self.ledger.unanswered[unit])
        number = data.draw(st.integers(1, len(open_positions)))
        return unit, open_positions[:number]

    def _record(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.specs))
        builder = self.ledger.builder
        wait_for = self._needs(data)
        kind = data.draw(st.sampled_from(["call", "call", "map", "aligned", "chain", "tree"]))
        if kind == "chain":
            length = data.draw(st.integers(2, 4))
            last = add(builder, task, *self._needs(data), wait_for=wait_for)
            links = accumulate(
                range(length), lambda part, _: add(builder, task, one(part)), initial=last
            )
            self.parts.extend(links)
        elif kind == "call":
            self.parts.append(add(builder, task, *self._needs(data), wait_for=wait_for))
        elif kind == "tree":
            level = [add(builder, task, number) for number in range(data.draw(st.integers(2, 6)))]
            while len(level) > 1:
                self.parts += level
                pairs = zip(level[::2], level[1::2], strict=False)
                level = [add(builder, task, one(left), one(right)) for left, right in pairs]
        elif kind == "aligned" and self.parts:
            part = data.draw(st.sampled_from(self.parts))
            enough = data.draw(st.sampled_from([None, None, 1, 0.5]))
            static = self._needs(data)
            self.parts += add_map(
                builder, task, part, static=static, wait_for=wait_for, min_success=enough
            )
        else:
            items: list[Any] = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=8))
            items += self._needs(data)
            static = self._needs(data)
            enough = data.draw(st.sampled_from([None, None, 1, 0.5]))
            self.parts += add_map(
                builder, task, items, static=static, wait_for=wait_for, min_success=enough
            )

    def _needs(self, data: st.DataObject) -> list[Need]:
        if not self.parts:
            return []
        chosen = data.draw(st.lists(st.sampled_from(self.parts), max_size=2))
        return [self._need(data, part) for part in chosen]

    @staticmethod
    def _need(data: st.DataObject, part: Part) -> Need:
        allow_failure = data.draw(st.sampled_from([False, False, True]))
        group, indices = part
        start = data.draw(st.integers(0, len(indices) - 1))
        stop = data.draw(st.integers(start + 1, len(indices)))
        whole = data.draw(st.booleans())
        return Need(group, indices[start:stop], whole, allow_failure)


TestTracker = TrackerMachine.TestCase
TestTracker.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
