"""How many small values stay in memory: the store has them all, so the oldest can be let go of."""

import threading
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
        if group.spec.persist_result:
            group.load = partial(self._load, number)

    def committed(self, group: Group, columns: TaskRunColumns) -> None:
        """Account for rows of a group that the store has now."""
        if group.load is not None:
            kept = [value for value in columns.values if value is not None]
            self._keep(group, columns.indices, sum(map(len, kept)) + OBJECT_BYTES * len(kept))

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
        start = index - index % PAGE
        stop = min(start + PAGE, group.size)
        page = self._read(number, group.id, start, stop)
        if index not in page:
            raise ResultLost(f"the value of {group.key(index)} is not in the database any more")
        missing = [each for each in page if group.values[each] is None]
        for each in missing:
            group.values[each] = page[each]
        size = sum(len(page[each]) for each in missing) + OBJECT_BYTES * len(missing)
        self._keep(group, missing, size)
        return page[index]
