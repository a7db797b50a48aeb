"""What is true of attempts, and of what is not attempted: because it was done, or is cached."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from raysched.graph.calls import Member
from raysched.model.states import SUCCESSES, StateType
from raysched.tracker.attempts import HOOKS
from raysched.tracker.messages import AskCache, Dispatch

if TYPE_CHECKING:
    from tracker.ledger import Ledger

S = StateType


def attempts_stay_within_the_budget(ledger: "Ledger") -> None:
    """What earlier executions have spent is no part of it."""
    for (group, index), number in ledger.dispatches.items():
        retry = group.spec.retry
        charged = number - ledger.uncharged[group, index]
        assert group.attempts[index] == group.spent(index) + charged, group.key(index)
        instead = group.spec.fallback and group.spec.fallback.spec
        fallbacks = 1 + instead.retry.crash_retries if instead else 0
        losses = ledger.run.nodes[group.id].losses.get(index, 0)
        assert charged <= 1 + retry.retries + retry.crash_retries + fallbacks + losses


def every_failed_attempt_has_one_row(ledger: "Ledger") -> None:
    """A second row says only why retrying stopped while it was waiting to be tried again."""
    told = Counter((row.group, row.index, row.attempt, row.stop_reason) for row in ledger.attempts)
    rows = Counter((group, index, attempt) for group, index, attempt, _ in told)
    twice = [key for key, number in told.items() if number > 1]
    assert not twice
    for group, index in ledger.members:
        begun = group.attempts[index]
        if index in ledger.run.nodes[group.id].losses:
            # It completed, and was tried again for its value.
            continue
        failed_for_good = S(group.states[index]) in {S.FAILED, S.TIMED_OUT, S.CRASHED}
        ended = begun if failed_for_good else begun - 1
        for attempt in range(group.spent(index) + 1, ended + 1):
            assert rows[group, index, attempt], (group.key(index), attempt)


def rows_of_earlier_attempts_stay_as_they_are(ledger: "Ledger") -> None:
    for row in ledger.attempts:
        assert row.attempt > row.group.spent(row.index), row


def hooks_are_called_once(ledger: "Ledger") -> None:
    """Not those of what an earlier execution has completed: it has called them."""
    assert all(number == 1 for number in ledger.hooks.values()), ledger.hooks
    for group, index in ledger.members:
        if group.spec.hooks.on_running:
            ending = None if group.is_answered(index) else HOOKS.get(S(group.states[index]))
            called = {kind for kind in HOOKS.values() if (group, index, kind) in ledger.hooks}
            assert called == ({ending} if ending else set())


def what_is_answered_runs_only_for_its_value(ledger: "Ledger") -> None:
    for group, index in dispatched_members(ledger):
        if group.is_answered(index):
            node = ledger.run.nodes[group.id]
            assert group.states[index] in SUCCESSES
            assert index in node.losses


def what_may_be_cached_is_asked_about_once(ledger: "Ledger") -> None:
    """And waits until it is answered: it is neither queued nor dispatched before."""
    for command in ledger.commands:
        if isinstance(command, AskCache):
            for index in command.indices:
                assert ledger.asked_cache[command.group, index] == 1
    waiting = {
        (node.group, index)
        for node in ledger.run.nodes.values()
        for index in node.asking
        if node.group.states[index] == S.PENDING
    }
    assert waiting <= ledger.asking
    for group, index in dispatched_members(ledger):
        if group.spec.cache is not None and not group.is_answered(index):
            assert ledger.asked_cache[group, index] == 1
            assert (group, index) not in waiting


def what_must_not_run_twice_is_alone_and_not_tried_after_a_crash(ledger: "Ledger") -> None:
    for command in ledger.commands:
        if not isinstance(command, Dispatch):
            continue
        if not command.group.spec.idempotent:
            assert len(command.indices) == 1
            assert not command.riders
            assert not command.group.is_answered(command.indices[0])
        assert all(rider.group.spec.idempotent for rider in command.riders)
    crashed = {
        (row.group, row.index): row.attempt
        for row in ledger.attempts
        if row.state is S.CRASHED and not row.group.spec.idempotent
    }
    for (group, index), attempt in crashed.items():
        fallback = index in ledger.run.nodes[group.id].fell_back
        assert fallback or group.attempts[index] == attempt, group.key(index)


def dispatched_members(ledger: "Ledger") -> Iterator[Member]:
    """Yield the members that the last event dispatched, with those that ride."""
    for command in ledger.commands:
        if isinstance(command, Dispatch):
            riding = sum(len(rider.indices) for rider in command.riders)
            for position in range(len(command.indices) + riding):
                yield command.member(position)


ATTEMPT_INVARIANTS = (
    attempts_stay_within_the_budget,
    every_failed_attempt_has_one_row,
    rows_of_earlier_attempts_stay_as_they_are,
    hooks_are_called_once,
    what_is_answered_runs_only_for_its_value,
    what_may_be_cached_is_asked_about_once,
    what_must_not_run_twice_is_alone_and_not_tried_after_a_crash,
)
