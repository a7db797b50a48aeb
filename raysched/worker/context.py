"""What a worker knows about a task before its first unit arrives."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raysched.model.options import TaskSpec
from raysched.worker.functions import Reference

if TYPE_CHECKING:
    # Needs pydantic, which would delay the first unit of each worker by 0.1 s.
    from raysched.settings import Settings


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the driver listens for its workers' channels.

    Attributes:
        host: Address of the driver's node.
        port: TCP port.
        key: Random secret of this driver; both sides prove that they have it.
    """

    host: str
    port: int
    key: bytes


@dataclass(frozen=True, slots=True, eq=False)
class WorkerContext:
    """What all units of one task have in common; sent to each worker once.

    Attributes:
        task_name: Name of the task.
        function: The user's function.
        is_async: Whether it is a coroutine function.
        timeout_seconds: Limit of one attempt (seconds), or None.
        heartbeat_timeout_seconds: Limit of this process's silence during an attempt (seconds), or
            None.
        max_concurrency: Sync runs that may overlap in one worker, each in a thread.
        log_prints: Whether `print` becomes log records.
        task_run_name: Template, function without arguments, or None.
        log_level: Lowest level of kept log records.
        inline_max_bytes: Results up to this encoded size (bytes) travel in the report.
        result_max_bytes: Results over this encoded size (bytes) fail their task run.
        endpoint: Where to report while a unit runs, or None.
        fault_points: What `faults.arm` is told before a unit.
        check: What results are tested with, see `verdicts.check_of`; None for nothing.
        retry_on: What is asked about exceptions, see `verdicts.retry_verdict`; None for nothing.
        masks: Names of secrets beside those that are known.
        termination_grace_seconds: How long user code may go on after its timeout or cancellation
            before this process is ended (seconds).
        serializer: How results are written (see `results.envelope.encode`).
        persist: Whether large results are kept in the result storage.
        durable: Whether they have to survive a loss of power before the task run completes.
    """

    task_name: str
    function: Reference
    is_async: bool
    timeout_seconds: float | None
    max_concurrency: int
    log_prints: bool
    task_run_name: str | Reference | None
    log_level: int
    inline_max_bytes: int
    result_max_bytes: int
    endpoint: Endpoint | None = None
    fault_points: str = ""
    check: Reference | None = None
    retry_on: Reference | tuple[Reference, ...] | None = None
    masks: tuple[str, ...] = ()
    heartbeat_timeout_seconds: float | None = None
    termination_grace_seconds: float = 10.0
    serializer: str = ""
    persist: bool = True
    durable: bool = False


def context_of(
    spec: TaskSpec,
    settings: "Settings",
    refer: Callable[[Callable[..., Any]], Reference],
    endpoint: Endpoint | None = None,
) -> WorkerContext:
    """Return the worker's context of a task.

    Args:
        spec: The task.
        settings: The driver's settings.
        refer: How functions reach the worker.
        endpoint: Where the driver listens, or None.

    Raises:
        SerializationError: The function cannot be pickled and has to be.
    """
    name = spec.task_run_name
    return WorkerContext(
        task_name=spec.name,
        function=refer(spec.fn),
        is_async=spec.is_async,
        timeout_seconds=spec.timeout_seconds,
        max_concurrency=spec.max_concurrency,
        log_prints=spec.log_prints,
        task_run_name=refer(name) if callable(name) else name,
        log_level=level_number(settings),
        inline_max_bytes=settings.inline_result_max_bytes,
        result_max_bytes=settings.result_max_bytes,
        endpoint=endpoint,
        fault_points=settings.fault_points,
        heartbeat_timeout_seconds=spec.heartbeat_timeout_seconds,
        check=None if spec.check is None else refer(spec.check),
        retry_on=_refer_to_all(spec.retry.retry_on, refer),
        termination_grace_seconds=settings.termination_grace_seconds,
        masks=tuple(name for name in settings.mask.split(",") if name.strip()),
        serializer=spec.result_serializer,
        persist=spec.persist_result,
        durable=not spec.idempotent,
    )


def _refer_to_all(
    retry_on: tuple[type[BaseException], ...] | Callable[[BaseException], Any] | None,
    refer: Callable[[Callable[..., Any]], Reference],
) -> Reference | tuple[Reference, ...] | None:
    if isinstance(retry_on, tuple):
        return tuple(map(refer, retry_on))
    return None if retry_on is None else refer(retry_on)


def level_number(settings: "Settings") -> int:
    """Return the number of the lowest level of kept log records."""
    return logging.getLevelNamesMapping()[settings.log_level]
