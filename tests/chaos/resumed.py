"""What has to be true of a run that went on after its driver had died: nothing is done twice."""

from collections import Counter

from chaos.graphs import Graph, Node
from chaos.log import Log
from chaos.oracle import key_of
from chaos.story import Death
from raysched.model.states import StateType


def judge_resumed(graph: Graph, death: Death, later: Log) -> list[str]:
    """Return what was done again although it was in the database.

    Args:
        graph: The flow.
        death: What there was when the driver died.
        later: What was written down since.
    """
    completed = {(row.task, row.number) for row in death.rows if row.state is StateType.COMPLETED}
    reused = _reused(graph, {f"{task}[{index}]" for task, index in completed})
    again = [key for key in reused if later.begun[key]]
    again += [key for key in _ends_of_sides(graph, completed) if later.begun[key]]
    wrong = [f"{key} had completed, and began again" for key in sorted(again)]
    kept = Counter(task for task, _ in completed)
    for side in graph.sides:
        # Their numbers in the database are those of the order of calls, which chance decides.
        leaf = side.name("leaf")
        begun = sum(key.startswith(f"{leaf}[") for key in later.begun)
        if begun > side.size - kept[leaf]:
            wrong.append(f"{begun} of {leaf} began again: {kept[leaf]} of {side.size} were kept")
    return wrong


def _ends_of_sides(graph: Graph, completed: set[tuple[str, int]]) -> list[str]:
    names = (side.name(name) for side in graph.sides for name in ("spread", "total"))
    return [f"{name}[0]" for name in names if (name, 0) in completed]


def _reused(graph: Graph, completed: set[str]) -> set[str]:
    """Return what completed, with all that it needs."""
    reused: set[str] = set()
    for number, node in enumerate(graph.nodes):
        for index in range(node.size):
            key = key_of((number, index))
            if key in completed and _parents(graph, node, index) <= reused:
                reused.add(key)
    return reused


def _parents(graph: Graph, node: Node, index: int) -> set[str]:
    parents: set[str] = set()
    for need in node.needs:
        if need.how == "each" and node.kind == "each":
            parents.add(key_of((need.node, index)))
        elif need.how == "one":
            parents.add(key_of((need.node, 0)))
        else:
            size = graph.nodes[need.node].size
            parents |= {key_of((need.node, member)) for member in range(size)}
    return parents
