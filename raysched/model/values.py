"""Values and errors as they travel: encoded, measured, never opened by the core."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias


class FailureClass(StrEnum):
    """Who is to blame for an attempt that did not succeed."""

    USER = "user"
    TIMEOUT = "timeout"
    INFRASTRUCTURE = "infrastructure"
    UPSTREAM = "upstream"
    CANCELLED = "cancelled"


class CrashKind(StrEnum):
    """What broke under an attempt of class infrastructure."""

    WORKER_DIED = "worker died"
    NODE_DIED = "node died"
    OUT_OF_MEMORY = "out of memory"
    OUT_OF_DISK = "out of disk"
    OBJECT_LOST = "object lost"
    OWNER_DIED = "owner died"
    RUNTIME_ENV = "runtime_env setup failed"
    UNSCHEDULABLE = "unschedulable"
    DRIVER_LOST = "driver lost"
    BACKEND = "backend error"


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What is known about a failure, as text, with the exception itself where it can be pickled.

    Attributes:
        type: Qualified name of the exception's class, for example `builtins.KeyError`.
        message: `str(exception)`.
        traceback: Traceback text with causes, the user's frames only; "" where there is none.
        failure_class: Who is to blame.
        kind: `CrashKind` value, the kind of timeout, or "".
        exception: Envelope of the pickled exception (see `results.envelope`), or None.
    """

    type: str
    message: str
    traceback: str = ""
    failure_class: FailureClass = FailureClass.USER
    kind: str = ""
    exception: bytes | None = None


@dataclass(frozen=True, slots=True)
class LargeValue:
    """A value that stays in the backend's object store.

    Attributes:
        handle: The backend's own reference to all large values of one unit.
        position: Which of them this is.
        size: Encoded size (bytes).
    """

    handle: Any
    position: int
    size: int


Value: TypeAlias = bytes | LargeValue
"""The envelope of a small value, or the reference to a large one."""
