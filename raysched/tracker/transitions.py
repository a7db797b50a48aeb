"""The one table of legal state changes of a task run."""

from collections.abc import Sequence

from raysched.errors import IllegalTransition
from raysched.graph.group import Group
from raysched.model.states import StateType

_S = StateType

TRANSITIONS: dict[StateType, frozenset[StateType]] = {
    _S.SCHEDULED: frozenset(
        {_S.PENDING, _S.SKIPPED, _S.TIMED_OUT, _S.UPSTREAM_FAILED, _S.CANCELLED}
    ),
    _S.PENDING: frozenset(
        {
            _S.RUNNING,
            _S.COMPLETED,
            _S.CACHED,
            _S.FAILED,
            _S.TIMED_OUT,
            _S.CRASHED,
            _S.UPSTREAM_FAILED,
            _S.CANCELLED,
            _S.CANCELLING,
        }
    ),
    _S.RUNNING: frozenset(
        {
            _S.PENDING,
            _S.AWAITING_RETRY,
            _S.CANCELLING,
            _S.COMPLETED,
            _S.SKIPPED,
            _S.FAILED,
            _S.TIMED_OUT,
            _S.CRASHED,
            _S.CANCELLED,
        }
    ),
    _S.AWAITING_RETRY: frozenset(
        {
            _S.PENDING,
            _S.COMPLETED,
            _S.FAILED,
            _S.TIMED_OUT,
            _S.CRASHED,
            _S.CANCELLED,
        }
    ),
    _S.CANCELLING: frozenset(
        {
            _S.AWAITING_RETRY,
            _S.COMPLETED,
            _S.SKIPPED,
            _S.FAILED,
            _S.TIMED_OUT,
            _S.CRASHED,
            _S.CANCELLED,
        }
    ),
}
"""From each open state, where it may go. RUNNING goes back to PENDING when its worker was lost
through another task run of its unit. One that waits completes by its fallback, or ends with its
last failure when its group is stopped. What was stopped by a limit of time may go on with its
fallback. Terminal states have no entry: nothing leaves them."""

_LEGAL = frozenset(source * 32 + target for source in TRANSITIONS for target in TRANSITIONS[source])


def move(group: Group, index: int, target: StateType) -> None:
    """Change one member's state.

    Raises:
        IllegalTransition: The table forbids it. The message tells the task run's story.
    """
    source = group.states[index]
    if source * 32 + target not in _LEGAL:
        message = (
            f"{group.key(index)}: {StateType(source).name} -> {target.name} is illegal "
            f"(attempt {group.attempts[index]}, started {group.started[index]}, "
            f"ended {group.ended[index]}, run {group.run_id})"
        )
        raise IllegalTransition(message)
    group.states[index] = target


def move_all(group: Group, indices: Sequence[int], target: StateType) -> None:
    """Change the states of several members: of a range, all at once.

    Raises:
        IllegalTransition: The table forbids one of them (see `move`).
    """
    if isinstance(indices, range):
        part = slice(indices.start, indices.stop)
        if all(source * 32 + target in _LEGAL for source in set(group.states[part])):
            group.states[part] = bytes((target,)) * len(indices)
            return
    for index in indices:
        move(group, index, target)
