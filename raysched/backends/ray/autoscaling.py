"""What the cluster's autoscaler asked for, got, and did not get.

It is what Ray's second autoscaler tells the head of, which `ray up` and KubeRay start by default.
Nodes that it starts and ends come and go as others do; that it ended one is in Ray's reason.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from raysched.backends.ray.capacity import amount_text
from raysched.backends.ray.once import Once
from raysched.model.events import ClusterEvent, EventKind

_SECOND = 1_000_000_000
"""Nanoseconds."""


class Autoscaling:
    """Tells of an autoscaler's acts, each once, and of none before the first look."""

    def __init__(self) -> None:
        self._once = Once()
        self._looked = False

    def see(self, state: Any, at: int) -> list[ClusterEvent]:
        """Return what is new.

        Args:
            state: Ray's `AutoscalingState`; empty where nothing scales the cluster.
            at: The time of the look (ns since the epoch).
        """
        told = chain(_acts(state, at), _refusals(state, at))
        fresh = [event for key, event in told if self._once.is_new(key)]
        was_first, self._looked = not self._looked, True
        return [] if was_first else fresh


def _acts(state: Any, at: int) -> Iterator[tuple[tuple[object, ...], ClusterEvent]]:
    """Yield what an autoscaler asked for and got, each with what it is known by later."""
    for asked in state.pending_instance_requests:
        kind, seconds = asked.ray_node_type_name, asked.request_ts
        yield (
            ("requested", kind, seconds),
            _event(
                seconds * _SECOND or at,
                f"the autoscaler asked for {_nodes(asked.count)} of type {kind}",
                action="requested",
                node_type=kind,
                count=asked.count,
            ),
        )
    for launched in state.pending_instances:
        kind = launched.ray_node_type_name
        yield (
            ("launched", launched.instance_id),
            _event(
                at,
                f"the autoscaler got a node of type {kind}, which starts Ray",
                action="launched",
                node_type=kind,
                instance_id=launched.instance_id,
            ),
        )


def _refusals(state: Any, at: int) -> Iterator[tuple[tuple[object, ...], ClusterEvent]]:
    """Yield what an autoscaler did not get, or cannot, each with what it is known by later."""
    failures = Counter(
        (each.ray_node_type_name, each.failed_ts, each.reason)
        for each in state.failed_instance_requests
        for _ in range(max(each.count, 1))
    )
    for (kind, seconds, reason), count in failures.items():
        yield (
            ("failed", kind, seconds, reason),
            _event(
                seconds * _SECOND or at,
                f"the autoscaler did not get {_nodes(count)} of type {kind}: {reason}",
                action="failed",
                node_type=kind,
                count=count,
                reason=reason,
            ),
        )
    for wanted in state.infeasible_resource_requests:
        resources = _shown(wanted.resources_bundle)
        yield (
            ("infeasible", resources),
            _event(
                at,
                f"the autoscaler has no type of node with {resources}",
                action="infeasible",
                resources=resources,
            ),
        )


def _event(at: int, message: str, **attributes: str | int) -> ClusterEvent:
    return ClusterEvent(EventKind.AUTOSCALED, at, message, dict(attributes))


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _shown(resources: Any) -> str:
    return ", ".join(f"{name}={amount_text(name, resources[name])}" for name in sorted(resources))
