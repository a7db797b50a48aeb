"""The options of `@task` and `@flow`: their names and types."""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from raysched.define.task_runners import RayTaskRunner, ThreadPoolTaskRunner
from raysched.model.options import Escalation, Hook
from raysched.model.triggers import Trigger

if TYPE_CHECKING:
    from raysched.define.cache_policies import CachePolicy

Rule: TypeAlias = (
    Trigger
    | Literal[
        "all_success",
        "all_failed",
        "all_done",
        "all_done_min_one_success",
        "all_done_setup_success",
        "one_success",
        "one_failed",
        "one_done",
        "none_failed",
        "none_skipped",
        "none_failed_min_one_success",
        "all_skipped",
        "always",
    ]
)
"""A trigger rule as users give it."""

RetryOn: TypeAlias = (
    type[BaseException] | Iterable[type[BaseException]] | Callable[[BaseException], object]
)
"""What `retry_on` takes."""


ResultSerializer: TypeAlias = Literal[
    "pickle",
    "json",
    "arrow",
    "parquet",
    "compressed/pickle",
    "compressed/json",
    "compressed/arrow",
    "compressed/parquet",
]
"""How results are written: the names in `model.serializers`."""


class TaskOptions(TypedDict, total=False):
    """What `@task` and `Task.with_options` take. None means the default.

    Prefect's options first, Ray's after them. Of raysched's own:

    - `crash_retries`: Tries after the first one when the infrastructure under it breaks (3).
    - `max_concurrency`: Runs of this task that may overlap in one worker, in threads if the
      function is not `async def` (1); Ray's word.
    - `max_parallel`: Most runs of this task at once in one flow run; `with_options` makes a task
      with a limit of its own.
    - `batch` and `batch_size`: Rarely needed, since quick task runs share Ray calls by
      themselves. `batch=False` gives each task run a call of its own; `batch_size=n` gives every
      call n task runs where there are as many, however long they take.

    - `result_serializer`: How results are written; `compressed/` before its name compresses them.
      By default tables of pyarrow and polars by Arrow, everything else by pickle.

    What happens when something fails:

    - `retry_on`: What is worth one of the `retries`: an exception class, several of them, or a
      function of the exception that returns True, False, `Retry(delay_seconds=, reason=)` or
      `Fail(reason=)`. It is asked in the worker.
    - `on_oom`: `escalate(factor=2, up_to="16GiB")` gives each attempt that follows one that was
      killed for memory that much more `memory`.
    - Each of Ray's options may be a function of the attempt's number, from 1:
      `num_cpus=lambda attempt: 2 ** attempt`. It is asked when the task is declared.
    - `timeout_seconds`, `queue_timeout_seconds`, `total_timeout_seconds` and
      `heartbeat_timeout_seconds`: Limits of one attempt; of the time from being ready to
      beginning; of all attempts with the pauses between them; and of the silence of the process
      that runs an attempt.
    - `trigger_rule`: When it may begin, in Airflow's words: `"all_done"`, `TriggerRule.ONE_FAILED`,
      `min_success(0.9)`, …
    - `setup` and `teardown`: A teardown task cleans up: it runs also when the run fails or is
      cancelled, if the `setup` tasks that it needs have succeeded, and its own failure does not
      make the run fail.
    - `max_failures`: How many of the task runs of one map (an int; 0 for none), or which share of
      them (a float), may fail before the rest of them is not begun any more.
    - `max_same_failures`: How many attempts in a row may fail for one and the same reason before
      that (1000); 0 for any number.
    - `check`: What a result is tested with in the worker, before it counts: a function that raises
      or returns False, or a type that pydantic validates it against.
    - `fallback`: What takes the place of the value of a task run that failed for good: a value, or
      a task or function that is called with the same arguments. `quote(x)` is x itself, for a
      literal None or a literal function.
    - `compensate`: A task or function that undoes a completed task run, called with its value once
      the flow run has failed for good; the last completed one comes first.
    - `on_commit` and `on_rollback`: Hooks of the `transaction` that the task is called in.
    - `idempotent`: False for what must not happen twice, such as a payment: it is not tried again
      after a crash, a resume or rerun asks before it runs one again that may have run (`--yes`),
      and it shares no Ray call with others. `retries`, if given, are still made: then it had raised
      by itself.
    - `cache_policy`, `cache_key_fn`, `cache_expiration` and `refresh_cache` are Prefect's; ours is
      the policy `FILES`: the content of files that arguments name as `pathlib.Path`.
    - `owner` and `runbook`: Who to turn to and what to do, for people.
    """

    name: str | None
    description: str | None
    version: str | None
    tags: Iterable[str] | None
    task_run_name: str | Callable[[], str] | None
    retries: int | None
    retry_delay_seconds: float | Iterable[float] | Callable[[int], Iterable[float]] | None
    retry_jitter_factor: float | None
    retry_condition_fn: Callable[..., bool] | None
    retry_on: RetryOn | None
    crash_retries: int | None
    on_oom: Escalation | None
    timeout_seconds: float | None
    queue_timeout_seconds: float | None
    total_timeout_seconds: float | None
    heartbeat_timeout_seconds: float | None
    trigger_rule: Rule | None
    setup: bool | None
    teardown: bool | None
    max_failures: float | None
    max_same_failures: int | None
    check: Any
    fallback: Any
    compensate: Callable[[Any], object] | None
    idempotent: bool | None
    owner: str | None
    runbook: str | None
    max_concurrency: int | None
    max_parallel: int | None
    batch: bool | None
    batch_size: int | None
    log_prints: bool | None
    persist_result: bool | None
    result_serializer: ResultSerializer | None
    cache_policy: "CachePolicy | None"
    cache_key_fn: Callable[[Any, dict[str, Any]], str | None] | None
    cache_expiration: timedelta | None
    refresh_cache: bool | None
    on_running: Iterable[Hook] | None
    on_completion: Iterable[Hook] | None
    on_failure: Iterable[Hook] | None
    on_crashed: Iterable[Hook] | None
    on_cancellation: Iterable[Hook] | None
    on_commit: Iterable[Hook] | None
    on_rollback: Iterable[Hook] | None

    num_cpus: float | Callable[[int], float] | None
    num_gpus: float | Callable[[int], float] | None
    memory: float | str | Callable[[int], float | str] | None
    resources: Mapping[str, float] | Callable[[int], Mapping[str, float]] | None
    accelerator_type: str | Callable[[int], str] | None
    label_selector: Mapping[str, str] | Callable[[int], Mapping[str, str]] | None
    fallback_strategy: list[dict[str, Any]] | Callable[[int], list[dict[str, Any]]] | None
    scheduling_strategy: Any
    runtime_env: Mapping[str, Any] | Callable[[int], Mapping[str, Any]] | None
    max_calls: int | Callable[[int], int] | None


class FlowOptions(TypedDict, total=False):
    """What `@flow` and `Flow.with_options` take. None means the default.

    `max_parallel` is the most task runs of a flow run at once. A subflow has a limit of its own.
    """

    name: str | None
    description: str | None
    version: str | None
    flow_run_name: str | Callable[[], str] | None
    retries: int | None
    retry_delay_seconds: float | Iterable[float] | Callable[[int], Iterable[float]] | None
    timeout_seconds: float | None
    validate_parameters: bool | None
    log_prints: bool | None
    persist_result: bool | None
    max_parallel: int | None
    task_runner: RayTaskRunner | ThreadPoolTaskRunner | type[ThreadPoolTaskRunner] | None
    on_running: Iterable[Hook] | None
    on_completion: Iterable[Hook] | None
    on_failure: Iterable[Hook] | None
    on_crashed: Iterable[Hook] | None
    on_cancellation: Iterable[Hook] | None


RAY_OPTIONS = (
    "num_cpus",
    "num_gpus",
    "memory",
    "resources",
    "accelerator_type",
    "label_selector",
    "fallback_strategy",
    "scheduling_strategy",
    "runtime_env",
    "max_calls",
)
"""Ray's task options that are handed on to it."""
