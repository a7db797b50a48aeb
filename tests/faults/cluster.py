"""A Ray cluster on this machine that a test breaks.

As a script it has a head, and adds a node for each line `<resource>` of its standard input; it
prints the address of the head, and then the process id of each node's raylet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    # By default Ray takes 15 s to see the death of a node.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "6",
}


class Cluster:
    """A head without CPUs, and nodes that a test adds and kills."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__)],
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._read()

    def add(self, resource: str) -> int:
        """Add a node with 2 CPUs and 8 of a resource; return the process id of its raylet."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{resource}\n")
        self._process.stdin.flush()
        return int(self._read())

    @staticmethod
    def kill(raylet: int) -> None:
        """Kill all processes of a node at once."""
        process = psutil.Process(raylet)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                each.kill()

    def close(self) -> None:
        """End all of it."""
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the cluster has ended"
        return line


def main() -> None:
    from ray.cluster_utils import Cluster as RayCluster

    cluster = RayCluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    print(cluster.address, flush=True)  # noqa: T201 - its caller reads it
    for line in sys.stdin:
        node = cluster.add_node(num_cpus=2, resources={line.strip(): 8})
        (raylet,) = node.all_processes["raylet"]
        print(raylet.process.pid, flush=True)  # noqa: T201
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
