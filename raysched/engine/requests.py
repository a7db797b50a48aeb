"""What other processes ask of this one's flow runs: they write it, and it is looked up here."""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from raysched.define.stopping import stop_flow, was_told
from raysched.engine.closing import FORCE_SECONDS
from raysched.engine.ports import Store
from raysched.errors import StoreError
from raysched.graph.calls import Member
from raysched.model.rows import ENGINE_LOGGER, RequestRow
from raysched.tracker.messages import CancelRequested, MembersCancelled

if TYPE_CHECKING:
    from raysched.engine.flow_run import OpenFlowRun

logger = logging.getLogger("raysched.engine")

LOOK_SECONDS = 1.0
"""How often the store is asked (seconds)."""


class Requests:
    """Looks for requests in a thread of its own, while flow runs are open.

    Args:
        store: Where they are written.
        interrupt: Stops what a run runs in this process, where the backend runs units here.
    """

    def __init__(self, store: Store, interrupt: Callable[["OpenFlowRun"], None]) -> None:
        self._store = store
        self._interrupt = interrupt
        self._runs: dict[OpenFlowRun, int] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def last(self, run: int) -> int:
        """Return which request came last to a run of this number; 0 for none."""
        requests = self._store.requests(run, 0)
        return requests[-1].id if requests else 0

    def watch(self, run: "OpenFlowRun", after: int) -> None:
        """Look for what is asked of a run.

        Args:
            run: The run.
            after: The last request that was for another owner of it.
        """
        with self._changed:
            self._runs[run] = after
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="raysched-requests", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def forget(self, run: "OpenFlowRun") -> None:
        """Look no longer."""
        with self._changed:
            self._runs.pop(run, None)

    def stop(self) -> None:
        """Look for nothing any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._runs or self._stopped)
                self._changed.wait_for(lambda: self._stopped, LOOK_SECONDS)
                if self._stopped:
                    return
                runs = dict(self._runs)
            for run, seen in runs.items():
                self._look(run, seen)

    def _look(self, run: "OpenFlowRun", seen: int) -> None:
        try:
            requests = self._store.requests(run.number, seen)
        except StoreError:
            # Whoever commits says so, and tries again for longer.
            return
        for request in requests:
            with self._changed:
                if run in self._runs:
                    self._runs[run] = request.id
            text = f"{request.by} has asked to {request.kind} {_what(run, request)}"
            logger.warning(text)
            run.log(logging.WARNING, ENGINE_LOGGER, text, request.at)
            self._obey(run, request)

    def _obey(self, run: "OpenFlowRun", request: RequestRow) -> None:
        if request.keys:
            for group, index in _members(run, request.keys):
                event = MembersCancelled(group, (index,), request.by)
                run.host.post(run.host.advance, run, event)
            return
        stop_flow(run.row.id, request.by, force=request.kind == "kill")
        self._interrupt(run)
        if request.kind == "kill":
            kill = CancelRequested(request.by, force=True, teardowns=True)
            run.host.post(run.host.advance, run, kill)
        else:
            timer = threading.Timer(FORCE_SECONDS, self._insist, (run, request.by))
            timer.name, timer.daemon = "raysched-insist", True
            timer.start()

    def _insist(self, run: "OpenFlowRun", by: str) -> None:
        """Stop the task runs of a flow function that could not be interrupted."""
        with self._changed:
            is_open = run in self._runs
        if is_open and not was_told(run.row.id) and not run.tracker.cancelled_by:
            run.host.post(run.host.advance, run, CancelRequested(by))


def _what(run: "OpenFlowRun", request: RequestRow) -> str:
    return ", ".join(request.keys) or f"flow run {run.row.id[:8]}"


def _members(run: "OpenFlowRun", keys: tuple[str, ...]) -> list[Member]:
    wanted = set(keys)
    tasks = {key.rpartition("[")[0] for key in keys}
    return [
        (node.group, index)
        for node in tuple(run.tracker.nodes.values())
        if node.group.spec.name in tasks
        for index in range(node.group.size)
        if node.group.key(index) in wanted
    ]
