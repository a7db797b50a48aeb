"""Stopping a group early of which too much fails."""

from raysched.model.states import FAILED_ITSELF
from raysched.tracker.run import Node, Turn


def trip(turn: Turn, node: Node) -> None:
    """Stop a group if that is what its failures call for; see `cancelling.stop_tripped`."""
    if node.stopped:
        return
    group, most = node.group, node.group.spec.max_failures
    same = group.spec.max_same_failures
    if same is None:
        same = turn.run.max_same_failures
    if most is not None and _too_many(node.own_failures, most, group.size):
        node.stopped = f"max_failures={most!r}: {node.own_failures} of {group.size} failed"
    elif same and node.same >= same and group.size > 1 and group.spec.fallback is None:
        node.stopped = f"max_same_failures={same}: so many failed in a row in the same way"
    if node.stopped:
        turn.tripped.append(node)


def _too_many(failures: int, most: float, size: int) -> bool:
    if isinstance(most, int):
        return failures > most
    return failures > most * size


MAX_ROOTS = 10
"""Most failures that a task run names which was not begun because of them."""


def latest_failures(node: Node) -> list[int]:
    """Return the members whose failures stopped a group, the last ones first."""
    group = node.group
    failed = [index for index, state in enumerate(group.states) if state in FAILED_ITSELF]
    return sorted(failed, key=lambda index: -group.ended[index])[:MAX_ROOTS]
