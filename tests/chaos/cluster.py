"""A Ray of two nodes, as a process of its own: obeys words on its standard input, tells JSON."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

import psutil

CPUS = (3, 2)
"""Logical ones of the head, and of the second node."""

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    # Nodes are killed on purpose: how soon it is noticed, not whether, is what this changes.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}


class Holder:
    """The process's side."""

    def __init__(self) -> None:
        # Everybody else imports this module for `cluster`, and needs no Ray of its own.
        import ray
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": CPUS[0], "include_dashboard": False},
        )
        self._second = self._add()
        ray.init(address=self._cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        self._ray: Any = ray

    def obey(self, word: str) -> Any:
        """Do what is said; return what is to be told."""
        if word == "kill node":
            # With all its processes, as if the machine were gone.
            raylet = psutil.Process(self._second.all_processes["raylet"][0].process.pid)
            for process in (raylet, *raylet.children(recursive=True)):
                process.kill()
            self._cluster.remove_node(self._second, allow_graceful=False)
        if word == "add node":
            self._second = self._add()
        raylets = [node.all_processes["raylet"] for node in self._cluster.list_all_nodes()]
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        return {
            "address": self._cluster.address,
            "nodes": len(nodes),
            "all": self._ray.cluster_resources(),
            "free": self._ray.available_resources(),
            "raylets": [raylet[0].process.pid for raylet in raylets],
        }

    def close(self) -> None:
        """End the cluster."""
        self._ray.shutdown()
        self._cluster.shutdown()

    def _add(self) -> Any:
        return self._cluster.add_node(
            num_cpus=CPUS[1], resources={"elsewhere": 1}, wait=True, include_dashboard=False
        )


class Cluster:
    """Everybody else's side.

    Args:
        process: The process that holds the cluster.
    """

    def __init__(self, process: "Popen[str]") -> None:
        self._process = process
        self.address: str = self.say("look")["address"]

    def say(self, word: str) -> dict[str, Any]:
        """Say `look`, `kill node` or `add node`; return how the cluster is then."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{word}\n")
        stdin.flush()
        while line := stdout.readline():
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise AssertionError("the cluster has ended")

    def workers(self) -> list[psutil.Process]:
        """Return the processes that run a unit now, on all nodes."""
        found = []
        for raylet in self.say("look")["raylets"]:
            try:
                for child in psutil.Process(raylet).children():
                    # Ray names a worker after what it runs: IDLE, its own agents, or tasks.
                    title = "".join(child.cmdline()[:1]).partition("ray::")[2]
                    if title and title != "IDLE" and "Agent" not in title:
                        found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a cluster."""
    paths = [str(Path(__file__).parents[1]), *sys.path]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with Popen(
        [sys.executable, __file__],
        env=environment,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Cluster(process)
        finally:
            process.communicate()


if __name__ == "__main__":
    holder = Holder()
    for line in sys.stdin:
        print(json.dumps(holder.obey(line.strip())), flush=True)  # noqa: T201 - its answer
    holder.close()
