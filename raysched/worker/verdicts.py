"""What a task's options say of a result, and of an exception, where these are alive."""

import re
from collections.abc import Callable
from typing import Any, TypeAlias, get_origin

from raysched.define.retries import Fail, Retry
from raysched.errors import CheckFailed
from raysched.model.values import RetryVerdict
from raysched.worker.causes import type_name
from raysched.worker.failures import bounded, message_of
from raysched.worker.masking import Masks
from raysched.worker.previews import Previews, type_of

Check: TypeAlias = Callable[[str, Any], None]
"""Called with the key of the task run and its result; raises `CheckFailed`."""

RetryOn: TypeAlias = tuple[type[BaseException], ...] | Callable[[BaseException], Any]

REASON_MAX_CHARACTERS = 1000
"""Reasons are cut in the middle beyond this length."""

_NAMED_CLASSES = 5

_MODULES = re.compile(r"""(?<!['"\w])(?:(?:\w+|<locals>)\.)+(?=[A-Za-z_])""")
"""What stands before the names of classes in a type; not in its literal texts."""


def check_of(given: Any, masks: Masks) -> Check:
    """Return what tests results by the option `check=`.

    Args:
        given: The option: a type, or a function that refuses a result by raising or by returning
            False, Python's or NumPy's. Whatever else it returns is fine, as many checks return
            what they have checked.
        masks: What messages must not show.
    """
    if isinstance(given, type) or get_origin(given) is not None:
        return _check_by_type(given)
    return _check_by_function(given, masks)


def _check_by_function(function: Callable[[Any], Any], masks: Masks) -> Check:
    name = _name(function)

    def check(key: str, result: Any) -> None:
        try:
            answer = function(result)
        except Exception as error:
            raise CheckFailed(
                f"the result of {key} is refused by check={name}: {type(error).__name__}: "
                f"{message_of(error)}",
                key=key,
                check=name,
            ) from error
        if _is_truth_value(answer) and not answer:
            told = Previews(masks).of(result)
            raise CheckFailed(
                f"the result of {key} is refused by check={name}, which returned False for {told}",
                key=key,
                check=name,
            )

    return check


def _check_by_type(expected: Any) -> Check:
    from pydantic import TypeAdapter, ValidationError  # slow to import, and not often needed

    adapter: TypeAdapter[Any] = TypeAdapter(expected)
    name = _name(expected)

    def check(key: str, result: Any) -> None:
        try:
            adapter.validate_python(result)
        except ValidationError as error:
            raise CheckFailed(
                f"the result of {key}, of type {type_of(result)}, is refused by "
                f"check={name}: {_summary(error)}",
                key=key,
                check=name,
            ) from None

    return check


def _summary(error: Any) -> str:
    """Return what is wrong, without the values, which may be large or secret."""
    problems = [
        f"{'.'.join(map(str, each['loc'])) or 'the result'}: {each['msg']}"
        for each in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    return "; ".join(problems[:_NAMED_CLASSES]) + ("; …" if len(problems) > _NAMED_CLASSES else "")


def retry_verdict(retry_on: RetryOn, error: BaseException) -> RetryVerdict:
    """Return what the option `retry_on=` says of an exception; never raises.

    A class stands for an exception that is an instance of it, or that was raised `from` one; for a
    group if it does for all of its exceptions. A function that raises, or answers what is no
    answer, says no: what nobody understands is not repeated.
    """
    if isinstance(retry_on, tuple):
        return _by_classes(retry_on, error)
    name = _name(retry_on)
    try:
        answer = retry_on(error)
    except (Exception, SystemExit) as broken:  # noqa: BLE001 - the user's function may raise anything
        told = f"retry_on={name} raised {type_name(broken)}: {message_of(broken)}"
        return _verdict(retry=False, reason=told)
    if _is_truth_value(answer):
        return _verdict(retry=bool(answer), reason=f"retry_on={name} said {bool(answer)}")
    match answer:
        case Retry(delay_seconds, reason):
            told = str(reason) or f"retry_on={name} said Retry"
            return _verdict(retry=True, reason=told, delay_seconds=delay_seconds)
        case Fail(reason):
            return _verdict(retry=False, reason=str(reason) or f"retry_on={name} said Fail")
        case _:
            told = f"returned {type_of(answer)}, which is neither a bool nor Retry(…) nor Fail(…)"
            return _verdict(retry=False, reason=f"retry_on={name} {told}")


def _by_classes(classes: tuple[type[BaseException], ...], error: BaseException) -> RetryVerdict:
    met = _instance(classes, error, [])
    if met is not None:
        return _verdict(retry=True, reason=f"retry_on has {type(met).__name__}")
    names = ", ".join(each.__name__ for each in classes[:_NAMED_CLASSES])
    more = ", …" if len(classes) > _NAMED_CLASSES else ""
    return _verdict(
        retry=False, reason=f"{type(error).__name__} is not what retry_on has: {names}{more}"
    )


def _instance(
    classes: tuple[type[BaseException], ...], error: BaseException, seen: list[BaseException]
) -> BaseException | None:
    """Return the exception that the classes stand for, of `error` and its causes."""
    cause: BaseException | None = error
    while cause is not None and not any(cause is each for each in seen):
        if isinstance(cause, classes):
            return cause
        seen.append(cause)
        if isinstance(cause, BaseExceptionGroup):
            leaves = [_instance(classes, each, seen) for each in cause.exceptions]
            if all(leaf is not None for leaf in leaves):
                return leaves[0]
        cause = cause.__cause__
    return None


def _verdict(*, retry: bool, reason: str, delay_seconds: float | None = None) -> RetryVerdict:
    return RetryVerdict(
        retry=retry, delay_seconds=delay_seconds, reason=bounded(reason, REASON_MAX_CHARACTERS)
    )


def _is_truth_value(answer: object) -> bool:
    """Whether it is Python's True or False, or NumPy's, which is how arrays compare."""
    return type(answer).__name__ in {"bool", "bool_"}


def _name(given: Any) -> str:
    name = getattr(given, "__qualname__", None) if get_origin(given) is None else None
    return name.rpartition(".")[2] if isinstance(name, str) else _MODULES.sub("", repr(given))[:100]
