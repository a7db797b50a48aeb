"""Which call of a subflow is which, and how an equal one ended before."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from raysched.define.ports import Continuation, RecalledFlowRun
from raysched.errors import RayschedError
from raysched.graph.digest import digest
from raysched.graph.recorded import Recorded
from raysched.model.ids import IDENTITY_BYTES
from raysched.model.records import RecordedFlowRun
from raysched.model.states import StateType
from raysched.results.envelope import decode


class Subflows:
    """The calls of subflows of one flow run, from any thread.

    Args:
        scope: What tells them from those of other flow runs (see `graph.builder.Builder`).
        recorded: What an earlier execution has left, or None.
    """

    def __init__(self, scope: bytes, recorded: Recorded | None) -> None:
        self._scope = scope
        self._lock = threading.Lock()
        self._occurrences: Counter[bytes] = Counter()
        self._recorded: dict[bytes, list[RecordedFlowRun]] = {}
        for run in recorded.records.flow_runs if recorded is not None else ():
            self._recorded.setdefault(run.identity, []).append(run)

    def recall(
        self, flow: str, parameters: Mapping[str, Any], continues: Continuation | None
    ) -> RecalledFlowRun:
        """Return what is known of the next call (see `RunPort.recall`).

        Args:
            flow: Name of the subflow.
            parameters: Its parameters.
            continues: What the flow run around it goes on from.
        """
        with self._lock:
            identity = self._identity(flow, parameters)
            runs = self._recorded.get(identity, [])
            if not identity or not runs or continues is None:
                return RecalledFlowRun(identity)
            completed = [run for run in runs if run.state is StateType.COMPLETED]
            found = (completed or runs)[-1]
            runs.remove(found)
        if not (continues.again or continues.rerun_changed):
            answer = _answer(found)
            if answer is not None:
                return RecalledFlowRun(identity, answer)
        return RecalledFlowRun(identity, continues=replace(continues, run_id=found.id))

    def restart(self) -> None:
        """Begin to count again: the flow function begins again."""
        self._occurrences.clear()

    def _identity(self, flow: str, parameters: Mapping[str, Any]) -> bytes:
        try:
            inputs = digest((flow, dict(parameters)), self._scope)
        except RayschedError:
            # A flow, unlike a task, may be called with what cannot be pickled.
            return b""
        occurrence = self._occurrences[inputs]
        self._occurrences[inputs] += 1
        return blake2b(inputs, digest_size=IDENTITY_BYTES, salt=occurrence.to_bytes(8)).digest()


def _answer(run: RecordedFlowRun) -> tuple[Any] | None:
    if run.state is not StateType.COMPLETED or run.result is None:
        return None
    try:
        return (decode(run.result),)
    except RayschedError:
        return None
