"""The options about failures: what is tried again, with what, and what counts as a failure."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, get_origin

from raysched.define.checker import BYTES, Checker, is_number, size_of
from raysched.define.options import RAY_OPTIONS, Rule
from raysched.errors import InvalidOption
from raysched.model.options import Escalation, RetryOptions
from raysched.model.serializers import RESULT_SERIALIZERS
from raysched.model.triggers import MinSuccess, Trigger, TriggerRule

HEARTBEAT_MIN_SECONDS = 1.0
"""The least `heartbeat_timeout_seconds` (seconds)."""

_RULES = [str(rule) for rule in TriggerRule]


def escalate(factor: float = 2, *, up_to: float | str) -> Escalation:
    """Return what gives an attempt more memory after one that was killed for memory: for `on_oom`.

    Args:
        factor: The task's `memory` times this, for each such attempt; more than 1.
        up_to: The most that is asked for, in bytes as a number or such as `"16GiB"`. An attempt
            that is killed with so much is tried again with as much, as long as `crash_retries`
            last.

    Raises:
        InvalidOption: The factor is not more than 1, or `up_to` is no size.
    """
    if not is_number(factor) or factor <= 1:
        raise InvalidOption(f"escalate(factor={factor!r}): must be a number, more than 1")
    size = size_of(up_to)
    if size is None:
        raise InvalidOption(f"escalate(up_to={up_to!r}): {BYTES}")
    return Escalation(float(factor), size)


def min_success(least: float) -> MinSuccess:
    """Return the trigger rule that enough of what a task needs succeeded, once all of it has ended.

    Args:
        least: How many (an int), or which share of them (a float over 0, up to 1.0).

    Raises:
        InvalidOption: It is neither.
    """
    problem = _problem_of_share(least)
    if problem:
        raise InvalidOption(f"min_success({least!r}): {problem}")
    return MinSuccess(least)


def min_success_of(what: str, given: float | MinSuccess) -> MinSuccess:
    """Return how many task runs of a map have to succeed, from the argument of `.map`.

    Raises:
        InvalidOption: It is neither a number nor a share.
    """
    if isinstance(given, MinSuccess):
        return given
    problem = _problem_of_share(given)
    if problem:
        raise InvalidOption(f"{what}: min_success={given!r}: {problem}")
    return MinSuccess(given)


def trigger_of(what: str, given: Rule) -> Trigger:
    """Return a trigger rule as users give it.

    Args:
        what: For messages: `task 'parse'`.
        given: The rule.

    Raises:
        InvalidOption: There is no such rule.
    """
    if isinstance(given, TriggerRule | MinSuccess):
        return given
    if given in _RULES:
        return TriggerRule(given)
    close = get_close_matches(str(given).lower(), _RULES, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InvalidOption(
        f"{what}: trigger_rule={given!r}: there is no such rule; {hint}The rules are "
        f"{', '.join(_RULES)} and min_success(…)"
    )


def trigger_rule(checker: Checker, *, teardown: bool) -> Trigger:
    """Return when a task may begin: the option, or what is usual for such a task."""
    given = checker.get("trigger_rule")
    if given is not None:
        return trigger_of(checker.what, given)
    return TriggerRule.ALL_DONE_SETUP_SUCCESS if teardown else TriggerRule.ALL_SUCCESS


def setup_and_teardown(checker: Checker) -> tuple[bool, bool]:
    """Return whether a task sets up, and whether it tears down."""
    setup, teardown = checker.flag("setup") or False, checker.flag("teardown") or False
    if setup and teardown:
        raise checker.fail("teardown", "a setup task cannot be a teardown task, too")
    return setup, teardown


def idempotent(checker: Checker) -> bool:
    """Return whether a task may run twice, and whether its other options agree with that.

    Those that would have it run again after a crash, or in a call with others, do not.
    """
    if checker.flag("idempotent") is not False:
        return True
    if checker.get("crash_retries"):
        raise checker.fail(
            "crash_retries",
            "idempotent=False: one whose worker died may have had its effect; leave one out",
        )
    if checker.get("on_oom") is not None:
        raise checker.fail(
            "on_oom",
            "idempotent=False: one that was killed for memory may have had its effect; leave one "
            "out",
        )
    if checker.get("batch_size") is not None or checker.get("batch"):
        option = "batch" if checker.get("batch") else "batch_size"
        raise checker.fail(
            option, "idempotent=False: it shares no Ray call with others; leave one out"
        )
    return False


def heartbeat(checker: Checker) -> float | None:
    """Return how long the process of an attempt may be silent (seconds)."""
    seconds = checker.number("heartbeat_timeout_seconds", " of seconds", above_zero=True)
    if seconds is not None and seconds < HEARTBEAT_MIN_SECONDS:
        raise checker.fail(
            "heartbeat_timeout_seconds",
            f"must be {HEARTBEAT_MIN_SECONDS:g} or more: on a busy machine a process that is well "
            "is silent for shorter times",
        )
    return seconds


def limit_of_failures(checker: Checker) -> int | float | None:
    """Return how many failures (an int), or which share (a float), stop a group."""
    given: int | float | None = checker.get("max_failures")
    problem = None if given is None else _problem_of_share(given)
    if problem:
        raise checker.fail("max_failures", problem)
    return given


def retry(checker: Checker) -> RetryOptions:
    """Return when to try again."""
    retries = checker.integer("retries", 0) or 0
    crash_retries = checker.integer("crash_retries", 0)
    if crash_retries is None and not idempotent(checker):
        crash_retries = 0
    return RetryOptions(
        retries=retries,
        delays=checker.delays(retries),
        jitter_factor=checker.number("retry_jitter_factor", "") or 0.0,
        condition=checker.function("retry_condition_fn"),
        crash_retries=RetryOptions().crash_retries if crash_retries is None else crash_retries,
        retry_on=_retry_on(checker),
        on_oom=_on_oom(checker),
    )


def resources(
    checker: Checker, retry: RetryOptions
) -> tuple[Mapping[str, Any], tuple[Mapping[str, Any], ...]]:
    """Return Ray's options, and those of each attempt where they differ (see `TaskSpec`)."""
    functions = checker.functions(RAY_OPTIONS)
    if not functions:
        ray = checker.ray()
        _check_escalation(checker, retry.on_oom, ray.get("memory"))
        return ray, ()
    if "memory" in functions and retry.on_oom is not None:
        raise checker.fail(
            "on_oom", "memory is a function of the attempt already; leave one of the two out"
        )
    by_attempt = []
    for attempt in range(1, 2 + retry.retries + retry.crash_retries):
        given = {
            option: _asked(checker, option, function, attempt)
            for option, function in functions.items()
        }
        by_attempt.append(checker.replaced(f" at attempt {attempt}", given).ray())
    _check_escalation(checker, retry.on_oom, by_attempt[0].get("memory"))
    while len(by_attempt) > 1 and by_attempt[-1] == by_attempt[-2]:
        by_attempt.pop()
    return by_attempt[0], tuple(by_attempt)


def check(checker: Checker) -> Any:
    """Return what results are tested with: a function, or a type."""
    given = checker.get("check")
    if given is None:
        return None
    if isinstance(given, type) or get_origin(given) is not None:
        _check_type(checker, given)
    elif not callable(given):
        raise checker.fail(
            "check", "must be a function of the result, or a type that pydantic validates it by"
        )
    elif inspect.iscoroutinefunction(given):
        raise checker.fail("check", "must be a plain function, not async def")
    else:
        check_takes_one(checker, "check", given, "the result")
    return given


def check_takes_one(
    checker: Checker, option: str, function: Callable[..., Any], argument: str
) -> None:
    """Check that a function can be called with one argument, as far as it tells.

    Args:
        checker: The options.
        option: Its name.
        function: The function.
        argument: For messages, what it is called with.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins tell nothing about themselves
        return
    try:
        signature.bind(None)
    except TypeError:
        raise checker.fail(
            option, f"is called with one argument, {argument}, but takes {signature}"
        ) from None


def serializer(checker: Checker) -> str:
    """Return how results are written, "" to choose by the type of each."""
    given = checker.get("result_serializer")
    if given is None or given in RESULT_SERIALIZERS:
        return given or ""
    close = get_close_matches(str(given), RESULT_SERIALIZERS, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise checker.fail(
        "result_serializer",
        f"there is no such serializer; {hint}The serializers are {', '.join(RESULT_SERIALIZERS)}",
    )


def _problem_of_share(value: object) -> str:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    is_share = isinstance(value, float) and 0 < value <= 1
    return "" if is_count or is_share else "must be a number such as 3, or a share such as 0.05"


def _retry_on(
    checker: Checker,
) -> tuple[type[BaseException], ...] | Callable[[BaseException], Any] | None:
    given = checker.get("retry_on")
    if given is None:
        return None
    if callable(given) and not isinstance(given, type):
        if inspect.iscoroutinefunction(given):
            raise checker.fail("retry_on", "must be a plain function, not async def")
        check_takes_one(checker, "retry_on", given, "the exception")
        return given  # type: ignore[no-any-return]
    classes = tuple(given) if isinstance(given, Iterable) and given else (given,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise checker.fail(
                "retry_on",
                f"{each!r} is no exception class: give it exception classes, or a function of the "
                "exception",
            )
    return classes


def _on_oom(checker: Checker) -> Escalation | None:
    given = checker.get("on_oom")
    if given is not None and not isinstance(given, Escalation):
        raise checker.fail("on_oom", "must be escalate(factor=2, up_to='16GiB')")
    return given


def _check_escalation(checker: Checker, escalation: Escalation | None, memory: int | None) -> None:
    if escalation is None:
        return
    if memory is None:
        raise checker.fail(
            "on_oom",
            "needs memory=, which is what the first attempt gets and what is multiplied: "
            "memory='2GiB'",
        )
    if escalation.up_to < memory:
        raise checker.fail(
            "on_oom", f"up_to is {escalation.up_to:,} bytes, below memory={memory:,}"
        )


def _asked(checker: Checker, option: str, function: Callable[[int], Any], attempt: int) -> Any:
    try:
        return function(attempt)
    except Exception as error:
        raise checker.fail(
            option, f"raised {type(error).__name__} for attempt {attempt}: {error}"
        ) from error


def _check_type(checker: Checker, given: Any) -> None:
    from pydantic import PydanticUserError, TypeAdapter  # slow to import, and not often needed

    try:
        TypeAdapter(given)
    except PydanticUserError as error:
        problem = str(error).partition("\n")[0]
        raise checker.fail("check", f"pydantic cannot validate by this type: {problem}") from error
