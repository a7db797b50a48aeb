"""What Ray raises, as evidence in our words."""

import re
import shutil
from dataclasses import replace
from typing import Any

from ray import exceptions
from ray._private.worker import global_worker

from raysched.model.values import CrashKind, ErrorInfo, Evidence, FailureClass, TimeoutKind
from raysched.worker.causes import fingerprint, type_name
from raysched.worker.crashes import evidence_of
from raysched.worker.deadman import Overdue
from raysched.worker.failures import add_evidence, bounded, describe_timeout

FULL_SHARE = 0.02
"""A file system with less than this share free is taken for full."""

# A subclass stands before its base.
_KINDS: tuple[tuple[type[BaseException], CrashKind], ...] = (
    (exceptions.OutOfMemoryError, CrashKind.OUT_OF_MEMORY),
    (exceptions.OutOfDiskError, CrashKind.OUT_OF_DISK),
    (exceptions.NodeDiedError, CrashKind.NODE_DIED),
    (exceptions.LocalRayletDiedError, CrashKind.NODE_DIED),
    (exceptions.WorkerCrashedError, CrashKind.WORKER_DIED),
    (exceptions.OwnerDiedError, CrashKind.OWNER_DIED),
    (exceptions.ObjectLostError, CrashKind.OBJECT_LOST),
    (exceptions.ObjectStoreFullError, CrashKind.OUT_OF_MEMORY),
    (exceptions.RuntimeEnvSetupError, CrashKind.RUNTIME_ENV),
    (exceptions.TaskUnschedulableError, CrashKind.UNSCHEDULABLE),
)

_CRASHES_OF_CODE = frozenset({"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"})

_SILENT = (
    "without a word, as after SIGKILL: the system's out-of-memory killer, a kill from outside, or "
    "an exit from native code"
)

_TOLD = {"signal", "exit_code"}

_UNKNOWN = "the worker process died; its node did not tell in time how"

_USERS = re.compile(r"Top \d+ memory users:.*?(?=\nRefer to |\Z)", re.DOTALL)

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def describe_loss(
    error: BaseException,
    evidence: Evidence | None = None,
    *,
    task_name: str = "",
    silent: bool = False,
) -> ErrorInfo:
    """Return what is known about a Ray call that gave no report.

    Args:
        error: What Ray raised.
        evidence: What else was found out.
        task_name: Of the only task that it ran, "" if there were several.
        silent: Whether what the worker would have left behind is known not to be there.
    """
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, exceptions.TaskCancelledError):
        return cancelled()
    evidence = evidence or Evidence()
    for kind_of_error, kind in _KINDS:
        if isinstance(cause, kind_of_error):
            info = _info(cause, kind, evidence, task_name)
            if kind is CrashKind.WORKER_DIED and not (silent or evidence.keys() & _TOLD):
                return replace(info, message=_UNKNOWN)
            return info
    return _info(error, CrashKind.BACKEND, evidence, task_name)


def silent(key: str, seconds: float, evidence: Evidence, stacks: str) -> ErrorInfo:
    """Return what is known about a unit whose worker gave no sign of life for `seconds`."""
    info = describe_timeout(key, TimeoutKind.HEARTBEAT, seconds, reaction="so its worker was ended")
    return _at(stacks, add_evidence(info, evidence))


def stuck(overdue: Overdue, evidence: Evidence) -> ErrorInfo:
    """Return what is known about a unit whose worker was ended while native code held the GIL."""
    reaction = "in native code that holds Python's GIL, so its worker was ended"
    info = describe_timeout(overdue.key, TimeoutKind.ATTEMPT, overdue.seconds, reaction=reaction)
    return _at(overdue.stacks, add_evidence(info, evidence))


def cancelled(stacks: str = "") -> ErrorInfo:
    """Return the evidence of a unit that was cancelled before it could report."""
    info = ErrorInfo(
        "raysched.errors.TaskRunCancelled",
        "the task run was cancelled",
        failure_class=FailureClass.CANCELLED,
    )
    return _at(stacks, info)


def _at(stacks: str, info: ErrorInfo) -> ErrorInfo:
    """Return `info` with where its threads were when the worker was ended, if that is known."""
    if not stacks:
        return info
    return add_evidence(replace(info, traceback=stacks), evidence_of(stacks))


def node_of_driver_died() -> ErrorInfo:
    """Return the evidence of whatever was not back when the driver lost its own node."""
    return ErrorInfo(
        "ray.exceptions.LocalRayletDiedError",
        f"the Ray node that this driver is connected to has died{_full_store()}, so nothing can "
        "run any more. What was committed is kept; start Ray again where it was started by hand, "
        "then go on by `raysched resume RUN`",
        failure_class=FailureClass.INFRASTRUCTURE,
        kind=CrashKind.NODE_DIED,
    )


def _full_store() -> str:
    """Return that the object store's file system is full, "" if it is not.

    Ray reserves no room there: the first value for which there is none ends the node by SIGBUS.
    """
    node: Any = global_worker.node
    directory = (node and node._ray_params.plasma_directory) or "/dev/shm"  # noqa: S108, SLF001
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return ""
    if usage.free > FULL_SHARE * usage.total:
        return ""
    return f", and {directory}, where its object store lies, is full"


def _info(error: BaseException, kind: CrashKind, evidence: Evidence, task_name: str) -> ErrorInfo:
    name = type_name(error)
    return ErrorInfo(
        name,
        bounded(_told(_COLOURS.sub("", str(error)).strip(), kind, evidence)),
        failure_class=FailureClass.INFRASTRUCTURE,
        kind=kind,
        fingerprint=fingerprint(name, kind, task_name, *_marks(evidence)),
        evidence=evidence,
    )


def _marks(evidence: Evidence) -> list[str]:
    """Return what tells crashes of one kind apart."""
    innermost = evidence.get("frames", [])[-1:]
    return [
        evidence.get("signal", ""),
        str(evidence.get("exit_code", "")),
        *(f"{frame['file']}:{frame['function']}" for frame in innermost),
    ]


def _told(said: str, kind: CrashKind, evidence: Evidence) -> str:
    """Return what a person is told."""
    if kind is CrashKind.WORKER_DIED:
        return f"the worker process died {_how(evidence)}"
    if kind is CrashKind.OUT_OF_MEMORY and "used_bytes" in evidence:
        used, allowed = (evidence[key] / 1024**3 for key in ("used_bytes", "allowed_bytes"))
        users = _USERS.search(said)
        return (
            f"its node ran out of memory, so Ray ended the worker: {used:.2f} GiB were used, "
            f"{allowed:.2f} GiB are allowed\n{users[0] if users else said}"
        )
    return said


def _how(evidence: Evidence) -> str:
    name = evidence.get("signal")
    if name in _CRASHES_OF_CODE:
        return f"of {name}, a crash in native code"
    if name:
        return f"of {name}"
    if "exit_code" in evidence:
        return f"by os._exit({evidence['exit_code']})"
    return _SILENT
