"""The Ray task that carries a unit, and what its worker process needs once."""

import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

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


def remote_function(context: WorkerContext, options: Mapping[str, Any]) -> Any:
    """Return the remote function of one task: `(frame, *lists of large values)`.

    Args:
        context: The task; captured in the function, so that it travels once to each worker.
        options: Ray's task options.
    """

    def unit(frame: bytes, *large: list[Parts]) -> tuple[bytes, list[Parts] | None]:
        return run_here(context, frame, large)

    # What Ray's dashboard and its process titles show.
    unit.__name__ = unit.__qualname__ = context.task_name
    return ray.remote(num_returns=2, max_retries=0, **options)(unit)


def run_here(
    context: WorkerContext, frame: bytes, large: tuple[list[Parts], ...]
) -> tuple[bytes, list[Parts] | None]:
    """Run a unit in this worker; return the reply and the large values."""
    report, values = UnitRun(context, frame, large, _process(context)).run()
    return (WITH_LARGE if values else WITHOUT_LARGE) + report, values


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
