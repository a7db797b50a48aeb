"""Looking at the Ray that is kept without becoming one of its drivers."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
from ray._private.state import GlobalState
from ray._raylet import GcsClient, GcsClientOptions  # type: ignore[attr-defined]

from raysched.backends.ray.connection import check
from raysched.backends.ray.kept import KeptRay, load
from raysched.errors import BackendUnreachable

ANSWER_SECONDS = 3.0
"""How long the head may take to tell of its drivers."""


@dataclass(frozen=True, slots=True)
class Node:
    """A living node.

    Attributes:
        id: Its id.
        total: What it has by resource; memory in bytes.
        available: What of it no task holds.
    """

    id: str
    total: dict[str, float]
    available: dict[str, float]


@dataclass(frozen=True, slots=True)
class Driver:
    """A program that is connected.

    Attributes:
        pid: Its process id.
        command: Its command line.
        started: When it connected (seconds since the epoch).
    """

    pid: int
    command: str
    started: float


@dataclass(frozen=True, slots=True)
class Look:
    """What is to be seen of the Ray that is kept.

    Attributes:
        kept: Its record.
        problem: Why runs do not use it, or "". Then nodes and drivers are not known.
        nodes: Its living nodes.
        drivers: The programs that are connected.
        held: Memory that its processes hold, without what they share (bytes).
        dashboard: URL of its dashboard, or "".
    """

    kept: KeptRay
    problem: str = ""
    nodes: tuple[Node, ...] = ()
    drivers: tuple[Driver, ...] = ()
    held: int = 0
    dashboard: str = ""


def look(home: Path) -> Look | None:
    """Return what is to be seen of the Ray that is kept, or None if there is none.

    Raises:
        BackendUnreachable: The record cannot be read.
    """
    kept = load(home)
    if kept is None:
        return None
    problem = kept.why_unusable()
    if problem:
        return Look(kept, problem)
    with kept.entered():
        try:
            check(kept.address)
            return _look_inside(kept)
        except BackendUnreachable as error:
            return Look(kept, str(error))


def _look_inside(kept: KeptRay) -> Look:
    state: Any = GlobalState()  # type: ignore[no-untyped-call]
    options = GcsClientOptions.create(
        kept.address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
    )
    state._initialize_global_state(options)  # noqa: SLF001 - as `ray status` does, without a driver
    try:
        free = state.available_resources_per_node()
        nodes = tuple(
            Node(node["NodeID"], node["Resources"], free.get(node["NodeID"], {}))
            for node in state.node_table()
            if node["Alive"]
        )
        drivers = tuple(
            Driver(job["DriverPid"], job["Entrypoint"], job["StartTime"] / 1000)
            for job in state.job_table()
            if not job["IsDead"]
        )
    finally:
        state.disconnect()
    return Look(kept, "", nodes, drivers, _held(kept), _dashboard(kept))


def _held(kept: KeptRay) -> int:
    found = [each.find() for each in (kept.gcs, kept.raylet, *kept.others)]
    processes = [process for process in found if process is not None]
    held = 0
    for process in (*processes, *(child for each in processes for child in descendants(each))):
        with suppress(psutil.Error):
            memory = process.memory_info()
            held += memory.rss - memory.shared
    return held


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Return the children of a process and theirs, none if it has ended."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _dashboard(kept: KeptRay) -> str:
    if not kept.options.dashboard:
        return ""
    client = GcsClient(address=kept.address)
    found = client.internal_kv_get(
        DASHBOARD_ADDRESS.encode(), namespace=KV_NAMESPACE_DASHBOARD, timeout=ANSWER_SECONDS
    )
    return f"http://{found.decode()}" if found else ""
