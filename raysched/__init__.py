"""Workflows of plain Python functions on Ray."""

from typing import TYPE_CHECKING, Any

from raysched.define import runtime
from raysched.define.annotations import allow_failure, quote, unmapped
from raysched.define.cache_policies import (
    DEFAULT,
    FILES,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
)
from raysched.define.context import in_context, tags
from raysched.define.flows import Flow, flow
from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.define.logs import get_run_logger
from raysched.define.once_per_worker import once_per_worker
from raysched.define.partial import PartialFutureList
from raysched.define.planning import FlowPlan
from raysched.define.policies import escalate, min_success
from raysched.define.retries import Fail, Retry, exponential_backoff
from raysched.define.skipping import skip, when
from raysched.define.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    Scheduled,
    State,
)
from raysched.define.successes import Successes
from raysched.define.task_runners import RayTaskRunner, ThreadPoolTaskRunner
from raysched.define.tasks import Task, task
from raysched.define.transactions import CommitMode, Transaction, transaction
from raysched.define.waiting import DoneAndNotDoneFutures, as_completed, wait
from raysched.errors import (
    BackendError,
    BackendUnreachable,
    CheckFailed,
    CycleError,
    FlowRunCancelled,
    FlowRunError,
    FlowRunFailed,
    FlowRunTimedOut,
    FutureError,
    IllegalTransition,
    InfeasibleResources,
    InternalError,
    InvalidOption,
    MapError,
    ParameterError,
    RayschedError,
    ResultError,
    ResultLost,
    ResultNotKept,
    ResultTimeout,
    RunNotFound,
    SerializationError,
    SettingsError,
    StoreError,
    StoreUnavailable,
    StoreVersionError,
    TargetError,
    TaskRunCancelled,
    TaskRunCrashed,
    TaskRunError,
    TaskRunFailed,
    TaskRunSkipped,
    TaskRunTimedOut,
    TaskRunUnfinished,
    UpstreamFailed,
    UsageError,
)
from raysched.model.runs import FlowRun, TaskRun
from raysched.model.states import StateType
from raysched.model.triggers import TriggerRule

if TYPE_CHECKING:
    from raysched.client import get_run, get_runs

    __version__: str

__all__ = [
    "DEFAULT",
    "FILES",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NONE",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "BackendError",
    "BackendUnreachable",
    "CachePolicy",
    "Cancelled",
    "CheckFailed",
    "CommitMode",
    "Completed",
    "Crashed",
    "CycleError",
    "DoneAndNotDoneFutures",
    "Fail",
    "Failed",
    "Flow",
    "FlowPlan",
    "FlowRun",
    "FlowRunCancelled",
    "FlowRunError",
    "FlowRunFailed",
    "FlowRunTimedOut",
    "FutureError",
    "IllegalTransition",
    "InfeasibleResources",
    "InternalError",
    "InvalidOption",
    "MapError",
    "ParameterError",
    "PartialFutureList",
    "Pending",
    "RayTaskRunner",
    "RayschedError",
    "ResultError",
    "ResultLost",
    "ResultNotKept",
    "ResultTimeout",
    "Retry",
    "RunNotFound",
    "Running",
    "Scheduled",
    "SerializationError",
    "SettingsError",
    "State",
    "StateType",
    "StoreError",
    "StoreUnavailable",
    "StoreVersionError",
    "Successes",
    "TargetError",
    "Task",
    "TaskFuture",
    "TaskFutureList",
    "TaskRun",
    "TaskRunCancelled",
    "TaskRunCrashed",
    "TaskRunError",
    "TaskRunFailed",
    "TaskRunSkipped",
    "TaskRunTimedOut",
    "TaskRunUnfinished",
    "ThreadPoolTaskRunner",
    "Transaction",
    "TriggerRule",
    "UpstreamFailed",
    "UsageError",
    "__version__",
    "allow_failure",
    "as_completed",
    "escalate",
    "exponential_backoff",
    "flow",
    "get_run",
    "get_run_logger",
    "get_runs",
    "in_context",
    "min_success",
    "once_per_worker",
    "quote",
    "runtime",
    "skip",
    "tags",
    "task",
    "transaction",
    "unmapped",
    "wait",
    "when",
]


def __getattr__(name: str) -> Any:
    # The client reads the database, which costs half a second to import.
    if name in {"get_run", "get_runs"}:
        from raysched import client

        return getattr(client, name)
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
