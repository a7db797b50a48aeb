"""Telling what happens to the cluster, from what Ray lets be seen of it.

Each source fails for itself, and softly: much of this is private to Ray, and no run may suffer from
it. What happened before the start is not told.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ray
from ray._private.worker import global_worker
from ray.core.generated import autoscaler_pb2, common_pb2

from raysched.backends.ray.autoscaling import Autoscaling
from raysched.backends.ray.capacity import amount_text
from raysched.backends.ray.deaths import Death, death_of, memory_of
from raysched.backends.ray.hearts import Whereabouts
from raysched.backends.ray.once import Once
from raysched.backends.ray.spilling import Spilling
from raysched.engine.ports import Happened, Sink
from raysched.model.events import ClusterEvent, EventKind
from raysched.model.values import CrashKind, ErrorInfo, Evidence

LOOK_SECONDS = 2.0
"""How often the head is asked."""

CPU_SHARE = 0.01
"""How much of a CPU all looks may take; on a large cluster they are fewer."""

ANSWER_SECONDS = 2.0
"""How long the head may take to answer."""

LOOKS_AFTER_DEATH = range(2, 5)
"""At which looks after a worker's channel has ended it is asked how. At the first, whoever looks
into the unit that was lost with it may still be at work, and finds more."""

_JOIN_SECONDS = 0.5

_MS = 1_000_000
"""Nanoseconds of a millisecond."""

_log = logging.getLogger(__name__)


class Events:
    """Tells of nodes, of workers of ours, of spilled objects and of the autoscaler, each once.

    Args:
        sink: Where events go; called in several threads.
        is_fresh: Whether the Ray was started just now.
    """

    def __init__(self, sink: Sink, *, is_fresh: bool) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._living: dict[str, str] = {}
        """Address of the raylet of each node that lives, by the node's id."""
        self._dead: set[str] = set()
        self._left: dict[str, int] = {}
        """Workers whose channel has ended, with the looks since then."""
        self._died = Once()
        self._failed: set[str] = set()
        self._autoscaling = Autoscaling()
        self._spilling = Spilling(is_fresh=is_fresh)
        self._softly("nodes", lambda: self._compare_nodes(ray.nodes()))  # type: ignore[no-untyped-call]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="raysched events", daemon=True)
        self._thread.start()

    def see_nodes(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Take note of what `ray.nodes()` says now; from any thread."""
        self._softly("nodes", lambda: self._tell_of_nodes(nodes))

    def worker_left(self, worker: Whereabouts) -> None:
        """Take note that a worker's channel has ended; from any thread, returns at once."""
        self._left[worker.worker_id] = 0

    def unit_lost(self, evidence: Evidence, error: ErrorInfo) -> None:
        """Take note that a unit was lost, before that is told, so that runs still get the event.

        Args:
            evidence: What was found out about its worker.
            error: What the unit's task runs are told.
        """
        if error.kind == CrashKind.NODE_DIED:
            self._softly("nodes", lambda: self._tell_of_nodes(ray.nodes()))  # type: ignore[no-untyped-call]
        elif worker_id := evidence.get("worker_id"):
            reason = error.message.partition("\n")[0]
            self._softly("workers", lambda: self._tell_of_death(worker_id, reason))

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    def _loop(self) -> None:
        wait = 0.0
        while not self._ended.wait(wait):
            before = time.thread_time()
            self._softly("workers", self._look_at_workers)
            self._softly("status", self._look_at_status)
            wait = max(LOOK_SECONDS, (time.thread_time() - before) / CPU_SHARE)
        self._spilling.close()

    def _softly(self, source: str, look: Callable[[], object]) -> None:
        try:
            look()
        except Exception:  # noqa: BLE001 - of Ray's inside; its events are missing, no more
            if source not in self._failed:
                self._failed.add(source)
                _log.debug("the cluster's %s cannot be seen", source, exc_info=True)

    def _tell(self, events: Iterable[ClusterEvent]) -> None:
        for event in events:
            self._sink(Happened(event))

    def _tell_of_nodes(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        # Told under the lock: whoever sees it next may tell of a unit that was lost with it.
        with self._lock:
            changed = self._compare_nodes(nodes)
            if changed:
                times = _times_of_nodes()
                self._tell(
                    _node_event(node, *times.get(node["NodeID"], (0, 0))) for node in changed
                )

    def _compare_nodes(self, nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return which nodes have come or gone, of which that was not known.

        Several threads ask for them, and who asked first may be the last to come here: what is dead
        stays so, and what is missing has not gone.
        """
        died = {node["NodeID"] for node in nodes if not node["Alive"]} - self._dead
        self._dead |= died
        there = {node["NodeID"]: _address(node) for node in nodes if node["Alive"]}
        came = there.keys() - self._living.keys() - self._dead
        living = self._living | {node: there[node] for node in came}
        # Another one: somebody may be reading it.
        self._living = {node: living[node] for node in living.keys() - died}
        return [node for node in nodes if node["NodeID"] in (came if node["Alive"] else died)]

    def _look_at_workers(self) -> None:
        for worker_id in tuple(self._left):
            looks = self._left[worker_id] = self._left[worker_id] + 1
            if looks >= LOOKS_AFTER_DEATH.stop or (
                looks in LOOKS_AFTER_DEATH and self._tell_of_death(worker_id)
            ):
                del self._left[worker_id]

    def _tell_of_death(self, worker_id: str, reason: str = "") -> bool:
        """Tell of a worker that has died by accident; return whether it has died at all.

        Args:
            worker_id: Ray's id of it.
            reason: What else than Ray's words people should read.
        """
        death = death_of(worker_id)
        if death is None:
            return False
        with self._lock:
            if not death.is_intended and self._died.is_new(worker_id):
                self._tell([_death_event(death, reason)])
        return True

    def _look_at_status(self) -> None:
        status = autoscaler_pb2.GetClusterStatusReply()  # type: ignore[attr-defined]
        status.ParseFromString(_gcs_client().get_cluster_status(ANSWER_SECONDS))
        now = time.time_ns()
        self._tell(self._autoscaling.see(status.autoscaling_state, now))
        states = status.cluster_resource_state.node_states
        self._softly(
            "object stores", lambda: self._tell(self._spilling.see(states, self._living, now))
        )


def _times_of_nodes() -> dict[str, tuple[int, int]]:
    """Return when each node has started and ended (ns since the epoch), 0 if it is not known."""
    # Private; the time of the look is nearly as good.
    with contextlib.suppress(Exception):
        found = _gcs_client().get_all_node_info(timeout=ANSWER_SECONDS)
        return {
            node.hex(): (info.start_time_ms * _MS, info.end_time_ms * _MS)
            for node, info in found.items()
        }
    return {}


def _gcs_client() -> Any:
    worker: Any = global_worker
    return worker.gcs_client


def _address(node: Mapping[str, Any]) -> str:
    host = node["NodeManagerAddress"]
    return (
        f"[{host}]:{node['NodeManagerPort']}"
        if ":" in host
        else f"{host}:{node['NodeManagerPort']}"
    )


def _node_event(node: Mapping[str, Any], started: int, ended: int) -> ClusterEvent:
    ip = node["NodeManagerAddress"]
    attributes: dict[str, str | int | float] = {
        "node_id": node["NodeID"],
        "node_ip": ip,
        "host": node["NodeManagerHostname"],
    }
    if node["Alive"]:
        attributes["resources"] = resources = _resources(node["Resources"])
        message = f"node {ip} was added: {resources}"
        return ClusterEvent(EventKind.NODE_ADDED, started or time.time_ns(), message, attributes)
    word = common_pb2.NodeDeathInfo.Reason.Name(node["DeathReason"])  # type: ignore[attr-defined]
    attributes["death_reason"] = reason = f"{word}: {node['DeathReasonMessage']}".rstrip(": ")
    message = f"node {ip} was removed: {reason}"
    return ClusterEvent(EventKind.NODE_REMOVED, ended or time.time_ns(), message, attributes)


def _resources(amounts: Mapping[str, float]) -> str:
    """Return what people call a node's resources, without those that only name it."""
    return ", ".join(
        f"{name}={amount_text(name, amount)}"
        for name, amount in sorted(amounts.items())
        if not name.startswith("node:")
    )


def _death_event(death: Death, reason: str) -> ClusterEvent:
    said = death.detail.partition("\n")[0]
    attributes: dict[str, str | int | float] = {
        "node_id": death.node_id,
        "node_ip": death.node_ip,
        "worker_id": death.worker_id,
        "pid": death.pid,
        "death_reason": f"{death.exit_type}: {said}",
    }
    kind = EventKind.WORKER_DIED
    if death.exit_type == "NODE_OUT_OF_MEMORY":
        kind = EventKind.OUT_OF_MEMORY
        if memory := memory_of(death.detail):
            attributes["used_bytes"], attributes["allowed_bytes"] = memory
        if death.memory:
            attributes["bytes"] = death.memory
    message = f"worker {death.pid} at {death.node_ip}: {reason or said}"
    return ClusterEvent(kind, death.at, message, attributes)
