"""Groups of which an earlier execution has completed something, as the builder makes them."""

from array import array
from collections.abc import Sequence

from raysched.graph.group import Group
from raysched.graph.recorded import answer_with_parents, recall
from raysched.model.records import Kept, RecordedGroup
from raysched.model.states import StateType
from raysched.model.triggers import TriggerRule

UNMET = (TriggerRule.ALL_FAILED, TriggerRule.ONE_FAILED)
"""Rules that are not met where everything has completed."""


def answer(group: Group, completed: Sequence[bool], kept: Sequence[Kept], attempts: int) -> None:
    """Let an earlier execution answer members, where what they need is answered, too.

    Args:
        group: The group, allocated.
        completed: Which members had completed.
        kept: What there is of their values.
        attempts: How often each had been tried.
    """
    size, spec = group.size, group.spec
    flags = bytearray(size)
    for index in range(size):
        met = spec.trigger_rule not in UNMET or not any(group.edges_of(index))
        if completed[index] and met and not (spec.setup or spec.teardown):
            # Of a chain each link rests on the one before.
            group.answered = flags
            each = answer_with_parents(bytearray(b"\1" * (index + 1)), group.edges)[index:]
            flags[index] = answer_with_parents(each, group.member_edges.get(index, ()))[0]
    states = [StateType.COMPLETED if flag else StateType.FAILED for flag in flags]
    group.recorded = RecordedGroup(
        group.id,
        spec.name,
        group.first,
        size,
        group.mapped,
        bytes(group.identities),
        "",
        bytearray(states),
        array("H", [attempts]) * size,
        array("q", [1]) * size,
        array("q", [2]) * size,
        bytearray(kept),
        array("q", [3]) * size,
        {index: f"file:///there#{index}+3:00" for index in range(size)},
    )
    group.answered, group.positions, group.continues = bytearray(), (), True
    group.claim(range(size), flags)
    recall(group, same=True)
    for index in range(size):
        if flags[index] and kept[index] == Kept.INLINE:
            group.values[index] = b"value"
