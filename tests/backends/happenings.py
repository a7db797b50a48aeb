"""A driver to whose cluster something happens; prints the events that it was told as JSON.

Its first argument says what.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Of the harness beside this script.
sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
import psutil

from backends.autoscaled import AutoscaledCluster
from backends.harness import Harness
from faults.cluster import Cluster
from raysched.backends.ray.backend import RayBackend
from raysched.model.events import EventKind
from raysched.model.options import TaskSpec

ELSEWHERE = {"resources": {"elsewhere": 1}}

MIB = 1024**2


def nodes_come_and_go() -> Any:
    with closing(Cluster()) as cluster:
        other = cluster.add("other")
        harness = Harness(RayBackend(address=cluster.address))
        raylet = cluster.add("elsewhere")
        harness.until_happened(EventKind.NODE_ADDED)
        number = harness.submit(TaskSpec("sleep", time.sleep, ray=ELSEWHERE), [(600,)])
        harness.until_began(number)
        cluster.kill(raylet)
        lost = harness.finish(number).lost
        assert lost is not None
        # A caller of the node sees its death before Ray's head does.
        harness.until_happened(EventKind.NODE_REMOVED)
        # Whatever else is told of it would come at the next looks.
        harness.listen(5)
        number = harness.submit(
            TaskSpec("sleep", time.sleep, ray={"resources": {"other": 1}}), [(600,)]
        )
        harness.until_began(number)
        psutil.Process(other).terminate()
        drained = harness.finish(number).lost
        assert drained is not None
        harness.backend.stop()
        return {
            "nodes": [each.evidence["node_id"] for each in (lost, drained)],
            "events": _told(harness),
        }


def memory_runs_out() -> Any:
    memory = psutil.virtual_memory()
    limit = memory.total - memory.available + 1536 * MIB
    os.environ |= {
        "RAY_memory_usage_threshold": str(limit / memory.total),
        "RAY_memory_monitor_refresh_ms": "50",
    }
    harness = Harness(RayBackend(address="local", init_kwargs={"num_cpus": 1}))
    ended = harness.run(_hog)
    assert ended.lost is not None
    harness.backend.stop()
    return {"evidence": ended.lost.evidence, "events": _told(harness)}


def store_overflows() -> Any:
    arguments = {"num_cpus": 1, "object_store_memory": 80 * MIB}
    harness = Harness(RayBackend(address="local", init_kwargs=arguments))
    # Held, or there would be no need to write them to disk.
    held = [harness.run(_make, (20 * MIB,)) for _ in range(8)]
    harness.until_happened(EventKind.SPILLED)
    harness.backend.stop()
    return {"made": len(held), "events": _told(harness)}


def cluster_is_scaled() -> Any:
    with closing(AutoscaledCluster()) as cluster:
        harness = Harness(RayBackend(address=cluster.address))
        harness.run(time.sleep, (3,))
        harness.until_happened(EventKind.NODE_REMOVED)
        harness.backend.stop()
        return {"events": _told(harness)}


def _hog() -> None:
    held = []
    # Bounded: more than the limit of this Ray, far less than the machine has.
    for _ in range(15):
        held.append(bytes(200 * MIB).replace(b"\0", b"x"))
        time.sleep(0.05)
    time.sleep(5)


def _make(size: int) -> Any:
    return np.ones(size, dtype=np.uint8)


def _told(harness: Harness) -> list[dict[str, Any]]:
    return [asdict(event) for event in harness.events]


if __name__ == "__main__":
    scenes = (nodes_come_and_go, memory_runs_out, store_overflows, cluster_is_scaled)
    scene = {each.__name__: each for each in scenes}[sys.argv[1]]
    print(json.dumps(scene()))  # noqa: T201 - its caller reads it
