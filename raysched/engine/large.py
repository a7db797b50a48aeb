"""Which large results of a flow run are kept in the result storage, and what is said of others."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raysched.graph.group import Group
from raysched.model.rows import TaskRunColumns
from raysched.model.values import LargeValue
from raysched.results.storage import directory_of
from raysched.worker.protocol import RunHeader, encode_header

if TYPE_CHECKING:
    from raysched.engine.flow_run import Host

NOT_SHARED = (
    "large results are not kept: the cluster has several nodes, and {storage} is on one of them. "
    "Set RAYSCHED_RESULT_STORAGE to an URL that all nodes reach (s3://bucket/results), or to a "
    "directory that they share (file:///shared/results)"
)


class LargeResults:
    """The large results of one flow run. Within turns.

    Args:
        header: What its units know about it.
        host: The engine.
        say: Takes a level of logging and what people should know.
        kept: How much earlier executions of the flow run have kept (bytes).

    Attributes:
        problem: Why none of them is kept, or "".
    """

    def __init__(
        self, header: RunHeader, host: "Host", say: Callable[[int, str], None], kept: int = 0
    ) -> None:
        self.problem = ""
        self._settings = settings = host.settings
        self._storage = host.storage
        # A directory that is named in the settings is believed to be shared.
        if self._storage and not settings.result_storage and not host.backend.shares_files():
            self.problem = NOT_SHARED.format(storage=self._storage)
            self._storage = ""
        self._say = say
        self._kept = kept
        self._refusal = ""
        self._counted: set[tuple[int, int]] = set()
        self._unkept: dict[tuple[int, int], tuple[str, int]] = {}
        self._without = encode_header(header)
        directory = directory_of(self._storage, header.run_id)
        limit = settings.kept_result_max_bytes
        self._with = encode_header(header._replace(storage=directory, kept_max_bytes=limit))

    @property
    def header(self) -> bytes:
        """The encoded header for the next unit."""
        return self._with if self._storage and not self._is_full else self._without

    @property
    def _is_full(self) -> bool:
        return self._kept >= self._settings.kept_run_max_bytes

    def refused(self, problem: str) -> None:
        """Take note that a worker could not write into the storage."""
        self._refusal = problem

    def committed(self, group: Group, indices: Sequence[int], columns: TaskRunColumns) -> None:
        """Account for rows of these members that the store has now."""
        if None not in columns.values or not group.spec.persist_result:
            # All are small, as mostly.
            return
        for index in indices:
            value = group.values[index]
            if isinstance(value, LargeValue):
                self._count((group.id, index), value)

    def _count(self, member: tuple[int, int], value: LargeValue) -> None:
        if value.location:
            self._unkept.pop(member, None)
            if member not in self._counted:
                self._counted.add(member)
                self._kept += value.size
        elif self._storage and member not in self._unkept:
            reason = self._reason(value.size)
            if all(reason != said for said, _ in self._unkept.values()):
                self._say(logging.WARNING, f"some results are not kept: {reason}")
            self._unkept[member] = reason, value.size

    def _reason(self, size: int) -> str:
        limits = self._settings
        if size > limits.kept_result_max_bytes:
            return f"larger than RAYSCHED_KEPT_RESULT_MAX_BYTES={limits.kept_result_max_bytes:,}"
        if self._refusal and not self._is_full:
            return f"the result storage could not be written: {self._refusal}"
        return f"the run has RAYSCHED_KEPT_RUN_MAX_BYTES={limits.kept_run_max_bytes:,} already"

    def summary(self) -> str:
        """Return what was not kept, for the end of the run: `3 results (12 GB) were not kept: …`.

        "" if all was, or if nothing is kept at all, which was said at the start.
        """
        if not self._unkept:
            return ""
        number, size = len(self._unkept), sum(size for _, size in self._unkept.values())
        results = "1 result" if number == 1 else f"{number} results"
        were = "was" if number == 1 else "were"
        reasons = Counter(reason for reason, _ in self._unkept.values())
        return f"{results} ({_told(size)}) {were} not kept: {'; '.join(reasons)}"


def _told(size: int) -> str:
    """Return a size as people write it: `12 GB`, `1.5 MB`."""
    amount, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:  # noqa: PLR2004 - decimal units
        amount, units = amount / 1000, units[1:]
    return f"{amount:.3g} {units[0]}"
