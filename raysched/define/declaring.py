"""Turning the options of a task into its `TaskSpec`."""

import inspect
from collections.abc import Callable
from typing import Any, cast

from raysched.define import cache_policies, policies
from raysched.define.annotations import quote
from raysched.define.calling import Caller
from raysched.define.checker import Checker
from raysched.define.decorated import Decorated, declare
from raysched.define.options import TaskOptions
from raysched.define.signature import Signature
from raysched.errors import FutureError, SerializationError
from raysched.graph.payload import dumps
from raysched.model.options import Fallback, Hooks, TaskSpec

_FLOWS_DEFAULTS = ("log_prints", "persist_result")
"""Options that a flow has a default for."""


def caller_of(task: Decorated[Any, Any], options: TaskOptions) -> Caller:
    """Return what records the calls of a task.

    Raises:
        InvalidOption: An option is unknown or impossible.
    """
    declared = declare(task, options, TaskOptions.__annotations__)
    function, checker = task.fn, declared.checker
    batch, batch_size = checker.batching()
    idempotent = policies.idempotent(checker)
    setup, teardown = policies.setup_and_teardown(checker)
    cache, is_cached = cache_policies.cache(checker, declared.signature)
    retry = policies.retry(checker)
    ray, ray_by_attempt = policies.resources(checker, retry)
    spec = TaskSpec(
        name=declared.name,
        fn=function,
        is_async=inspect.iscoroutinefunction(function),
        retry=retry,
        timeout_seconds=_seconds(checker, "timeout_seconds"),
        queue_timeout_seconds=_seconds(checker, "queue_timeout_seconds"),
        total_timeout_seconds=_seconds(checker, "total_timeout_seconds"),
        heartbeat_timeout_seconds=policies.heartbeat(checker),
        max_concurrency=checker.integer("max_concurrency", 1) or 1,
        max_parallel=checker.integer("max_parallel", 1),
        batch=batch and idempotent,
        batch_size=batch_size,
        ray=ray,
        ray_by_attempt=ray_by_attempt,
        trigger_rule=policies.trigger_rule(checker, teardown=teardown),
        setup=setup,
        teardown=teardown,
        max_failures=policies.limit_of_failures(checker),
        max_same_failures=checker.integer("max_same_failures", 0),
        check=policies.check(checker),
        fallback=_fallback(checker, declared.signature),
        compensate=_compensation(checker),
        idempotent=idempotent,
        cache=cache if is_cached else None,
        owner=checker.text("owner") or "",
        runbook=checker.text("runbook") or "",
        tags=checker.tags(),
        task_run_name=declared.run_name,
        log_prints=checker.flag("log_prints") or False,
        persist_result=checker.flag("persist_result") is not False,
        result_serializer=policies.serializer(checker),
        hooks=Hooks(**checker.hooks()),
        task=task,
        description=checker.text("description") or inspect.getdoc(function) or "",
        version=checker.text("version"),
    )
    unset = {option for option in _FLOWS_DEFAULTS if options.get(option) is None}
    if is_cached:
        # A cached result is kept, whatever its flow does with others.
        unset.discard("persist_result")
    return Caller(declared.what, spec, declared.signature, frozenset(unset), cache)


def _seconds(checker: Checker, option: str) -> float | None:
    return checker.number(option, " of seconds", above_zero=True)


def _fallback(checker: Checker, signature: Signature) -> Fallback | None:
    given = checker.get("fallback")
    if given is None:
        return None
    function = _function(given)
    if function is not None:
        problem = Signature(checker.what, function).unlike(signature)
        if problem:
            raise checker.fail(
                "fallback",
                f"is called with the same arguments as the task, but {problem}. If the function "
                "itself is the value, quote it: quote(…)",
            )
        return Fallback(spec=_spec_of(given, function))
    if isinstance(given, type):
        raise checker.fail(
            "fallback",
            "is a class: quote it, if the class itself is the value, or give a function that "
            "makes an object of the task's arguments",
        )
    value = given.value if isinstance(given, quote) else given
    try:
        # One pickle is a whole envelope, see `results.envelope`.
        return Fallback(value=dumps(value))
    except (SerializationError, FutureError) as error:
        raise checker.fail("fallback", f"has to be kept as bytes, but {error}") from error


def _compensation(checker: Checker) -> TaskSpec | None:
    given = checker.get("compensate")
    if given is None:
        return None
    function = _function(given)
    if function is None:
        raise checker.fail("compensate", "must be a task, or a function of the value to undo")
    policies.check_takes_one(checker, "compensate", function, "the value of the task run")
    return _spec_of(given, function)


def _function(given: Any) -> Callable[..., Any] | None:
    """Return the function of a task, or a function; None for everything else."""
    if isinstance(given, Decorated):
        return given.fn if given.word == "task" else None
    return given if callable(given) and not isinstance(given, type | quote) else None


def _spec_of(given: Any, function: Callable[..., Any]) -> TaskSpec:
    if isinstance(given, Decorated):
        return cast("TaskSpec", given.spec)
    name = getattr(function, "__name__", type(function).__name__)
    return TaskSpec(name=name, fn=function, is_async=inspect.iscoroutinefunction(function))
