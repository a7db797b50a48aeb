"""Seeing the death of the driver's own Ray node, or of the head, of which Ray does not tell."""

import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

LOOK_SECONDS = 2.0
"""How often the cluster is asked. It finds out itself after about 15 s (Ray 2.60)."""

ANSWER_SECONDS = 2.0
"""How long the head's port may take to answer."""

_JOIN_SECONDS = 2.0

_log = logging.getLogger(__name__)


class NodeWatch:
    """Looks whether this driver's node is alive, and whether the head is there.

    Ray does not end calls that were on their way to a raylet that is gone: they would be awaited
    for ever. Without its head, it ends this process from native code after a minute, where nothing
    of ours runs any more: so what that means is said as soon as the head is missed.

    Args:
        on_death: Called once, in a thread of its own, when the node is dead.
        on_look: Called in the same thread with what `ray.nodes()` says, at each look.
    """

    def __init__(
        self,
        on_death: Callable[[], None],
        on_look: Callable[[Sequence[Mapping[str, Any]]], None],
    ) -> None:
        context = ray.get_runtime_context()
        self._node = context.get_node_id()
        self._head = context.gcs_address
        self._on_death = on_death
        self._on_look = on_look
        self._missed = False
        self._ended = threading.Event()
        # Two: Ray blocks whoever asks for its nodes while the head is away.
        self._threads = [
            threading.Thread(target=look, name="raysched watch", daemon=True)
            for look in (self._look_at_head, self._look_at_node)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads."""
        self._ended.set()
        for thread in self._threads:
            if threading.current_thread() is not thread and not self._missed:
                thread.join(_JOIN_SECONDS)

    def _look_at_node(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            if not self._missed and self._is_dead():
                self._on_death()
                return

    def _look_at_head(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            there = self._is_head_there()
            if there == self._missed and not self._ended.is_set():
                self._missed = not there
                self._say(there=there)

    def _is_head_there(self) -> bool:
        host, _, port = self._head.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS):
                return True
        except OSError:
            return False

    def _say(self, *, there: bool) -> None:
        if there:
            _log.warning("the head of the Ray cluster at %s answers again", self._head)
        else:
            _log.warning(
                "the head of the Ray cluster at %s does not answer. If it does not come back, "
                "Ray ends this program after a minute "
                "(RAY_gcs_rpc_server_reconnect_timeout_s), and its runs are shown as CRASHED. "
                "What was committed is kept: start Ray again, then go on by `raysched resume RUN` "
                "(`raysched runs` has their ids, `last` is the newest one)",
                self._head,
            )

    def _is_dead(self) -> bool:
        try:
            nodes = ray.nodes()  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - no answer is no evidence; without its head Ray ends us
            return False
        self._on_look(nodes)
        return any(node["NodeID"] == self._node and not node["Alive"] for node in nodes)
