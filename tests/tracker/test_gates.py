"""Gates open when the last member of their range has ended, and only then."""

import hypothesis.strategies as st
from hypothesis import given

from raysched.tracker.gates import Gate, Gates

SIZE = 40

ranges = st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)).map(
    lambda pair: (pair[0], min(SIZE, pair[0] + pair[1]))
)


@given(st.sets(ranges, max_size=20), st.permutations(range(SIZE)), st.integers(1, 7))
def test_opens_with_the_last_member_of_its_range(
    wanted: set[tuple[int, int]], order: list[int], step: int
) -> None:
    gates = Gates()
    for start, stop in wanted:
        gates.add(Gate(start, stop, stop - start))
    ended: set[int] = set()
    for first in range(0, SIZE, step):
        now = order[first : first + step]
        before = {one for one in wanted if ended.issuperset(range(*one))}
        ended.update(now)
        after = {one for one in wanted if ended.issuperset(range(*one))}
        opened = gates.opened(now)
        assert sorted((gate.start, gate.stop) for gate in opened) == sorted(after - before)
    assert not gates


@given(st.sets(ranges, min_size=1, max_size=20))
def test_is_found_by_its_range(wanted: set[tuple[int, int]]) -> None:
    gates = Gates()
    put_up = {one: Gate(*one, 1) for one in wanted}
    for gate in put_up.values():
        gates.add(gate)
    assert {one: gates.find(*one) for one in wanted} == put_up
    assert gates.find(SIZE, SIZE + 1) is None
