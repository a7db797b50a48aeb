"""What Ray raises, as evidence in our words."""

import re

from ray import exceptions

from raysched.model.values import CrashKind, ErrorInfo, FailureClass
from raysched.worker.failures import bounded, type_name

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

_ADVICE = {
    CrashKind.WORKER_DIED: (
        "the worker process died: a crash in native code, os._exit, a kill from outside or the "
        "system's out-of-memory killer"
    ),
}

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def describe_loss(error: BaseException) -> ErrorInfo:
    """Return what is known about a Ray call that gave no report."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, exceptions.TaskCancelledError):
        return cancelled()
    for kind_of_error, kind in _KINDS:
        if isinstance(cause, kind_of_error):
            return _info(cause, kind)
    return _info(error, CrashKind.BACKEND)


def cancelled() -> ErrorInfo:
    """Return the evidence of a unit that was cancelled before it could report."""
    return ErrorInfo(
        "raysched.errors.TaskRunCancelled",
        "the task run was cancelled",
        failure_class=FailureClass.CANCELLED,
    )


def node_of_driver_died() -> ErrorInfo:
    """Return the evidence of whatever was not back when the driver lost its own node."""
    return ErrorInfo(
        "ray.exceptions.LocalRayletDiedError",
        "the Ray node that this driver is connected to has died, so nothing can run any more. What "
        "was committed is kept; start Ray again where it was started by hand, and run once more",
        failure_class=FailureClass.INFRASTRUCTURE,
        kind=CrashKind.NODE_DIED,
    )


def _info(error: BaseException, kind: CrashKind) -> ErrorInfo:
    said = _COLOURS.sub("", str(error)).strip()
    advice = _ADVICE.get(kind)
    return ErrorInfo(
        type_name(error),
        bounded(f"{advice}. Ray says: {said}" if advice else said),
        failure_class=FailureClass.INFRASTRUCTURE,
        kind=kind,
    )
