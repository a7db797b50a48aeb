"""Equal calls claim what an earlier execution has left of them, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from graph.claiming import Calls, begin, empty, execute_again
from graph.dynamic_maps import Data, execute_over
from graph.random_flows import TASKS, Oracle, lost, random_flow
from raysched.graph.builder import Builder
from raysched.graph.calls import MapCall
from raysched.graph.recorded import Choice, Recorded
from raysched.model.records import Records
from raysched.model.states import StateType

COMPLETED, FAILED = StateType.COMPLETED, StateType.FAILED

LOAD = TASKS[0]


@given(st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_a_flow_goes_on_as_often_as_it_is_killed(seed: int, times: int) -> None:
    """Each claim is checked against the oracle while it is made."""
    random = Random(seed)
    flow = random_flow(random)
    executions = execute_again(flow, random, times, same=True)
    if flow.deterministic and times == 1:
        mistakes, _ = lost(*executions)
        assert not mistakes


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_a_new_run_reuses_all_but_what_depends_on_what_runs_again(seed: int) -> None:
    random = Random(seed)
    execute_again(random_flow(random), random, 1, same=False)


items = st.lists(st.integers(0, 3) | st.builds(lambda n: [n], st.integers(0, 1)), max_size=6)
datas = st.builds(
    Data,
    st.lists(st.integers(0, 3), max_size=6).map(tuple) | items.map(tuple),
    st.lists(st.tuples(st.integers(0, 3), st.integers(2, 6)), max_size=3).map(tuple),
    st.lists(st.booleans(), max_size=3).map(tuple),
    st.lists(st.integers(0, 2), max_size=6).map(tuple),
    st.frozensets(st.integers(0, 5)),
    st.booleans(),
)


@given(
    st.lists(datas, min_size=2, max_size=3),
    st.integers(0, 2**32),
    st.booleans(),
    st.sampled_from([0.5, 0.9, 1.0]),
)
@settings(max_examples=300, deadline=None)
def test_maps_over_other_elements_claim_those_that_are_still_there(
    found: list[Data], seed: int, same: bool, share: float
) -> None:
    execute_over(found, Random(seed), same=same, share=share)


class TestAFlowThatHadBegunAgain:
    """Its second attempt was recorded beside the first one: equal task runs are there twice."""

    @staticmethod
    def after(states: Sequence[StateType], later: StateType) -> Records:
        """Return what is kept of a map whose last member was tried by two attempts of the flow."""
        execution = begin(Oracle(), Calls())
        first = execution.map(LOAD, range(len(states)), [], [])
        groups = execution.builder.take()
        done = [m for m, state in zip(first.members(), states, strict=True) if state == COMPLETED]
        execution.builder.restart({group.identity(index): (group, index) for group, index in done})
        call = MapCall(LOAD, ("x",), [range(len(states))], {"y": []})
        execution.builder.add_map(call)
        groups += execution.builder.take()
        rows = [*states], [later] * (len(states) - len(done))
        return Records(
            1,
            [
                replace(empty(group), states=bytearray(each))
                for group, each in zip(groups, rows, strict=True)
            ],
            next_group=2,
            next_index={LOAD.name: sum(map(len, rows))},
        )

    @pytest.mark.parametrize(
        ("states", "later", "answered"),
        [
            ([COMPLETED, COMPLETED, FAILED], COMPLETED, [1, 1, 1]),
            ([COMPLETED, FAILED, COMPLETED], FAILED, [1, 0, 1]),
            ([FAILED, FAILED], COMPLETED, [1, 1]),
        ],
    )
    def test_is_answered_by_what_completed(
        self, states: list[StateType], later: StateType, answered: list[int]
    ) -> None:
        choice = Choice(same=True, source_of=lambda _: "")
        builder = Builder("run", recorded=Recorded(self.after(states, later), choice))
        parts = builder.add_map(MapCall(LOAD, ("x",), [range(len(states))], {"y": []}))
        assert [group.answered[i] for group, indices in parts for i in indices] == answered
        assert len({group.key(i) for group, indices in parts for i in indices}) == len(states)
