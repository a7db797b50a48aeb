"""The deaths of workers, as Ray's head tells of them."""

import contextlib
import re
from typing import NamedTuple

import ray
from ray._private.state import state
from ray.core.generated import common_pb2, gcs_pb2

_USUAL = " Some common causes"
"""What Ray says of every dead worker begins so."""

_MEMORY = re.compile(r"Memory usage (\d+)B exceeded threshold of (\d+)B")

_MS = 1_000_000
"""Nanoseconds of a millisecond."""


class Death(NamedTuple):
    """How a worker died.

    Attributes:
        worker_id: Ray's id of the worker.
        node_id: Ray's id of its node.
        node_ip: Address of that node.
        pid: Its process.
        exit_type: Ray's word for it: `SYSTEM_ERROR`, `NODE_OUT_OF_MEMORY`, …
        detail: What Ray says, without what it says of every dead worker.
        at: When (ns since the epoch).
        memory: What it held when Ray killed it for memory (bytes), else 0.
    """

    worker_id: str
    node_id: str
    node_ip: str
    pid: int
    exit_type: str
    detail: str
    at: int
    memory: int

    @property
    def is_intended(self) -> bool:
        """Whether Ray or the program ended it: it was idle, or its driver has left."""
        return self.exit_type.startswith("INTENDED")

    @property
    def reason(self) -> str:
        """What Ray says, after its word for it."""
        return f"{self.exit_type}: {self.detail}"


def death_of(worker_id: str) -> Death | None:
    """Return how a worker died; None if it lives, or Ray does not tell."""
    # Private: what is missing here is missing in what is told, no more.
    with contextlib.suppress(Exception):
        accessor = state._connect_and_get_accessor()  # noqa: SLF001
        data = accessor.get_worker_info(ray.WorkerID.from_hex(worker_id))
        row = gcs_pb2.WorkerTableData.FromString(data)  # type: ignore[attr-defined]
        if not row.is_alive:
            return Death(
                worker_id,
                row.worker_address.node_id.hex(),
                row.worker_address.ip_address,
                row.pid,
                common_pb2.WorkerExitType.Name(row.exit_type),  # type: ignore[attr-defined]
                row.exit_detail.partition(_USUAL)[0],
                row.end_time_ms * _MS,
                row.memory_used_bytes_at_death,
            )
    return None


def memory_of(said: str) -> tuple[int, int] | None:
    """Return how much memory of a node was used, and allowed, when Ray killed workers (bytes).

    Args:
        said: What Ray says of the kill.
    """
    found = _MEMORY.search(said)
    return (int(found[1]), int(found[2])) if found else None
