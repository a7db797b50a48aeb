"""A flow function that begins again gets back what completed, and never anything else."""

from random import Random

import hypothesis.strategies as st
from hypothesis import given, settings

from graph.random_flows import lost, random_flow, record_twice


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_what_completed_is_reused_and_never_wrongly(seed: int) -> None:
    """Each call that is answered from the first recording is checked while it is recorded."""
    random = Random(seed)
    flow = random_flow(random)
    first, second = record_twice(flow, random)
    assert len(set(second.claimed)) == len(second.claimed), "one task run answered two calls"
    if flow.deterministic:
        mistakes, _ = lost(first, second)
        assert not mistakes
