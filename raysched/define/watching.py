"""Watching many task runs at once, at a cost for each that ends and not for each look."""

import threading
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from raysched.graph.calls import Member, Part
from raysched.graph.group import Group
from raysched.model.states import FAILURES, FIRST_TERMINAL

_FAILURE_CODES = frozenset(int(state) for state in FAILURES)


class Watch:
    """Counts the task runs of a set that have not ended yet. A context manager.

    Args:
        parts: Groups with positions in them; doubled ones count once.
        stop_at_failure: Whether `satisfied` is true already at the first failure.
        collect: Whether to put the members that end into `ended`, in order.

    Attributes:
        open: How many have not ended.
        failed: The first failure seen with `stop_at_failure`, otherwise None.
        ended: Those that have ended and nobody has taken yet.
    """

    def __init__(
        self, parts: Iterable[Part], *, stop_at_failure: bool = False, collect: bool = False
    ) -> None:
        self.open = 0
        self.failed: Member | None = None
        self.ended: deque[Member] = deque()
        self._stop_at_failure = stop_at_failure
        self._collect = collect
        self._lock = threading.Lock()
        self._wanted: dict[Group, bytearray] = {}
        for group, indices in parts:
            wanted = self._wanted.setdefault(group, bytearray())
            wanted.extend(bytes(max(0, group.size - len(wanted))))
            if indices.step == 1:
                self.open += len(indices) - wanted[indices.start : indices.stop].count(1)
                wanted[indices.start : indices.stop] = b"\1" * len(indices)
                continue
            for index in indices:
                self.open += not wanted[index]
                wanted[index] = 1

    def satisfied(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return not self.open or self.failed is not None

    def __enter__(self) -> Self:
        for group, wanted in self._wanted.items():
            group.watchers.append(self._note)
            # Those that ended before this watched; `_note` counts each once.
            codes = bytes(group.visible[: len(wanted)])
            if codes and max(codes) >= FIRST_TERMINAL:
                self._note(group, [i for i, code in enumerate(codes) if code >= FIRST_TERMINAL])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for group in self._wanted:
            group.watchers.remove(self._note)

    def _note(self, group: Group, indices: Iterable[int]) -> None:
        wanted = self._wanted[group]
        size = len(wanted)
        with self._lock:
            if isinstance(indices, range) and self._note_all(group, indices, wanted):
                return
            for index in indices:
                if index >= size or not wanted[index]:
                    continue
                wanted[index] = 0
                self.open -= 1
                if self._collect:
                    self.ended.append((group, index))
                if self._stop_at_failure and group.visible[index] in _FAILURE_CODES:
                    self.failed = self.failed or (group, index)

    def _note_all(self, group: Group, indices: range, wanted: bytearray) -> bool:
        """Note a range at once, if all of it is wanted and no failure in it matters."""
        part = slice(indices.start, indices.stop)
        if self._collect or wanted[part].count(1) < len(indices):
            return False
        if self._stop_at_failure and not _FAILURE_CODES.isdisjoint(group.visible[part]):
            return False
        wanted[part] = bytes(len(indices))
        self.open -= len(indices)
        return True
