"""From what is kept of a failure back to an exception that can be raised."""

from raysched.define.states import ERRORS
from raysched.errors import TaskRunError, TaskRunFailed, UpstreamFailed
from raysched.graph.group import Group
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo
from raysched.results.envelope import decode


def failure_of(group: Group, index: int) -> BaseException:
    """Return the exception of a task run that ended without a value.

    For a victim of others an `UpstreamFailed`, whose cause is the exception of its first root.
    """
    state = StateType(group.states[index])
    error = group.errors.get(index) or ErrorInfo("", "")
    roots = group.roots.get(index, ())
    if state is StateType.UPSTREAM_FAILED:
        keys = tuple(parent.key(member) for parent, member in roots)
        upstream = UpstreamFailed(error.message, key=group.key(index), roots=keys)
        upstream.__cause__ = failure_of(*roots[0])
        return upstream
    return exception_of(group.key(index), state, error)


def exception_of(key: str, state: StateType, error: ErrorInfo) -> BaseException:
    """Return the user's own exception where it can be rebuilt, otherwise a `TaskRunError`.

    Args:
        key: The task run, for example `parse[17]`.
        state: How it ended.
        error: What is kept of it. The worker's traceback becomes a note of the exception.
    """
    # Also of a crash: a full disk is told by an OSError of the user's own code.
    exception = _original(error) if state in {StateType.FAILED, StateType.CRASHED} else None
    if exception is None:
        factory = ERRORS.get(state, TaskRunFailed)
        exception = factory(_message(key, state, error), key=key, remote_traceback=error.traceback)
    if error.traceback:
        exception.add_note(f"in task run {key}, on the worker:\n{error.traceback.rstrip()}")
    return exception


def _message(key: str, state: StateType, error: ErrorInfo) -> str:
    if error.type.startswith(f"{TaskRunError.__module__}."):
        # Our own words name the task run already.
        return error.message
    text = f"{error.type.rpartition('.')[2]}: {error.message}" if error.type else error.message
    return f"{key} {state.name.lower().replace('_', ' ')}: {text or 'no reason is known'}"


def _original(error: ErrorInfo) -> BaseException | None:
    if error.exception is None:
        return None
    try:
        exception = decode(error.exception)
    except Exception:  # noqa: BLE001 - a user's class may refuse to be rebuilt in any way
        return None
    return exception if isinstance(exception, BaseException) else None
