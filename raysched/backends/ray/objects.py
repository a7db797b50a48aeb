"""What the object store still has of the large values that this driver owns."""

from collections.abc import Sequence
from typing import Any

import ray
from ray import exceptions
from ray._private.worker import global_worker
from ray.experimental.locations import get_local_object_locations


def are_lost(refs: Sequence[Any]) -> list[bool]:
    """Return for each ref of an ended task whether its value is gone for good; pulls nothing here.

    The owner of a value, this process, knows where its copies are: no other process is asked but
    the head, once, for the nodes that live.
    """
    where = get_local_object_locations(list(dict.fromkeys(refs)))
    here = ray.get_runtime_context().get_node_id()
    living = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    lost = {}
    for ref, location in where.items():
        nodes = location["node_ids"]
        if here in nodes or not nodes:
            # In place of what is lost, Ray keeps an error here. Small ones have no node.
            lost[ref] = not location["did_spill"] and not _has_value(ref)
        else:
            lost[ref] = not location["did_spill"] and living.isdisjoint(nodes)
    return [lost.get(ref, True) for ref in refs]


def _has_value(ref: Any) -> bool:
    """Whether what is in this node's store, or in this process, is a value, without reading it."""
    try:
        ((_, metadata, _),) = global_worker.core_worker.get_objects([ref], 0)  # type: ignore[attr-defined]
    except exceptions.RayError:
        return False
    # Ray's number of an error stands in the place of the kind of a value.
    return not metadata.split(b",")[0].isdigit()
