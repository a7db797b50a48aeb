"""Why a unit was lost: what its worker, its node and Ray's head can still tell."""

import contextlib
import logging
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil
import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysched.backends.ray.deaths import death_of, memory_of
from raysched.backends.ray.hearts import Whereabouts
from raysched.backends.ray.traces import STACKS_SIGNAL, Remains, read, stacks_file
from raysched.model.values import Evidence

ANSWER_SECONDS = 1.0
"""How long another node may take to tell what a worker there has left behind."""

LATELY_SECONDS = 5.0
"""How long ago the worker of a unit that is lost now may have died. Clocks of nodes differ."""

DONE_KEPT = 256
"""Workers whose death is explained already."""

STACKS_SECONDS = 1.0
"""How long a worker that is ended may take to tell where it is."""

THREADS = 4
"""How many losses are looked into at once."""

T = TypeVar("T")

_log = logging.getLogger(__name__)

_NODE = re.compile(r"\bID: ([0-9a-f]{56})")
_SIGNAL = re.compile(r"receives an? (SIG[A-Z]+)")
_CODE = re.compile(r"exit code (-?\d+)")


class Autopsies:
    """Looks into losses beside the threads of Ray, of the listener and of the engine."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._done: deque[str] = deque(maxlen=DONE_KEPT)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="raysched autopsy")

    def examine(
        self,
        unit: int,
        error: BaseException,
        carriers: Sequence[Whereabouts],
        then: Callable[[Remains], None],
    ) -> None:
        """Call `then` in another thread with what is to be known about a lost unit.

        Args:
            unit: The unit.
            error: What Ray says.
            carriers: The workers of which one may have had it.
            then: What is to be called.
        """

        def look() -> None:
            try:
                left = self._remains(unit, error, carriers)
            except Exception:  # noqa: BLE001 - Ray raises many kinds; the unit is lost in any case
                _log.debug("nothing is known about the loss of a unit", exc_info=True)
                left = Remains(evidence_of(error), found=False)
            then(left)

        self._submit(look)

    def end(self, unit: int, workers: Sequence[Whereabouts]) -> None:
        """End the worker of a unit, which does not react, with the processes that it has started.

        Args:
            unit: The unit.
            workers: Those of which one may have it.
        """
        self._submit(lambda: self._on_nodes(end_worker, unit, workers))

    def close(self) -> None:
        """Take nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _submit(self, job: Callable[[], object]) -> None:
        # The backend was stopped meanwhile: nobody waits for it.
        with contextlib.suppress(RuntimeError):
            self._threads.submit(job)

    def _remains(self, unit: int, error: BaseException, carriers: Sequence[Whereabouts]) -> Remains:
        found = evidence_of(error)
        if isinstance(error, exceptions.NodeDiedError):
            self._ask_about_node(found)
            return Remains(found)
        answers = self._on_nodes(read_first, unit, carriers)
        if answers:
            worker, left = answers[0]
        else:
            # Its node does not answer in time: it is the one that has just died, if only one has.
            dead = (
                carriers if len(carriers) == 1 else [each for each in carriers if _just_died(each)]
            )
            if len(dead) != 1:
                return Remains(found, found=False)
            worker, left = dead[0], Remains(Evidence(), found=False)
        self._done.append(worker.worker_id)
        known = place(worker) | _of_worker(worker.worker_id) | found
        return left._replace(evidence=known | left.evidence)

    def _ask_about_node(self, found: Evidence) -> None:
        with contextlib.suppress(Exception):
            for node in ray.nodes():  # type: ignore[no-untyped-call]
                if node["NodeID"] == found.get("node_id") and node["DeathReasonMessage"]:
                    found["death_reason"] = node["DeathReasonMessage"]

    def _on_nodes(
        self,
        function: Callable[[Sequence[Whereabouts], int], T | None],
        unit: int,
        workers: Sequence[Whereabouts],
    ) -> list[T]:
        """Return what `function` of the workers of each node returns there, where it does so.

        This node comes first; another one that does not answer in time is left out.
        """
        nodes: dict[str, list[Whereabouts]] = {}
        for worker in workers:
            nodes.setdefault(worker.node_id, []).append(worker)
        here = nodes.pop(self._node, None)
        answers = [function(here, unit)] if here else []
        calls = [_call_on(node, function, there, unit) for node, there in nodes.items()]
        came, _ = (
            ray.wait(calls, num_returns=len(calls), timeout=ANSWER_SECONDS) if calls else ([], [])
        )
        for call in came:
            with contextlib.suppress(exceptions.RayError):
                answers.append(ray.get(call))
        return [answer for answer in answers if answer is not None]


def _call_on(node: str, function: Callable[..., Any], *args: Any) -> Any:
    strategy: Any = NodeAffinitySchedulingStrategy(node, soft=False)
    remote: Any = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(function)
    return remote.remote(*args)


def read_first(workers: Sequence[Whereabouts], unit: int) -> tuple[Whereabouts, Remains] | None:
    """Return which of these workers of this node has died in a unit, and what it has left."""
    for worker in workers:
        left = read(worker.traces, unit)
        if left is not None:
            return worker, left
    return None


def evidence_of(error: BaseException) -> Evidence:
    """Return what Ray's error itself tells."""
    found = Evidence()
    said = str(error)
    if node := _NODE.search(said):
        found["node_id"] = node[1]
    if isinstance(error, exceptions.OutOfMemoryError) and (memory := memory_of(said)):
        found["used_bytes"], found["allowed_bytes"] = memory
        found["signal"] = signal.SIGKILL.name
    return found


def _of_worker(worker_id: str) -> Evidence:
    """Return what Ray's head knows of a worker's death."""
    found, death = Evidence(), death_of(worker_id)
    if death is not None and death.detail:
        found["death_reason"] = death.reason
        if name := _SIGNAL.search(death.detail):
            found["signal"] = name[1]
        elif code := _CODE.search(death.detail):
            found["exit_code"] = int(code[1])
    return found


def _just_died(worker: Whereabouts) -> bool:
    death = death_of(worker.worker_id)
    return (
        death is not None
        and death.exit_type == "SYSTEM_ERROR"
        and time.time() - death.at / 1e9 < LATELY_SECONDS
    )


def place(worker: Whereabouts) -> Evidence:
    """Return where a worker is, as evidence."""
    node_id, worker_id, pid, host, _ = worker
    return Evidence(node_id=node_id, worker_id=worker_id, pid=pid, host=host)


def end_worker(workers: Sequence[Whereabouts], unit: int) -> None:
    """End that of these workers of this node which is in a unit, and what it has started.

    It leaves where it was, unless it is stopped.
    """
    for worker in workers:
        if read(worker.traces, unit) is None:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(worker.pid)
            started = process.children(recursive=True)
            if process.status() != psutil.STATUS_STOPPED:
                _ask_for_stacks(process, stacks_file(Path(worker.traces)))
            # It may have come to its end meanwhile. Stopped, it begins no other unit.
            process.suspend()
            if read(worker.traces, unit) is None:
                process.resume()
                continue
            for each in (process, *started):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()


def _ask_for_stacks(process: psutil.Process, file: Path) -> None:
    """Have a process write where its threads are; return when it has, or does not."""
    process.send_signal(STACKS_SIGNAL)
    deadline, size = time.monotonic() + STACKS_SECONDS, 0
    while process.is_running() and time.monotonic() < deadline:
        before, size = size, file.stat().st_size if file.exists() else 0
        if size and size == before:
            return
        time.sleep(STACKS_SECONDS / 20)
