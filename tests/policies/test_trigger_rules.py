"""When a task run may begin: our rules beside Airflow's, and docs/triggers.md beside both."""

from collections.abc import Iterator
from itertools import product

import hypothesis.strategies as st
import pytest
from hypothesis import given

from policies.airflow_rules import FAILED, OPEN, SKIPPED, STATES, SUCCESS, UPSTREAM_FAILED
from policies.trigger_tables import PAGE, RULES, States, airflows, all_states, ours, written
from raysched.model.triggers import MinSuccess, Trigger, TriggerRule
from raysched.policies.trigger import EAGER, Decision, Parents, decide

FAILURES = {FAILED, UPSTREAM_FAILED}

SETUPS = [(), *((state,) for state in STATES), *product(STATES, repeat=2)]


def combined() -> Iterator[tuple[TriggerRule, States, States]]:
    """Yield every rule with every combination of states of up to three parents, setups among them.

    Airflow's rules see no more of them than whether there are none, some, or only such.
    """
    for rule, states in product(TriggerRule, [(), *all_states()]):
        for setups in SETUPS if rule is TriggerRule.ALL_DONE_SETUP_SUCCESS else [()]:
            if len(states) + len(setups) in {1, 2, 3}:
                yield rule, states, setups


def reason(rule: TriggerRule, states: States) -> str:
    """Return why ours may decide something else than Airflow's, all parents having ended."""
    if rule is TriggerRule.ALL_DONE_MIN_ONE_SUCCESS and SKIPPED in states and SUCCESS in states:
        return "documented by Airflow so: skipped ones do not count"
    return "a skip would hide the failure" if FAILURES & set(states) else ""


class TestBesideAirflow:
    def test_what_runs_and_what_does_not(self) -> None:
        """Ours differ for two reasons only, and for each of them somewhere."""
        seen = set()
        for rule, states, setups in combined():
            everything = (*states, *setups)
            if OPEN in everything:
                continue
            here, there = ours(rule, states, setups), airflows(rule, states, setups)
            if here is not there:
                why = reason(rule, everything)
                assert why, (rule, states, setups, here, there)
                seen.add((rule.value, why))
                if "hide" in why:
                    assert (here, there) == (Decision.UPSTREAM_FAILED, Decision.SKIP)
                else:
                    assert (here, there) == (Decision.RUN, Decision.SKIP)
        hides = "a skip would hide the failure"
        assert seen == {
            ("all_failed", hides),
            ("all_skipped", hides),
            ("none_skipped", hides),
            ("one_done", hides),
            ("all_done_min_one_success", hides),
            ("all_done_min_one_success", "documented by Airflow so: skipped ones do not count"),
            ("all_done_setup_success", hides),
        }

    def test_what_begins_while_others_are_open(self) -> None:
        """Whoever runs does so at the same time; whoever does not is told later."""
        for rule, states, setups in combined():
            here, there = ours(rule, states, setups), airflows(rule, states, setups)
            if OPEN in (*states, *setups):
                assert (here is Decision.RUN) == (there is Decision.RUN), (rule, states, setups)
                assert here in {Decision.RUN, Decision.WAIT}


class TestAlways:
    """What holds for every rule."""

    @given(
        rule=st.sampled_from(TriggerRule)
        | st.integers(1, 9).map(MinSuccess)
        | st.floats(0.01, 1).map(MinSuccess),
        states=st.lists(st.sampled_from(STATES), max_size=9),
        setups=st.integers(0, 9),
    )
    def test_properties(self, rule: Trigger, states: list[str], setups: int) -> None:
        decision = ours(rule, states[setups:], states[:setups])
        if not states:
            assert decision is Decision.RUN
        if decision is Decision.WAIT:
            assert OPEN in states
        if decision is Decision.RUN and OPEN in states:
            assert rule in EAGER
        if decision is Decision.SKIP:
            assert not FAILURES & set(states), "a skip hides a failure"
        if decision is Decision.UPSTREAM_FAILED:
            assert FAILURES & set(states), "there is no root"
        if decision in {Decision.SKIP, Decision.UPSTREAM_FAILED}:
            assert OPEN not in states, "the roots are not complete"

    @given(
        rule=st.sampled_from([*EAGER]),
        states=st.lists(st.sampled_from(STATES), min_size=1, max_size=6),
        ends=st.lists(st.sampled_from(STATES[:-1]), min_size=6, max_size=6),
    )
    def test_what_has_begun_is_not_taken_back(
        self, rule: TriggerRule, states: list[str], ends: list[str]
    ) -> None:
        """However those end that were open when an eager rule was met, it still is."""
        if ours(rule, states) is Decision.RUN:
            later = [
                end if state == OPEN else state for state, end in zip(states, ends, strict=False)
            ]
            assert ours(rule, later) is Decision.RUN

    @given(
        rule=st.sampled_from(RULES),
        states=st.lists(st.sampled_from(STATES), min_size=1, max_size=6),
    )
    def test_their_order_does_not_matter(self, rule: Trigger, states: list[str]) -> None:
        assert ours(rule, states) is ours(rule, sorted(states))


class TestMinSuccess:
    @pytest.mark.parametrize(
        ("least", "of", "needed"),
        [
            (1, 3, 1),
            (3, 2, 3),
            (0.5, 3, 2),
            (0.5, 4, 2),
            (0.95, 100, 95),
            (1.0, 7, 7),
            (0.01, 5, 1),
        ],
    )
    def test_how_many(self, least: float, of: int, needed: int) -> None:
        assert MinSuccess(least).needed(of) == needed

    @pytest.mark.parametrize("succeeded", range(11))
    def test_the_rest_may_have_failed_or_been_skipped(self, succeeded: int) -> None:
        enough = succeeded >= 9
        failed = decide(MinSuccess(0.9), Parents(succeeded, failed=10 - succeeded))
        skipped = decide(MinSuccess(0.9), Parents(succeeded, skipped=10 - succeeded))
        assert failed is (Decision.RUN if enough else Decision.UPSTREAM_FAILED)
        assert skipped is (Decision.RUN if enough else Decision.SKIP)

    def test_is_decided_at_the_end(self) -> None:
        """Who gathers a map gets all of its successes, not the first ones."""
        assert decide(MinSuccess(1), Parents(succeeded=5, open=1)) is Decision.WAIT


def test_the_page_is_up_to_date() -> None:
    """If it is not: `PYTHONPATH=tests python tests/policies/trigger_tables.py` writes it."""
    assert PAGE.read_text("utf-8") == written()
