"""The Ray task that carries a unit, and what its worker process needs once."""

import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import ray

from raysched import faults
from raysched.backends.ray.traces import traces
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
        directory: The working directory that workers on that node take, or "" for their own.
        environment: Names and values of variables that workers on that node take over.
    """

    node: str
    code_path: str
    directory: str = ""
    environment: tuple[tuple[str, str], ...] = ()

    def with_process(self, environment: Mapping[str, str]) -> Self:
        """Return it with this process's working directory and with variables.

        Workers inherit both from a Ray that their driver has started, but not from one that was
        there before.
        """
        directory = ""
        with suppress(FileNotFoundError):  # it was removed
            directory = str(Path.cwd())
        return self._replace(directory=directory, environment=tuple(environment.items()))


def remote_function(
    contexts: tuple[WorkerContext, ...], driver: Place, options: Mapping[str, Any]
) -> Any:
    """Return the remote function of a unit: `(frame, *lists of large values)`.

    Args:
        contexts: The task of each stage; captured in the function, so that it travels once to each
            worker.
        driver: Where the driver is.
        options: Ray's task options.
    """

    def unit(frame: bytes, *large: list[Parts]) -> tuple[bytes, list[Parts] | None]:
        return run_here(contexts, driver, frame, large)

    # What Ray's dashboard and its process titles show.
    unit.__name__ = unit.__qualname__ = "+".join(context.task_name for context in contexts)
    return ray.remote(num_returns=2, max_retries=0, **options)(unit)


def run_here(
    contexts: tuple[WorkerContext, ...],
    driver: Place,
    frame: bytes,
    large: tuple[list[Parts], ...],
) -> tuple[bytes, list[Parts] | None]:
    """Run a unit in this worker; return the reply and the large values."""
    _settle(driver)
    faults.arm(contexts[0].fault_points)
    unit = UnitRun(contexts, frame, large, _process(contexts[0]))
    traces().begin(unit.progress.unit.id)
    report, values = unit.run()
    return (WITH_LARGE if values else WITHOUT_LARGE) + report, values


@lru_cache(maxsize=1)
def _settle(driver: Place) -> None:
    """Beside the driver, take over what it has: import path, working directory, variables.

    With the user's own directory instead of a shipped copy, files beside a module are found by its
    `__file__`, and tracebacks name what the user edits. On other nodes a directory of that name is
    another one.
    """
    if _identity()[0] != driver.node:
        return
    searched = dict(driver.environment).get("PYTHONPATH", "").split(os.pathsep)
    for path in reversed([driver.code_path, *searched]):
        if path and path not in sys.path:
            sys.path.insert(0, path)
    if driver.directory:
        _leave_parent(driver)


def _leave_parent(driver: Place) -> None:
    """Take the driver's directory and variables where Ray left those of the raylet.

    What a `runtime_env` or Ray itself has set stays.
    """
    import psutil  # 15 ms that only a Ray which is kept costs

    raylet = psutil.Process(os.getppid())
    inherited = raylet.environ()
    for name, value in driver.environment:
        if os.environ.get(name) == inherited.get(name):
            os.environ[name] = value
    with suppress(OSError):  # not for this worker's user, or gone
        if Path.cwd() == Path(raylet.cwd()):
            os.chdir(driver.directory)


def _process(context: WorkerContext) -> Process:
    signals = _signals(context.log_level)
    return Process(_identity(), signals, _reporter(context.endpoint, signals))


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


def _reporter(endpoint: Endpoint | None, signals: Signals) -> Reporter | None:
    """Return the reporter to a driver's engine; it replaces the one to an earlier engine."""
    if endpoint is None:
        return None
    if endpoint not in _reporters:
        while _reporters:
            _reporters.popitem()[1].close()
        _reporters[endpoint] = Reporter(endpoint, _identity(), str(traces().path), signals)
    return _reporters[endpoint]
