"""The nodes of the cluster."""

import ray
from ray._private.state import state

from raysched.backends.ray.capacity import Node


def living_nodes() -> list[Node]:
    """Return the nodes that are alive."""
    return [
        Node(node["NodeID"], node["Resources"], node["Labels"])
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def addable_nodes() -> list[Node]:
    """Return the nodes that the cluster's autoscaler can add."""
    config = state.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    # -1 means any number of them.
    return [
        Node("", dict(group.resources), count=group.max_count if group.max_count > 0 else 1)
        for group in groups
        if group.max_count
    ]


def are_here() -> bool:
    """Whether all nodes that are alive are on the machine of this process."""
    here = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    addresses = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    return addresses <= {here, "127.0.0.1"}
