"""A Ray cluster of two nodes on this machine, until the standard input ends."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1, resources={"elsewhere": 1})
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)  # noqa: T201 - its caller reads it
    sys.stdin.read()
    cluster.shutdown()  # type: ignore[no-untyped-call]
