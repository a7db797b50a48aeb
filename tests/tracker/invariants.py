"""What is true of a run after every event, as a list that can be read.

Each invariant is a function whose name says what it checks. They recount from the graph and from
the commands what the tracker keeps in its counters.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from raysched.graph.calls import Member
from raysched.graph.group import Group
from raysched.model.states import FAILURES, FIRST_TERMINAL, ROOT_FAILURES, SUCCESSES, StateType
from raysched.model.triggers import TriggerRule
from raysched.policies.limits import window
from raysched.policies.trigger import EAGER
from raysched.tracker.messages import Dispatch
from raysched.tracker.timers import Due
from raysched.tracker.transitions import TRANSITIONS
from tracker.attempt_invariants import ATTEMPT_INVARIANTS
from tracker.expected import allows, held, may_hold, members, parents, roots_of

if TYPE_CHECKING:
    from tracker.ledger import Ledger

S = StateType


def terminal_states_never_change(ledger: "Ledger") -> None:
    for group, states in ledger.before.items():
        for before, after in zip(states, group.states, strict=True):
            assert before < FIRST_TERMINAL or after == before


def states_change_along_the_table(ledger: "Ledger") -> None:
    """One event may take several steps of the table, so what counts is what can be reached."""
    for group, states in ledger.before.items():
        for before, after in zip(states, group.states, strict=True):
            assert after == before or S(after) in _REACHABLE[S(before)]


def dispatched_only_when_every_parent_has_ended_well_enough(ledger: "Ledger") -> None:
    for group, index in dispatched_now(ledger):
        rule = group.spec.trigger_rule
        ended: list[StateType] = []
        for edge in group.edges_of(index):
            for parent, member in parents(edge, index):
                state = S(parent.states[member])
                assert state.is_terminal or rule in EAGER
                lenient = edge.allow_failure or held(edge)
                forgiven = lenient and rule is TriggerRule.ALL_SUCCESS
                ended.append(S.COMPLETED if forgiven else state)
        assert not ended or allows(rule, ended), (rule, ended)


def no_member_is_in_two_places(ledger: "Ledger") -> None:
    """Each open member that could run is queued, on its way, asked about or waiting for a time."""
    places: Counter[Member] = Counter()
    for unit, positions in ledger.unanswered.items():
        for position in positions:
            group, index = ledger.units[unit].member(position)
            # What rides waits until what it needs has ended, and may end with that.
            if index in ledger.run.nodes[group.id].computing:
                continue
            if position not in ledger.parents_in(unit) or on_its_way(group, index):
                places[group, index] += 1
    for node, index in queued(ledger):
        if index in ledger.run.nodes[node.id].computing:
            assert node.states[index] in SUCCESSES
            continue
        places[node, index] += 1
        assert node.states[index] == S.PENDING
    for group, index in waiting_for_values(ledger):
        places[group, index] += group.states[index] == S.PENDING
    places.update((group, index) for group, index, _ in ledger.questions)
    places.update(asked_about(ledger))
    for group, index in ledger.members:
        state = S(group.states[index])
        assert places[group, index] == on_its_way(group, index), (group.key(index), state.name)


def waiting_for_values(ledger: "Ledger") -> set[Member]:
    """Return the members that wait for values that are being computed again."""
    return {
        (child.group, member)
        for node in ledger.run.nodes.values()
        for waiting in node.recomputing.values()
        for child, member in waiting
    }


def asked_about(ledger: "Ledger") -> Iterator[Member]:
    """Yield the members that wait for an answer of the cache."""
    for node in ledger.run.nodes.values():
        for index in node.asking:
            if node.group.states[index] == S.PENDING:
                yield node.group, index


def on_its_way(group: Group, index: int) -> bool:
    """Whether a member is queued, on its way, or asked about."""
    state = S(group.states[index])
    return not state.is_terminal and state not in {S.SCHEDULED, S.AWAITING_RETRY}


def units_are_those_that_were_dispatched(ledger: "Ledger") -> None:
    units = ledger.run.units
    assert {number: unit.open for number, unit in units.items()} == ledger.unanswered
    for number, unit in units.items():
        command = ledger.units[number]
        positions = range(len(unit.attempts))
        members = [(node.group, index) for node, index in map(unit.member, positions)]
        assert members == [command.member(position) for position in positions]
        attempts = [command.attempts, *(rider.attempts for rider in command.riders)]
        assert list(unit.attempts) == [each for some in attempts for each in some]


def counters_equal_a_recount(ledger: "Ledger") -> None:
    run = ledger.run
    assert run.running == sum(places(ledger, unit) for unit in ledger.unanswered)
    assert run.open == sum(open_members(group) for group in ledger.groups)
    for node in run.nodes.values():
        states = node.group.states
        assert node.open == open_members(node.group)
        assert node.failures == sum(state >= FIRST_TERMINAL for state in states) - sum(
            state in SUCCESSES for state in states
        )
    for lane in run.lanes.values():
        assert lane.queued == len(list(lane.waiting()))
        assert lane.units == sum(unit.lane is lane for unit in run.units.values())
    for limit in run.limits.values():
        assert limit.running == sum(
            places(ledger, number) for number, unit in run.units.items() if unit.lane.limit is limit
        )


def places(ledger: "Ledger", unit: int) -> int:
    """How many members of a unit may run at once."""
    positions = ledger.unanswered[unit]
    planned = ledger.run.nodes[ledger.units[unit].group.id].planned
    return len(positions) if planned.overlapping else min(1, len(positions))


def waiting_counts_equal_a_recount(ledger: "Ledger") -> None:
    for node in ledger.run.nodes.values():
        group = node.group
        for index in range(group.size):
            unmet = sum(
                any(
                    parent.states[member] < FIRST_TERMINAL
                    for parent, member in (
                        members(edge) if may_hold(edge) else parents(edge, index)
                    )
                )
                for edge in group.edges_of(index)
            )
            assert node.waiting[index] == unmet, group.key(index)
            state = S(group.states[index])
            if not state.is_terminal and group.spec.trigger_rule not in EAGER:
                assert (state is S.SCHEDULED) == bool(unmet)


def limits_hold(ledger: "Ledger") -> None:
    run = ledger.run
    dispatched = [c.unit for c in ledger.commands if isinstance(c, Dispatch)]
    for lane in {run.units[number].lane for number in dispatched}:
        assert lane.slots
        assert lane.limit is None or lane.limit.running <= lane.limit.most
        assert lane.units <= window(lane.slots, lane.mean_ns / 1e9)
        assert run.max_parallel is None or run.running <= run.max_parallel


def nothing_waits_that_could_run(ledger: "Ledger") -> None:
    run = ledger.run
    if run.max_parallel is not None and run.running >= run.max_parallel:
        return
    for lane in run.lanes.values():
        if not lane.queued or not lane.slots:
            continue
        if lane.limit is not None and lane.limit.running >= lane.limit.most:
            continue
        mean = lane.mean_ns / 1e9
        assert lane.units >= min(window(lane.slots, mean), window(lane.slots, mean, growing=True))


def a_cancelled_run_begins_nothing(ledger: "Ledger") -> None:
    if not ledger.run.cancelled_by:
        return
    begun = {
        (group, index) for group, index in dispatched_now(ledger) if group not in spared(ledger)
    }
    assert not begun
    on_their_way = {
        unit.member(position)
        for number, unit in ledger.units.items()
        for position in ledger.unanswered[number]
    }
    for group, index in ledger.members:
        if group not in spared(ledger):
            assert group.states[index] >= FIRST_TERMINAL or (group, index) in on_their_way


def spared(ledger: "Ledger") -> set[Group]:
    """Return the groups that a cancelled run still begins: teardowns, and lost values for them."""
    return {
        node.group for node in ledger.run.nodes.values() if node.group.spec.teardown or node.losses
    }


def victims_name_exactly_their_roots(ledger: "Ledger") -> None:
    for group in ledger.groups:
        before = ledger.before.get(group, bytes(group.size))
        victims = {i for i, state in enumerate(group.states) if state == S.UPSTREAM_FAILED}
        assert group.roots.keys() == victims
        for index in victims:
            if before[index] != S.UPSTREAM_FAILED:
                roots = group.roots[index]
                assert roots
                assert len(set(roots)) == len(roots)
                assert set(roots) == roots_of(ledger, group, index)


def only_ended_failures_are_handled(ledger: "Ledger") -> None:
    for group in ledger.groups:
        fell_back = ledger.run.nodes[group.id].fell_back
        failures = ROOT_FAILURES if group.min_success is None else FAILURES
        assert all(group.states[i] in failures or i in fell_back for i in group.handled)


def rows_tell_every_change(ledger: "Ledger") -> None:
    """Of being queued nobody is told: a row may still say what was before."""
    for group, index in ledger.members:
        state, handled = ledger.rows.get((group, index), (S.SCHEDULED, False))
        assert handled == (index in group.handled)
        unsaid = group.states[index] == S.PENDING and state in {S.SCHEDULED, S.AWAITING_RETRY}
        assert unsaid or state == group.states[index], group.key(index)


def what_ended_holds_no_arguments(ledger: "Ledger") -> None:
    for group in ledger.groups:
        if ledger.is_large(group.spec) or group.recorded is not None or group.spec.cache:
            # Its values may get lost.
            continue
        if min(group.states) >= FIRST_TERMINAL:
            assert not group.columns
            assert not group.shared
        if len(group.payloads) < group.size:
            # Rows of immutable elements, which the group keeps together.
            continue
        for payload, state in zip(group.payloads, group.states, strict=True):
            assert (payload is None) == (state >= FIRST_TERMINAL)
        assert open_members(group) or not group.shared


def values_and_errors_fit_the_states(ledger: "Ledger") -> None:
    for group, index in ledger.members:
        state = S(group.states[index])
        assert (group.values[index] is not None) == (state in SUCCESSES)
        assert (index in group.errors) == (state.is_terminal and state not in SUCCESSES)


def suspects_run_alone(ledger: "Ledger") -> None:
    for command in ledger.commands:
        if isinstance(command, Dispatch) and (len(command.indices) > 1 or command.riders):
            assert not any((command.group, index) in ledger.suspects for index in command.indices)
            for rider in command.riders:
                assert not any((rider.group, index) in ledger.suspects for index in rider.indices)


def who_rides_needs_only_who_is_there(ledger: "Ledger") -> None:
    for command in ledger.commands:
        if not isinstance(command, Dispatch):
            continue
        for position, parent in ledger.parents_in(command.unit).items():
            group, index = command.member(position)
            assert parent < position
            for edge in group.edges_of(index):
                for needed in parents(edge, index):
                    state = S(needed[0].states[needed[1]])
                    assert needed == command.member(parent) or state.is_terminal


def a_retry_is_never_slept_through(ledger: "Ledger") -> None:
    """Each has a time, there is a wake-up for the next one, and there are no two for one time."""
    assert len(set(ledger.wakes)) == len(ledger.wakes)
    waiting = sorted(
        (group.id, index)
        for group, index in ledger.members
        if group.states[index] == S.AWAITING_RETRY
    )
    timers = [timer for timer in ledger.run.timers if timer[1] == Due.RETRY]
    # What was stopped while it waited leaves its timer behind.
    assert {(group, index) for _, _, group, index, _ in timers} >= set(waiting)
    if waiting:
        assert min(ledger.wakes) <= min(ledger.run.timers)[0]


INVARIANTS: tuple[Callable[["Ledger"], None], ...] = (
    terminal_states_never_change,
    states_change_along_the_table,
    dispatched_only_when_every_parent_has_ended_well_enough,
    no_member_is_in_two_places,
    units_are_those_that_were_dispatched,
    counters_equal_a_recount,
    waiting_counts_equal_a_recount,
    limits_hold,
    nothing_waits_that_could_run,
    a_cancelled_run_begins_nothing,
    victims_name_exactly_their_roots,
    only_ended_failures_are_handled,
    rows_tell_every_change,
    what_ended_holds_no_arguments,
    values_and_errors_fit_the_states,
    suspects_run_alone,
    who_rides_needs_only_who_is_there,
    a_retry_is_never_slept_through,
    *ATTEMPT_INVARIANTS,
)


def check(ledger: "Ledger") -> None:
    """Check all invariants."""
    for invariant in INVARIANTS:
        invariant(ledger)


def nothing_is_left(ledger: "Ledger") -> None:
    """Check what is true once all units have come to their end and all times have passed."""
    assert all(group.states[index] >= FIRST_TERMINAL for group, index in ledger.members)
    assert not ledger.run.units
    assert not ledger.run.open
    assert not ledger.run.running
    assert not any(lane.queued or lane.units for lane in ledger.run.lanes.values())
    assert not any(node.questions for node in ledger.run.nodes.values())
    assert not any(node.gates for node in ledger.run.nodes.values())
    assert not any(node.recomputing or node.computing for node in ledger.run.nodes.values())
    assert not list(asked_about(ledger))
    assert not any(node.stopping or node.last_failures for node in ledger.run.nodes.values())


def dispatched_now(ledger: "Ledger") -> Iterator[Member]:
    """Yield the members that the last event dispatched."""
    for command in ledger.commands:
        if isinstance(command, Dispatch):
            for index in command.indices:
                yield command.group, index


def queued(ledger: "Ledger") -> Iterator[Member]:
    """Yield the members that can run and are not dispatched."""
    for lane in ledger.run.lanes.values():
        for node, index in lane.waiting():
            yield node.group, index


def open_members(group: Group) -> int:
    """Return how many members have not ended."""
    return sum(state < FIRST_TERMINAL for state in group.states)


def _reachable() -> dict[StateType, set[StateType]]:
    reachable = {state: set(TRANSITIONS.get(state, ())) for state in S}
    for _ in S:
        for targets in reachable.values():
            targets |= {further for target in set(targets) for further in reachable[target]}
    return reachable


_REACHABLE = _reachable()
