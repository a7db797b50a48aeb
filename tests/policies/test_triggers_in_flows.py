"""Trigger rules as users see them: every rule with every combination of ends, in real flows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement as combinations
from itertools import product
from typing import Any

import pytest

from policies.airflow_rules import FAILED, OPEN, SKIPPED, SUCCESS, UPSTREAM_FAILED
from policies.trigger_tables import MOST, RULES, ours
from raysched import (
    Cancelled,
    Crashed,
    StateType,
    TaskFuture,
    TaskRunCancelled,
    TaskRunCrashed,
    TaskRunSkipped,
    TaskRunUnfinished,
    UpstreamFailed,
    flow,
    get_run,
    runtime,
    skip,
    task,
    unmapped,
    wait,
)
from raysched.client import TaskRun
from raysched.model.triggers import MinSuccess, Trigger, TriggerRule
from raysched.policies.trigger import EAGER, Decision
from raysched.testing import FakeClock, inline

CANCELLED, CRASHED = "cancelled", "crashed"

ENDS = (SUCCESS, FAILED, CANCELLED, UPSTREAM_FAILED, SKIPPED)
"""In which a parent may end."""

HANDED_OVER = {
    SUCCESS: "int",
    FAILED: ValueError.__name__,
    CANCELLED: TaskRunCancelled.__name__,
    CRASHED: TaskRunCrashed.__name__,
    UPSTREAM_FAILED: UpstreamFailed.__name__,
    SKIPPED: TaskRunSkipped.__name__,
    OPEN: TaskRunUnfinished.__name__,
}
"""Type of what a task gets for a parent that ended so, if its rule lets it run."""

STATES = {
    Decision.RUN: StateType.COMPLETED,
    Decision.SKIP: StateType.SKIPPED,
    Decision.UPSTREAM_FAILED: StateType.UPSTREAM_FAILED,
}

FAILS_ITSELF = {FAILED, CANCELLED, CRASHED}

DAY = 24 * 3600


@task(crash_retries=0)
def end(how: str) -> Any:
    """End as it is told."""
    if how == FAILED:
        raise ValueError(how)
    if how == SKIPPED:
        skip("told so")
    return {CANCELLED: Cancelled(), CRASHED: Crashed()}.get(how, 1)


@task
def follow(value: object) -> None:
    """Need a value."""


@task
def child(*given: Any) -> list[str]:
    """Tell what it got."""
    return [type(one).__name__ for one in given]


@task(trigger_rule="all_done")
def pair(first: Any, second: Any) -> list[str]:
    """Tell what it got, whatever that is."""
    return [type(one).__name__ for one in (first, second)]


@task(retries=1, retry_delay_seconds=DAY)
def end_late(how: str) -> Any:
    """Be open, until nothing else is left to do; then end as it is told."""
    if runtime.task_run.run_count == 1 or how == FAILED:
        raise ValueError(how)
    return 1


@dataclass(frozen=True)
class Branch:
    """A task run with a rule, and those that it needs."""

    rule: Trigger
    ends: tuple[str, ...]
    setups: tuple[str, ...] = ()
    waits: bool = False

    @property
    def decision(self) -> Decision:
        """What our rule decides; whoever was cancelled or crashed has failed."""
        plain = [[FAILED if e in FAILS_ITSELF else e for e in x] for x in (self.ends, self.setups)]
        return ours(self.rule, *plain)


def parent(how: str, *, setup: bool = False) -> tuple[TaskFuture[Any], TaskFuture[Any]]:
    """Submit a task run that will end so; return it with the one that fails, if one does."""
    if how == UPSTREAM_FAILED:
        root = end.submit(FAILED)
        return (follow.with_options(setup=True) if setup else follow).submit(root), root
    made = (end.with_options(setup=True) if setup else end).submit(how)
    return made, made


def ran(branches: Sequence[Branch]) -> Iterator[tuple[Branch, TaskRun, list[TaskRun]]]:
    """Run branches, with parents of their own each; yield each with its roots."""
    keys: list[tuple[str, list[str]]] = []

    @flow
    def all_branches() -> None:
        children = []
        for branch in branches:
            plain = [(how, *parent(how)) for how in branch.ends]
            parents = [*plain, *((how, *parent(how, setup=True)) for how in branch.setups)]
            given = [made for _, made, _ in parents]
            ruled = child.with_options(trigger_rule=branch.rule)
            one = ruled.submit(wait_for=given) if branch.waits else ruled.submit(*given)
            failing = FAILS_ITSELF | {UPSTREAM_FAILED}
            keys.append((one.key, [root.key for how, _, root in parents if how in failing]))
            children.append(one)
        wait(children)

    with inline():
        all_branches(return_state=True)
        found = {each.key: each for each in get_run("last").task_runs()}
        for branch, (key, roots) in zip(branches, keys, strict=True):
            yield branch, found[key], [found[root] for root in roots]


ALL = [
    Branch(rule, ends)
    for rule in RULES
    for number in range(1, MOST + 1)
    for ends in combinations(ENDS, number)
    # That more of them succeed than there are is refused at the call.
    if not isinstance(rule, MinSuccess) or rule.needed(number) <= number
]

WAITING = [Branch(one.rule, one.ends, waits=True) for one in ALL if len(one.ends) == MOST - 1]

WITH_SETUPS = [
    Branch(TriggerRule.ALL_DONE_SETUP_SUCCESS, (other,), setups)
    for number in (1, 2)
    for setups in combinations(ENDS, number)
    for other in (SUCCESS, FAILED)
]

OF_CRASHED = [Branch(rule, (CRASHED, SUCCESS)) for rule in RULES]


class TestEveryRule:
    @pytest.mark.parametrize(
        "branches", [ALL, WAITING, WITH_SETUPS, OF_CRASHED], ids=["all", "waits", "setups", "crash"]
    )
    def test_does_as_the_table_says(self, branches: list[Branch]) -> None:
        for branch, found, failures in ran(branches):
            everything = (*branch.ends, *branch.setups)
            decision = branch.decision
            assert found.state.type is STATES[decision], branch
            assert found.attempts == (decision is Decision.RUN), branch
            assert {each.handled for each in failures} <= {decision is Decision.RUN}, branch
            if decision is Decision.RUN:
                got = [] if branch.waits else [HANDED_OVER[how] for how in everything]
                assert found.result() == got, branch
            roots = {each.key for each in failures}
            assert set(found.roots) == (roots if decision is Decision.UPSTREAM_FAILED else set())
            if decision is Decision.SKIP:
                assert found.reason, branch

    def test_of_a_call_counts_more_than_that_of_the_task(self) -> None:
        @flow
        def one() -> list[str]:
            return child.submit(end.submit(FAILED), trigger_rule="all_done").result()

        with inline():
            assert one() == ["ValueError"]

    def test_decides_for_each_member_of_a_map(self) -> None:
        @flow
        def mapped() -> list[list[str]]:
            ends = end.map([SUCCESS, FAILED, SKIPPED])
            return pair.map(ends, unmapped(end.submit(CANCELLED))).result()

        with inline():
            assert mapped() == [
                [HANDED_OVER[how], HANDED_OVER[CANCELLED]] for how in (SUCCESS, FAILED, SKIPPED)
            ]


class TestWhatIsStillOpen:
    @pytest.mark.parametrize("rule", RULES, ids=str)
    def test_is_waited_for_unless_the_rule_is_eager(self, rule: Trigger) -> None:
        """The clock jumps to the retry of the parent that is open when nothing else is left."""
        cases = list(product((SUCCESS, FAILED, SKIPPED), (SUCCESS, FAILED)))
        ruled = child.with_options(trigger_rule=rule)

        @flow
        def late() -> None:
            wait([ruled.submit(end.submit(how), end_late.submit(then)) for how, then in cases])

        with inline(FakeClock()):
            late(return_state=True)
            for (how, then), one in zip(cases, get_run("last")["child"], strict=True):
                early = ours(rule, (how, OPEN)) is Decision.RUN
                decision = ours(rule, (how, then))
                assert one.state.type is STATES[decision], (how, then)
                if decision is Decision.RUN:
                    last = OPEN if early else then
                    assert one.result() == [HANDED_OVER[how], HANDED_OVER[last]]
        assert isinstance(rule, MinSuccess) or (rule in EAGER) == any(
            ours(rule, (how, OPEN)) is Decision.RUN for how in (SUCCESS, FAILED)
        )

    def test_counts_as_handled_when_it_fails_later(self) -> None:
        @flow
        def eager() -> list[str]:
            ruled = child.with_options(trigger_rule="one_success")
            return ruled.submit(end.submit(SUCCESS), end_late.submit(FAILED)).result()

        with inline(FakeClock()):
            state = eager(return_state=True)
            (failed,) = get_run("last")["end_late"]
        assert state.type is StateType.COMPLETED
        assert failed.state.type is StateType.FAILED
        assert failed.handled


class TestTeardown:
    def test_cleans_up_and_handles_nothing(self) -> None:
        clean = child.with_options(name="clean", teardown=True)

        @flow
        def broken() -> None:
            made = end.with_options(name="make", setup=True).submit(SUCCESS)
            used = end.submit(FAILED, wait_for=[made])
            clean.submit(made, wait_for=[used]).wait()

        with inline():
            state = broken(return_state=True)
            run = get_run("last")
            assert run["clean"][0].result() == ["int"]
            assert not run["end"][0].handled
        assert state.type is StateType.FAILED

    def test_has_nothing_to_do_where_nothing_was_set_up(self) -> None:
        clean = child.with_options(name="clean", teardown=True)

        @flow
        def broken() -> None:
            clean.submit(end.with_options(name="make", setup=True).submit(SKIPPED)).wait()

        with inline():
            assert broken(return_state=True).type is StateType.COMPLETED
            assert get_run("last")["clean"][0].state.type is StateType.SKIPPED
