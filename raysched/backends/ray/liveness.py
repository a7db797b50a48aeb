"""Seeing the death of the driver's own Ray node, of which Ray does not always tell."""

import threading
from collections.abc import Callable

import ray

LOOK_SECONDS = 5.0
"""How often the cluster is asked. It finds out itself after about 15 s (Ray 2.60)."""

_JOIN_SECONDS = 2.0


class NodeWatch:
    """A thread that looks whether this driver's node is alive.

    Ray does not end calls that were on their way to a raylet that is gone: they would be awaited
    for ever.

    Args:
        on_death: Called once, in the thread, when the node is dead.
    """

    def __init__(self, on_death: Callable[[], None]) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._on_death = on_death
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="raysched node watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    def _look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            if self._is_dead():
                self._on_death()
                return

    def _is_dead(self) -> bool:
        try:
            nodes = ray.nodes()  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - no answer is no evidence; without its head Ray ends us
            return False
        return any(node["NodeID"] == self._node and not node["Alive"] for node in nodes)
