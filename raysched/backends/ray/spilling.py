"""How much the nodes' object stores have spilled to disk."""

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from raysched.backends.ray.capacity import amount_text
from raysched.model.events import ClusterEvent, EventKind

FULL_SHARE = 0.5
"""A node is asked what it has spilled when this share of its object store is in use. Ray begins to
spill at 0.8, and each question has the node ask all of its workers."""

SPILLED_SECONDS = 10.0
"""How often a node that goes on spilling is told of."""

BASELINES = 16
"""How many nodes are asked at a look what they had spilled before this driver came."""

ANSWER_SECONDS = 2.0
"""How long a node may take to answer."""


class Spilled(NamedTuple):
    """What a node has spilled since it was started."""

    size: int
    objects: int


class Spilling:
    """Tells of what is spilled from now on.

    Args:
        is_fresh: Whether nothing can have been spilled yet, since the Ray was started just now.
    """

    def __init__(self, *, is_fresh: bool) -> None:
        self._is_fresh = is_fresh
        self._old: set[str] | None = None
        """Nodes that may have spilled before; None before the first look."""
        self._told: dict[str, Spilled] = {}
        self._told_at: dict[str, float] = {}
        self._channels: dict[str, Any] = {}

    def see(
        self, states: Collection[Any], addresses: Mapping[str, str], at: int
    ) -> list[ClusterEvent]:
        """Return what was spilled since the last look.

        Args:
            states: Ray's `NodeState` of each node.
            addresses: `host:port` of the raylet of each living node, by the node's id.
            at: The time of the look (ns since the epoch).
        """
        if self._old is None:
            # Nobody is asked at once: most runs are over before that is of use.
            self._old = set() if self._is_fresh else set(addresses)
            return []
        self._forget_others(addresses)
        unread = sorted(self._old & addresses.keys())[:BASELINES]
        filled = {state.node_id.hex() for state in states if _is_filled(state)}
        lately = time.monotonic() - 2 * SPILLED_SECONDS
        busy = {node for node, told_at in self._told_at.items() if told_at > lately}
        found = self._ask({*unread, *((filled | busy) & addresses.keys())}, addresses)
        events = [self._note(node, spilled, addresses[node], at) for node, spilled in found.items()]
        return [event for event in events if event is not None]

    def close(self) -> None:
        """Close the channels to the nodes."""
        self._forget_others({})

    def _forget_others(self, addresses: Mapping[str, str]) -> None:
        for node in self._channels.keys() - addresses.keys():
            self._channels.pop(node).close()
            self._told.pop(node, None)
            self._told_at.pop(node, None)

    def _note(self, node: str, spilled: Spilled, address: str, at: int) -> ClusterEvent | None:
        if self._old and node in self._old:
            self._old.discard(node)
            self._told[node] = spilled
            return None
        before, now = self._told.get(node, Spilled(0, 0)), time.monotonic()
        size, objects = spilled.size - before.size, spilled.objects - before.objects
        if size <= 0 or now - self._told_at.get(node, -SPILLED_SECONDS) < SPILLED_SECONDS:
            return None
        self._told[node], self._told_at[node] = spilled, now
        ip = address.rpartition(":")[0].strip("[]")
        shown = amount_text("object_store_memory", size)
        return ClusterEvent(
            EventKind.SPILLED,
            at,
            f"node {ip} wrote {objects} objects of {shown} from its object store to disk",
            {"node_id": node, "node_ip": ip, "bytes": size, "objects": objects},
        )

    def _ask(self, nodes: Collection[str], addresses: Mapping[str, str]) -> dict[str, Spilled]:
        """Return what each of these nodes has spilled; without those that do not answer."""
        if not nodes:
            return {}
        # 26 ms, which only those pay who need it.
        from ray._private.grpc_utils import init_grpc_channel
        from ray.core.generated import node_manager_pb2, node_manager_pb2_grpc

        calls, found = {}, {}
        for node in nodes:
            if node not in self._channels:
                self._channels[node] = init_grpc_channel(addresses[node])
            stub: Any = node_manager_pb2_grpc.NodeManagerServiceStub(self._channels[node])  # type: ignore[no-untyped-call]
            request = node_manager_pb2.GetNodeStatsRequest(include_memory_info=False)  # type: ignore[attr-defined]
            calls[node] = stub.GetNodeStats.future(request, timeout=ANSWER_SECONDS)
        for node, call in calls.items():
            # One whose worker is stopped, say, does not.
            with suppress(Exception):
                stats = call.result().store_stats
                found[node] = Spilled(stats.spilled_bytes_total, stats.spilled_objects_total)
        return found


def _is_filled(state: Any) -> bool:
    total = state.total_resources.get("object_store_memory", 0.0)
    # Ray leaves out what there is nothing of.
    free = state.available_resources.get("object_store_memory", 0.0)
    return bool(total > 0 and free <= (1 - FULL_SHARE) * total)
