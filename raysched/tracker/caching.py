"""Task runs whose result may be there already: asked about before they are queued."""

from collections.abc import Collection, Sequence

from raysched.model.states import StateType
from raysched.model.values import ErrorInfo
from raysched.tracker.attempts import Failure, completed, give_up
from raysched.tracker.dependencies import settle
from raysched.tracker.messages import CacheAnswered
from raysched.tracker.run import Node, Turn


def cache_answered(turn: Turn, event: CacheAnswered) -> None:
    """Account for an answer: what has a result ends CACHED, what has none is queued."""
    node = turn.run.nodes[event.group.id]
    ended = list(_waiting(node, event.hits))
    for index in ended:
        _use(turn, node, index, event)
    failed = _waiting(node, event.errors)
    ended.extend(index for index in failed if _fail(turn, node, index, event.errors[index]))
    for index in _waiting(node, event.busy, stay=True):
        event.group.reasons[index] = event.busy[index]
        turn.record(event.group, index)
    missing = _waiting(node, event.misses)
    for index in missing:
        if index in event.group.reasons:
            # Empty, not gone: what is kept of it has to be replaced.
            event.group.reasons[index] = ""
    if missing:
        turn.run.lane(node).add(node, missing)
    if ended:
        settle(turn, node, ended)


def _waiting(node: Node, indices: Collection[int], *, stay: bool = False) -> Sequence[int]:
    """Return those of these members that wait for an answer; unless they stay, no longer."""
    asking, states = node.asking, node.group.states
    waiting = [i for i in indices if i in asking and states[i] == StateType.PENDING]
    if not stay:
        asking.difference_update(indices)
    if isinstance(indices, range) and len(waiting) == len(indices):
        return indices
    return waiting


def _use(turn: Turn, node: Node, index: int, event: CacheAnswered) -> None:
    group = node.group
    group.values[index], group.reasons[index] = event.hits[index]
    group.started[index] = group.ended[index] = turn.now
    completed(turn, node, index, StateType.CACHED)


def _fail(turn: Turn, node: Node, index: int, error: ErrorInfo) -> bool:
    node.group.started[index] = node.group.ended[index] = turn.now
    return give_up(turn, Failure(node, index, StateType.FAILED, error), "its cache key failed")
