"""Every error that raysched raises on purpose, in one tree.

```
RayschedError
├── UsageError                     the call cannot be right; nothing was started (also a ValueError)
│   ├── InvalidOption              an option of @flow or @task: unknown name or impossible value
│   ├── ParameterError             arguments that do not fit the signature or annotations
│   ├── MapError                   .map over unequal lengths, or over nothing iterable
│   ├── FutureError                a future where it cannot be: other run, outside a flow
│   ├── CycleError                 task runs that would wait for each other
│   ├── TargetError                a TARGET that names no flow, or several
│   ├── NotResumable               a flow run that cannot be resumed, or not without a yes
│   └── SettingsError              a variable RAYSCHED_* or OTEL_* with an impossible value
├── SerializationError             something that cannot be pickled (also a TypeError)
├── ResultError                    a value that cannot be handed over
│   ├── ResultTimeout              .result(timeout=…) passed first (also a TimeoutError)
│   ├── ResultNotKept              the value was not kept after its run ended
│   └── ResultLost                 the object store lost the value
├── TaskRunError                   a task run has no value to hand over
│   ├── TaskRunFailed              the user's exception, where the original cannot be rebuilt here
│   ├── CheckFailed                its result did not pass check=
│   ├── TaskRunTimedOut            a limit of time passed (also a TimeoutError)
│   ├── TaskRunCrashed             the infrastructure under the task run broke
│   ├── TaskRunCancelled           a person or the flow's end cancelled it
│   ├── TaskRunSkipped             its trigger rule was not met, or it was skipped on purpose
│   ├── TaskRunUnfinished          it has not ended yet, and a trigger rule did not wait for it
│   └── UpstreamFailed             it never ran, because of the roots that it names
├── FlowRunError                   a flow run ended without success
│   ├── FlowRunFailed              unhandled failures; names them
│   ├── FlowRunTimedOut            timeout_seconds of the flow passed (also a TimeoutError)
│   └── FlowRunCancelled           cancelled
├── BackendError                   Ray or another backend refuses to work
│   ├── BackendUnreachable         no cluster at that address, or it refuses the token
│   └── InfeasibleResources        no node can ever give what a task asks for
├── StoreError                     the database refuses to work
│   ├── StoreUnavailable           it cannot be reached or written now
│   ├── StoreVersionError          its schema is newer than this raysched
│   ├── RunTakenOver               another process has taken the run over
│   ├── RunExists                  there is a flow run with that key already
│   ├── RunOwned                   another process, which lives, is working on the run
│   └── RunNotFound                no run, or more than one, matches (also a LookupError)
├── TelemetryError                 a Jaeger or a collector that is asked for cannot be used
└── InternalError                  an invariant of raysched itself broke: please report it
    └── IllegalTransition          a state change that the table forbids, with the task run's story
```

Messages say what was wrong with which argument and what to do about it.
"""


class RayschedError(Exception):
    """Base of every error that raysched raises on purpose."""


class UsageError(RayschedError, ValueError):
    """The call cannot be right. Nothing was started and nothing was written."""


class InvalidOption(UsageError):
    """An option of `@flow`, `@task` or `with_options` is unknown or has an impossible value."""


class ParameterError(UsageError):
    """Arguments do not fit the signature or the annotations of a flow or task."""


class MapError(UsageError):
    """`.map` got iterables of unequal length, or nothing that can be iterated."""


class FutureError(UsageError):
    """A future, `.submit` or `.map` was used where it has no meaning."""


class CycleError(UsageError):
    """Task runs would wait for each other for ever."""


class TargetError(UsageError):
    """A TARGET (`file.py`, `file.py:flow`, `package.module:flow`) names no flow, or several."""


class NotResumable(UsageError):
    """A flow run cannot be resumed, or not without a person's yes; nothing was changed."""


class SettingsError(UsageError):
    """An environment variable `RAYSCHED_*` or `OTEL_*` has an impossible value."""


class SerializationError(RayschedError, TypeError):
    """An argument, a result or an exception cannot be pickled."""


class ResultError(RayschedError):
    """A value cannot be handed over."""


class ResultTimeout(ResultError, TimeoutError):
    """The `timeout` (seconds) of `.result()` passed before the task run ended; it goes on."""


class ResultNotKept(ResultError):
    """The value was too large to be kept after its run ended, or `persist_result=False`."""


class ResultLost(ResultError):
    """The object store lost the value, with its node or its owner."""


class TaskRunError(RayschedError):
    """A task run has no value to hand over: it ended in a state without one, or not yet.

    Attributes:
        key: The task run, for example `parse[17]`.
        remote_traceback: The traceback text of the worker, or "" where there is none.
    """

    def __init__(self, message: str, *, key: str = "", remote_traceback: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.remote_traceback = remote_traceback

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args[0], dict(self.__dict__))


class TaskRunFailed(TaskRunError):
    """The user's code raised, and the exception itself cannot be rebuilt in this process."""


class CheckFailed(TaskRunError):
    """The task's function returned, but `check=` refused what it returned.

    Raised in the worker, so the task run fails like one whose own code raised; where the check
    raised an exception, that is the cause.

    Attributes:
        check: The name of the function, or the type, for example `list[Customer]`.
    """

    def __init__(
        self, message: str, *, key: str = "", remote_traceback: str = "", check: str = ""
    ) -> None:
        super().__init__(message, key=key, remote_traceback=remote_traceback)
        self.check = check


class TaskRunTimedOut(TaskRunError, TimeoutError):
    """The task run passed one of its limits of time; the message names which."""


class TaskRunCrashed(TaskRunError):
    """The infrastructure under the task run broke: worker, node, memory, object, environment."""


class TaskRunCancelled(TaskRunError):
    """The task run was cancelled before it could complete."""


class TaskRunSkipped(TaskRunError):
    """The task run was skipped and has no value.

    `skip("reason")` raises it inside of a task, where it ends the task run as SKIPPED.
    """


class TaskRunUnfinished(TaskRunError):
    """The task run has not ended yet.

    A task whose trigger rule does not wait for all of its upstream task runs (`one_success`,
    `one_failed`, `one_done`, `always`) gets it in the place of the values that are still missing.
    """


class UpstreamFailed(TaskRunError):
    """The task run never ran, because others before it did not succeed.

    Attributes:
        roots: The keys of the task runs that failed themselves, for example `("load[17]",)`.
    """

    def __init__(self, message: str, *, key: str = "", roots: tuple[str, ...] = ()) -> None:
        super().__init__(message, key=key)
        self.roots = roots


class FlowRunError(RayschedError):
    """A flow run ended without success."""


class FlowRunFailed(FlowRunError):
    """The flow function returned, but failures that nobody handled exist in the run.

    Attributes:
        failures: The keys of the unhandled root failures.
    """

    def __init__(self, message: str, *, failures: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.failures = failures

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args[0], dict(self.__dict__))


class FlowRunTimedOut(FlowRunError, TimeoutError):
    """The flow run took longer than its `timeout_seconds`."""


class FlowRunCancelled(FlowRunError):
    """The flow run was cancelled.

    Attributes:
        by: Who asked for it, for people: `me@host`; "" where nobody else did.
    """

    def __init__(self, message: str, *, by: str = "") -> None:
        super().__init__(message)
        self.by = by

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args[0], dict(self.__dict__))


class BackendError(RayschedError):
    """A backend refuses to work."""


class BackendUnreachable(BackendError, ConnectionError):
    """There is no Ray cluster at the address, or it refuses the authentication token."""


class InfeasibleResources(BackendError):
    """No node of the cluster can ever give what a task asks for."""


class StoreError(RayschedError):
    """The database refuses to work."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, opened or written now."""


class StoreVersionError(StoreError):
    """The database was written by a newer raysched than this one."""


class RunTakenOver(StoreError):
    """Another process has taken the run over; this one must stop working on it."""


class RunOwned(StoreError):
    """The flow run is open, and the process that owns it lives."""


class RunExists(StoreError):
    """There is a flow run already with the key that makes a run the only one of its kind.

    Attributes:
        run_id: Its id.
    """

    def __init__(self, message: str, *, run_id: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args[0], dict(self.__dict__))


class RunNotFound(StoreError, LookupError):
    """No run matches the given id or prefix, or more than one does."""


class TelemetryError(RayschedError):
    """A Jaeger cannot be started, or a collector does not take what a person sends to it."""


class InternalError(RayschedError):
    """An invariant of raysched itself broke. Please report it with the message."""


class IllegalTransition(InternalError):
    """A state change that the transitions table forbids."""


def _rebuild(cls: type[RayschedError], message: str, attributes: dict[str, object]) -> object:
    # Exceptions with keyword-only arguments cannot be rebuilt by calling cls(*args).
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(attributes)
    return error
