"""Values and errors as they travel: encoded, measured, never opened by the core."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

# pydantic, which reads rows with these in them, takes no other one before Python 3.12.
from typing_extensions import TypedDict


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


class TimeoutKind(StrEnum):
    """Which limit of time an attempt or a task run has met."""

    QUEUED = "queued"
    ATTEMPT = "attempt"
    TOTAL = "total"
    HEARTBEAT = "no heartbeat"


class Frame(TypedDict):
    """A frame of a traceback, as data.

    Keys: `file`, `line`, `function`, `code` (the source line, stripped, or ""), and `own`: whether
    it is the user's own code, not a library's.
    """

    file: str
    line: int
    function: str
    code: str
    own: bool


class Input(TypedDict, total=False):
    """An argument of a failed attempt, as text.

    Keys: `name` of the parameter; `preview`, its repr, cut, with secrets masked; `type`, its class;
    `slots`, numbers of the group's slots whose values are in it (from the worker to the driver),
    and `sources`, the keys of the task runs that these came from (in the database).
    """

    name: str
    preview: str
    type: str
    slots: list[int]
    sources: list[str]


class RetryVerdict(TypedDict, total=False):
    """What `retry_on` said: `retry`, `delay_seconds` (None for the task's own delays), `reason`."""

    retry: bool
    delay_seconds: float | None
    reason: str


class Evidence(TypedDict, total=False):
    """What is known about a failure beside its exception; only what could be had. JSON values.

    Keys:
        exit_code: Of a process that died, where the system told.
        signal: Name of the signal that ended it: `SIGSEGV`.
        fatal_error: What Python wrote when it died: the reason, and the stack of each thread.
        used_bytes: Memory that was in use when an attempt was killed for memory.
        allowed_bytes: Memory that was allowed.
        node_id: Ray's id of the node.
        worker_id: Ray's id of the worker.
        pid: The worker's process.
        host: Name of its machine.
        death_reason: Why Ray says that a worker or node died.
        frames: Of the innermost cause, outermost first.
        inputs: The arguments.
        retry: What `retry_on` said.
        asked: Ray's options of this attempt, as text, where they differ from attempt to attempt.
    """

    exit_code: int
    signal: str
    fatal_error: str
    used_bytes: int
    allowed_bytes: int
    node_id: str
    worker_id: str
    pid: int
    host: str
    death_reason: str
    frames: list[Frame]
    inputs: list[Input]
    retry: RetryVerdict
    asked: dict[str, str]


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What is known about a failure, as text, with the exception itself where it can be pickled.

    Attributes:
        type: Qualified name of the exception's class, for example `builtins.KeyError`.
        message: `str(exception)`, and its notes of one line.
        traceback: Traceback text with causes, the user's frames only; "" where there is none.
        failure_class: Who is to blame.
        kind: `CrashKind` value, `TimeoutKind` value, or "".
        exception: Envelope of the pickled exception (see `results.envelope`), or None.
        fingerprint: 16 hexadecimal digits, equal for failures with one innermost cause, whatever
            the values and line numbers in it; "" where there is nothing to tell them by.
        evidence: What else is known.
    """

    type: str
    message: str
    traceback: str = ""
    failure_class: FailureClass = FailureClass.USER
    kind: str = ""
    exception: bytes | None = None
    fingerprint: str = ""
    evidence: Evidence = field(default_factory=Evidence)


@dataclass(frozen=True, slots=True)
class LargeValue:
    """A value that stays in the backend's object store.

    Attributes:
        handle: The backend's own reference to all large values of one unit.
        position: Which of them this is.
        size: Encoded size (bytes).
        location: Where the result storage has a copy of it (see `StoredValue`), or "".
    """

    handle: Any
    position: int
    size: int
    location: str = ""


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value that is in the result storage, and nowhere nearer.

    Attributes:
        location: `<fsspec URL>#<first byte>+<bytes>:<digest>`: a part of an object, and the BLAKE2b
            digest of its envelope (16 bytes, in hexadecimal), so that damage is noticed.
        size: Encoded size (bytes).
    """

    location: str
    size: int

    @property
    def digest(self) -> bytes:
        """Digest of the envelope (16 bytes)."""
        return bytes.fromhex(self.location.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class UnkeptValue:
    """A value of a task run that completed, and of which nothing was kept: it can be made again.

    Attributes:
        size: Encoded size that it had (bytes).
    """

    size: int


Value: TypeAlias = bytes | LargeValue | StoredValue | UnkeptValue
"""The envelope of a small value, or what stands for another one."""
