"""How many small values stay in memory: the store has them all, so the oldest can be let go of."""

import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from raysched.errors import ResultLost
from raysched.graph.group import Group
from raysched.model.rows import TaskRunColumns
from raysched.model.values import Value

OBJECT_BYTES = 48
"""What CPython takes for a bytes object beside its content (bytes)."""

PAGE = 1000
"""Members whose values are read together: who needs one mostly needs its neighbours next."""

Read: TypeAlias = Callable[[int, int, int, int], Mapping[int, bytes]]
"""`Store.values`."""


class KeptValues:
    """The small values in memory, oldest first.

    Args:
        read: Reads from the store.
        limit: How much stays in memory (bytes); older values are read again when needed.
    """

    def __init__(self, read: Read, limit: int) -> None:
        self._read = read
        self._limit = limit
        self._oldest: deque[tuple[Group, Sequence[int], int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def attach(self, group: Group, number: int) -> None:
        """Let values of a group go and come.

        Args:
            group: The group.
            number: Number of its flow run in the store.
        """
        if group.spec.persist_result or group.recorded is not None:
            group.load = partial(self._load, number)

    def committed(self, group: Group, indices: Sequence[int], columns: TaskRunColumns) -> None:
        """Account for rows of these members that the store has now."""
        if group.load is not None:
            kept = [value for value in columns.values if value is not None]
            self._keep(group, indices, sum(map(len, kept)) + OBJECT_BYTES * len(kept))

    def _keep(self, group: Group, indices: Sequence[int], size: int) -> None:
        with self._lock:
            self._oldest.append((group, indices, size))
            self._bytes += size
            while self._bytes > self._limit and len(self._oldest) > 1:
                oldest, members, gone = self._oldest.popleft()
                self._bytes -= gone
                for index in members:
                    if isinstance(oldest.values[index], bytes):
                        oldest.values[index] = None

    def _load(self, number: int, group: Group, index: int) -> Value:
        kept_in, position = group.place(index)
        start = position - position % PAGE
        page = self._read(number, kept_in, start, start + PAGE)
        if position not in page:
            raise ResultLost(f"the value of {group.key(index)} is not in the database any more")
        values, found = group.values, _members(group, page)
        missing = [(member, value) for member, value in found if values[member] is None]
        for member, value in missing:
            values[member] = value
        size = sum(len(value) + OBJECT_BYTES for _, value in missing)
        self._keep(group, [member for member, _ in missing], size)
        return page[position]


def _members(group: Group, page: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
    """Return values by member that are here by the position where they are kept."""
    if not group.continues or isinstance(group.positions, range):
        return [(member, value) for member, value in page.items() if member < group.size]
    positions = group.positions
    start, stop = 0, len(positions)
    if group.mapped and page:
        # Those of a map mostly ascend; who is missed here is read when it is asked for.
        start, stop = bisect_left(positions, min(page)), bisect_right(positions, max(page))
    return [(n, page[each]) for n in range(start, stop) if (each := positions[n]) in page]
