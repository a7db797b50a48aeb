"""What is known of attempts that failed, as workers and backends tell it."""

from raysched.model.states import StateType
from raysched.model.values import CrashKind, ErrorInfo, FailureClass

CLASS_OF = {
    StateType.FAILED: FailureClass.USER,
    StateType.TIMED_OUT: FailureClass.TIMEOUT,
    StateType.CRASHED: FailureClass.INFRASTRUCTURE,
    StateType.CANCELLED: FailureClass.CANCELLED,
}


def failure(state: StateType, message: str = "broken") -> ErrorInfo:
    """What is known of an attempt that ended in `state`."""
    return ErrorInfo(
        "builtins.ValueError", message, failure_class=CLASS_OF[state], fingerprint=state.name
    )


LOST = ErrorInfo("", "gone", failure_class=FailureClass.INFRASTRUCTURE, kind=CrashKind.WORKER_DIED)
STOPPED = ErrorInfo("", "stopped", failure_class=FailureClass.CANCELLED)
