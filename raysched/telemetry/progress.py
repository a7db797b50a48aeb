"""What of the traces of flow runs has been told, and has arrived."""

import threading
from collections.abc import Callable, Iterable

from raysched.model.rows import FlowRunRow
from raysched.model.traces import TraceParent


class Progress:
    """Which executions of flow runs have been told; marks them when they have been delivered.

    Args:
        mark: Notes how many executions of a flow run have been delivered, counted from the first.
    """

    def __init__(self, mark: Callable[[str, int], None]) -> None:
        self._mark = mark
        self._lock = threading.Lock()
        self._failed: set[str] = set()
        self._rows: dict[str, FlowRunRow] = {}
        self._told: dict[str, set[int]] = {}

    def failed(self, run_id: str) -> None:
        """Note that not all of a flow run's spans could be made."""
        with self._lock:
            self._failed.add(run_id)

    def told(self, row: FlowRunRow, numbers: Iterable[int]) -> None:
        """Note that all spans of executions of a flow run without a parent were given to the sink.

        Args:
            row: The flow run.
            numbers: Which executions, from 1.
        """
        with self._lock:
            known = self._rows.get(row.id)
            if known is None or len(known.executions) <= len(row.executions):
                self._rows[row.id] = row
            self._told.setdefault(row.id, set()).update(numbers)

    def delivered(self, run_id: str) -> None:
        """Mark what has been told of a flow run: all of it has arrived."""
        with self._lock:
            row = self._rows.get(run_id)
            if row is None or run_id in self._failed:
                return
            count = row.traced
            while count < len(row.executions) and self._is_done(row, count + 1):
                count += 1
            if count == len(row.executions):
                del self._rows[run_id], self._told[run_id]
        if count > row.traced:
            self._mark(run_id, count)

    def _is_done(self, row: FlowRunRow, number: int) -> bool:
        place = TraceParent.parse(row.executions[number - 1].traceparent)
        return place is None or not place.sampled or number in self._told[row.id]
