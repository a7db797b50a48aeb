"""The Ray task that carries a unit, and what its worker process needs once."""

import os
import platform
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import ray

from raysched.results.envelope import Parts
from raysched.worker.context import Endpoint, WorkerContext
from raysched.worker.interrupt import Signals
from raysched.worker.logs import capture
from raysched.worker.progress import WorkerIdentity
from raysched.worker.reporter import Reporter
from raysched.worker.runner import Process, UnitRun

WITHOUT_LARGE = b"\0"
WITH_LARGE = b"\1"
"""First byte of a reply: whether the call's second return has large values."""


class Place(NamedTuple):
    """Where the driver is.

    Attributes:
        node: Its Ray node.
        code_path: The directory that the user's modules are imported from there, or "".
    """

    node: str
    code_path: str


def remote_function(context: WorkerContext, driver: Place, options: Mapping[str, Any]) -> Any:
    """Return the remote function of one task: `(frame, *lists of large values)`.

    Args:
        context: The task; captured in the function, so that it travels once to each worker.
        driver: Where the driver is.
        options: Ray's task options.
    """

    def unit(frame: bytes, *large: list[Parts]) -> tuple[bytes, list[Parts] | None]:
        return run_here(context, driver, frame, large)

    # What Ray's dashboard and its process titles show.
    unit.__name__ = unit.__qualname__ = context.task_name
    return ray.remote(num_returns=2, max_retries=0, **options)(unit)


def run_here(
    context: WorkerContext, driver: Place, frame: bytes, large: tuple[list[Parts], ...]
) -> tuple[bytes, list[Parts] | None]:
    """Run a unit in this worker; return the reply and the large values."""
    _import_from(driver)
    report, values = UnitRun(context, frame, large, _process(context)).run()
    return (WITH_LARGE if values else WITHOUT_LARGE) + report, values


@lru_cache(maxsize=1)
def _import_from(driver: Place) -> None:
    """Beside the driver, import from the user's own directory, not from a shipped copy.

    There, files beside a module are found by its `__file__`, and tracebacks name what the user
    edits. On other nodes a directory of that name is another one.
    """
    if driver.code_path and _identity()[0] == driver.node and driver.code_path not in sys.path:
        sys.path.insert(0, driver.code_path)


def _process(context: WorkerContext) -> Process:
    return Process(_identity(), _signals(context.log_level), _reporter(context.endpoint))


@lru_cache(maxsize=1)
def _identity() -> WorkerIdentity:
    runtime = ray.get_runtime_context()
    return runtime.get_node_id(), runtime.get_worker_id(), os.getpid(), platform.node()


@lru_cache(maxsize=1)
def _signals(log_level: int) -> Signals:
    signals = Signals(dedicated=True)
    signals.install()
    capture.acquire_for(log_level)
    return signals


_reporters: dict[Endpoint, Reporter] = {}


def _reporter(endpoint: Endpoint | None) -> Reporter | None:
    """Return the reporter to a driver's engine; it replaces the one to an earlier engine."""
    if endpoint is None:
        return None
    if endpoint not in _reporters:
        while _reporters:
            _reporters.popitem()[1].close()
        _reporters[endpoint] = Reporter(endpoint)
    return _reporters[endpoint]
