"""How a flow run ended, from what became of its task runs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from raysched.graph.calls import Member
from raysched.model.states import ROOT_FAILURES, SUCCESSES, StateType
from raysched.tracker.run import Run


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the task runs of a flow run say about it.

    Attributes:
        unhandled: Root failures that nobody handled.
        handled: Number of root failures that were handled, and of fallbacks that were used.
        counts: Number of task runs by state.
        teardowns: Failures of teardowns, which do not make a run fail.
    """

    unhandled: tuple[Member, ...]
    handled: int
    counts: Mapping[StateType, int]
    teardowns: tuple[Member, ...] = ()


def verdict(run: Run) -> Verdict:
    """Look through all task runs of a run.

    Only roots count: what merely followed from a root is handled or not with it.
    """
    unhandled: list[Member] = []
    teardowns: list[Member] = []
    handled = 0
    counts: Counter[StateType] = Counter()
    for node in run.nodes.values():
        group = node.group
        for code, number in Counter(group.states).items():
            counts[StateType(code)] += number
        handled += sum(group.states[index] in SUCCESSES for index in node.fell_back)
        if not node.failures:
            continue
        for index, code in enumerate(group.states):
            if code not in ROOT_FAILURES:
                continue
            if group.spec.teardown:
                teardowns.append((group, index))
            elif index in group.handled:
                handled += 1
            else:
                unhandled.append((group, index))
    return Verdict(tuple(unhandled), handled, counts, tuple(teardowns))
