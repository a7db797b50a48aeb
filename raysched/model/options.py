"""What a task or flow was declared with, after checking; frozen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from raysched.model.caching import CacheOptions
from raysched.model.triggers import Trigger, TriggerRule

Hook: TypeAlias = Callable[..., object]
"""A user's callback: `(task, task_run, state)` for tasks, `(flow, flow_run, state)` for flows."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """The user's callbacks by the state that calls them, each in order of declaration."""

    on_running: tuple[Hook, ...] = ()
    on_completion: tuple[Hook, ...] = ()
    on_failure: tuple[Hook, ...] = ()
    on_crashed: tuple[Hook, ...] = ()
    on_cancellation: tuple[Hook, ...] = ()
    on_commit: tuple[Hook, ...] = ()
    on_rollback: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class Escalation:
    """More memory for each attempt that follows one that was killed for memory.

    Attributes:
        factor: `memory` times this, more than 1.
        up_to: Most that is asked for (bytes).
    """

    factor: float
    up_to: int


@dataclass(frozen=True, slots=True)
class Fallback:
    """What takes the place of the value of a task run that failed for good.

    Attributes:
        value: Envelope of the value (see `results.envelope`), or None if a task makes it.
        spec: The task that is run with the same arguments, or None.
    """

    value: bytes | None = None
    spec: "TaskSpec | None" = None


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """How often and when to try again.

    Attributes:
        retries: Tries after the first one for failures of the user's code and timeouts.
        delays: Seconds before each retry; the last one repeats. Empty means at once.
        jitter_factor: Each delay d is drawn from [d, d * (1 + factor)], by a hash, not by chance.
        condition: `retry_condition_fn(task, task_run, state) -> bool`, or None for always.
        crash_retries: Tries after the first one for crashes of the infrastructure.
        retry_on: Exception classes that are worth a retry, or a function of the exception that
            returns True, False, `Retry(…)` or `Fail(…)`. Asked in the worker, where the exception
            is alive; None for all of them.
        on_oom: What an attempt gets after one that was killed for memory, or None.
    """

    retries: int = 0
    delays: tuple[float, ...] = ()
    jitter_factor: float = 0.0
    condition: Callable[..., bool] | None = None
    crash_retries: int = 3
    retry_on: tuple[type[BaseException], ...] | Callable[[BaseException], Any] | None = None
    on_oom: Escalation | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TaskSpec:
    """One task with one set of options: what a group of task runs has in common.

    Compared by identity: two specs with equal options are still two groups.

    Attributes:
        name: The task's name.
        fn: The user's function (for `async def`, the coroutine function).
        is_async: Whether `fn` is a coroutine function.
        retry: Retry options.
        timeout_seconds: Limit of one attempt (seconds), or None.
        queue_timeout_seconds: Limit of the time from being ready to beginning (seconds), or None.
        total_timeout_seconds: Limit of the time from first being ready to the end, over all
            attempts and the delays between them (seconds), or None.
        heartbeat_timeout_seconds: Limit of the silence of the process that runs an attempt
            (seconds), or None.
        max_concurrency: Runs of this task that may overlap in one worker. For sync tasks each
            then runs in a thread. 1 for sync tasks by default; async ones overlap anyway.
        max_parallel: Most runs of this task at once in one flow run, or None for no limit.
        batch: False gives every task run a unit of its own, never shared and never fused.
        batch_size: Task runs that every unit carries, where there are as many; None lets units
            adapt.
        ray: Ray's task options as given (`num_cpus`, `memory` in bytes, `resources`, …).
        ray_by_attempt: Ray's options of each attempt, where some were given as functions of its
            number; the last ones repeat. Empty where they are the same for all.
        trigger_rule: When a task run may begin.
        setup: Whether teardown tasks that need it run only if it succeeded.
        teardown: Whether it cleans up: it runs also when its run fails or is cancelled, and its own
            failure does not make the run fail.
        max_failures: How many (an int) or which share (a float) of the members of one group may
            fail before the rest of them is not begun any more, or None.
        max_same_failures: How many attempts of one group may fail in a row with one fingerprint
            before the rest is not begun any more; 0 for any number, None for the settings'.
        check: What a result is tested with in the worker: a function, or a type that pydantic
            validates; None for nothing.
        fallback: What takes the place of a value that failed for good, or None.
        compensate: The task that undoes a completed task run, called with its value once the flow
            run has failed for good, or None.
        owner: Who to turn to, for people.
        runbook: URL or text that says what to do, for people.
        tags: Tags, sorted.
        task_run_name: Template (`"parse {path}"`) or function without arguments, or None.
        log_prints: Whether `print` becomes log records.
        persist_result: False keeps the result out of the store.
        result_serializer: How results are written: `pickle`, `json`, `arrow`, `parquet`, each also
            as `compressed/…`; "" to choose by the type of the value.
        cache: How results are cached, or None for not at all.
        idempotent: False for a task that must not run twice: it has units of its own, is not tried
            again after a crash, and a resume asks before it runs it again.
        hooks: The user's callbacks.
        task: The `Task` object that the user holds, handed to hooks.
        description: Text for people.
        version: The user's version string, or None.
    """

    name: str
    fn: Callable[..., Any]
    is_async: bool = False
    retry: RetryOptions = RetryOptions()
    timeout_seconds: float | None = None
    queue_timeout_seconds: float | None = None
    total_timeout_seconds: float | None = None
    heartbeat_timeout_seconds: float | None = None
    max_concurrency: int = 1
    max_parallel: int | None = None
    batch: bool = True
    batch_size: int | None = None
    ray: Mapping[str, Any] = field(default_factory=dict)
    ray_by_attempt: tuple[Mapping[str, Any], ...] = ()
    trigger_rule: Trigger = TriggerRule.ALL_SUCCESS
    setup: bool = False
    teardown: bool = False
    max_failures: int | float | None = None
    max_same_failures: int | None = None
    check: Any = None
    fallback: Fallback | None = None
    compensate: "TaskSpec | None" = None
    owner: str = ""
    runbook: str = ""
    tags: tuple[str, ...] = ()
    task_run_name: str | Callable[[], str] | None = None
    log_prints: bool = False
    persist_result: bool = True
    result_serializer: str = ""
    cache: CacheOptions | None = None
    idempotent: bool = True
    hooks: Hooks = Hooks()
    task: Any = None
    description: str = ""
    version: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FlowSpec:
    """A flow with its options.

    Attributes:
        name: The flow's name.
        fn: The user's function.
        is_async: Whether `fn` is a coroutine function.
        retry: Retry options of the flow function.
        timeout_seconds: Limit of the flow run (seconds), or None.
        max_parallel: Most task runs of a flow run at once, or None for what the cluster offers.
        address: Ray address from a task runner, or None for the settings'.
        init_kwargs: More arguments for `ray.init` from a task runner.
        flow_run_name: Template or function without arguments, or None.
        log_prints: Whether `print` in tasks without an own setting becomes log records.
        validate_parameters: Whether pydantic checks and coerces the parameters.
        persist_result: Default for tasks without an own setting, or None.
        hooks: The user's callbacks.
        flow: The `Flow` object that the user holds, handed to hooks.
        description: Text for people.
        version: The user's version string, or None.
    """

    name: str
    fn: Callable[..., Any]
    is_async: bool = False
    retry: RetryOptions = RetryOptions()
    timeout_seconds: float | None = None
    max_parallel: int | None = None
    address: str | None = None
    init_kwargs: Mapping[str, Any] = field(default_factory=dict)
    flow_run_name: str | Callable[[], str] | None = None
    log_prints: bool = False
    validate_parameters: bool = True
    persist_result: bool | None = None
    hooks: Hooks = Hooks()
    flow: Any = None
    description: str = ""
    version: str | None = None
