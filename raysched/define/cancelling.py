"""Cancelling task runs by the flow function itself."""

from collections.abc import Iterable

from raysched.define.blocks import note_told
from raysched.define.ports import RunPort, Told
from raysched.graph.calls import Part
from raysched.graph.group import Group
from raysched.model.states import StateType


def cancel(port: RunPort, parts: Iterable[Part], by: str) -> bool:
    """Have those of these task runs cancelled that have not ended; return whether there are any.

    What then ends CANCELLED counts as handled: the flow has asked for it.

    Args:
        port: Their flow run.
        parts: Groups with positions in them.
        by: Who asks, for people.
    """
    asked = False
    for group, indices in parts:
        still_open = [index for index in indices if not group.is_visible(index)]
        if still_open:
            asked = True
            group.watchers.append(_Handling(port, still_open))
            port.cancel_some(group, still_open, by)
            note_told(group, still_open)
    return asked


class _Handling:
    """Watches for the end of what was cancelled."""

    def __init__(self, port: RunPort, indices: Iterable[int]) -> None:
        self._port = port
        self._awaited = set(indices)

    def __call__(self, group: Group, indices: Iterable[int]) -> None:
        ended = self._awaited.intersection(indices)
        self._awaited -= ended
        cancelled = [index for index in ended if group.visible[index] == StateType.CANCELLED]
        if cancelled:
            self._port.told(group, sorted(cancelled), Told.RETURNED)
