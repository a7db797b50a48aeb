"""What happens to a cluster while a run is on it."""

from dataclasses import dataclass, field
from enum import StrEnum


class EventKind(StrEnum):
    """What happened, as it is kept and shown."""

    NODE_ADDED = "node added"
    NODE_REMOVED = "node removed"
    WORKER_DIED = "worker died"
    OUT_OF_MEMORY = "out of memory"
    SPILLED = "objects spilled"
    AUTOSCALED = "autoscaled"


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """Something that happened to the cluster, told once.

    Attributes:
        kind: What.
        at: When (ns since the epoch).
        message: What people should read, with the reason that Ray gives.
        attributes: Details: `node_id`, `node_ip`, `worker_id`, `pid`, `bytes`, `resources`, …
    """

    kind: EventKind
    at: int
    message: str
    attributes: dict[str, str | int | float] = field(default_factory=dict)
