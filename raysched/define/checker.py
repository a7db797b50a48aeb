"""Checks of options that need to know nothing of what the option is for."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeGuard

from raysched.define.options import RAY_OPTIONS
from raysched.errors import InvalidOption
from raysched.model.options import Hook

MAX_DELAYS = 50
"""As in Prefect: more configured delays are a mistake."""

_INSTEAD = {
    "num_returns": "return a tuple, and pick its elements in another task",
    "max_retries": "use crash_retries, which counts the same crashes",
    "retry_exceptions": "use retries, with retry_on to choose",
    "enable_task_events": "every state is kept in the database already",
}
"""Ray's task options that raysched decides on itself, with what to use instead."""

_HOOKS = (
    "on_running",
    "on_completion",
    "on_failure",
    "on_crashed",
    "on_cancellation",
    "on_commit",
    "on_rollback",
)


class Checker:
    """Checks the options of one flow or task.

    Args:
        what: For messages: `task 'parse'`.
        options: The options as given.
        known: The names that there are.

    Raises:
        InvalidOption: An option is unknown.
    """

    def __init__(self, what: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
        self._options = options
        self._names = names = sorted(known)
        for option in options:
            if option not in names:
                raise InvalidOption(f"{what}: {_unknown(option, names)}")
        self.what = what

    def fail(self, option: str, problem: str) -> InvalidOption:
        """Return the error for an option."""
        return InvalidOption(f"{self.what}: {option}={self._options[option]!r}: {problem}")

    def functions(self, options: Iterable[str]) -> dict[str, Callable[[int], Any]]:
        """Return those of these options that are functions of the attempt's number."""
        given = {option: self.get(option) for option in options}
        return {option: value for option, value in given.items() if callable(value)}

    def replaced(self, when: str, options: Mapping[str, Any]) -> "Checker":
        """Return a checker of other values for some options.

        Args:
            when: For messages: ` at attempt 2`.
            options: The values.
        """
        return Checker(self.what + when, {**self._options, **options}, self._names)

    def get(self, option: str) -> Any:
        """Return an option as given, or None."""
        return self._options.get(option)

    def text(self, option: str) -> str | None:
        """Return a text that is not empty, or None."""
        value = self.get(option)
        if value is not None and (not isinstance(value, str) or not value):
            raise self.fail(option, "must be a text that is not empty")
        return value

    def flag(self, option: str) -> bool | None:
        """Return True, False or None."""
        value = self.get(option)
        if value is not None and not isinstance(value, bool):
            raise self.fail(option, "must be True or False")
        return value

    def integer(self, option: str, least: int) -> int | None:
        """Return an integer that is at least `least`, or None."""
        value = self.get(option)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fail(option, f"must be an integer, {least} or more")
        return value

    def batching(self) -> tuple[bool, int | None]:
        """Return whether task runs may share a unit, and how many then do, or None."""
        batch, size = self.flag("batch") is not False, self.integer("batch_size", 1)
        if not batch and size is not None:
            raise self.fail(
                "batch_size",
                "batch=False has every task run alone; leave one of the two options out",
            )
        return batch, size

    def number(self, option: str, unit: str, *, above_zero: bool = False) -> float | None:
        """Return a finite number that is not negative, or None."""
        value = self.get(option)
        if value is None:
            return None
        if not is_number(value) or value < 0 or (above_zero and not value):
            least = "more than 0" if above_zero else "0 or more"
            raise self.fail(option, f"must be a number{unit}, {least}")
        return float(value)

    def function(self, option: str) -> Callable[..., Any] | None:
        """Return a function, or None."""
        value = self.get(option)
        if value is not None and not callable(value):
            raise self.fail(option, f"must be a function, not {type(value).__name__}")
        return value  # type: ignore[no-any-return]

    def run_name(self, option: str) -> str | Callable[[], str] | None:
        """Return a template or a function that returns a name, or None."""
        value = self.get(option)
        if value is not None and not (isinstance(value, str) and value) and not callable(value):
            raise self.fail(option, "must be a template such as 'parse {path}', or a function")
        return value  # type: ignore[no-any-return]

    def tags(self) -> tuple[str, ...]:
        """Return the tags, sorted."""
        value = self.get("tags")
        if value is None:
            return ()
        if isinstance(value, str):
            raise self.fail("tags", f"must be a set of strings: {{{value!r}}}")
        try:
            tags = set(value)
        except TypeError:
            raise self.fail("tags", "must be a set of strings") from None
        if not all(isinstance(tag, str) and tag for tag in tags):
            raise self.fail("tags", "must be strings that are not empty")
        return tuple(sorted(tags))

    def hooks(self) -> dict[str, tuple[Hook, ...]]:
        """Return the hooks by the state that calls them."""
        found: dict[str, tuple[Hook, ...]] = {}
        for option in _HOOKS:
            value = self.get(option)
            if value is None:
                continue
            if callable(value):
                raise self.fail(option, "must be a list of functions: put it in brackets")
            try:
                hooks = tuple(value)
            except TypeError:
                raise self.fail(option, "must be a list of functions") from None
            if not all(map(callable, hooks)):
                raise self.fail(option, "must be a list of functions")
            found[option] = hooks
        return found

    def delays(self, retries: int) -> tuple[float, ...]:
        """Return the delays before the retries (seconds)."""
        option = "retry_delay_seconds"
        value = self.get(option)
        if value is None:
            return ()
        if callable(value):
            try:
                value = value(retries)
            except Exception as error:
                raise self.fail(option, f"raised {type(error).__name__}: {error}") from error
        if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
            delays = list(value)
        else:
            delays = [value]
        if not all(is_number(delay) and delay >= 0 for delay in delays):
            raise self.fail(option, "must be seconds, 0 or more, a list of them, or a function")
        if len(delays) > MAX_DELAYS:
            raise self.fail(option, f"has {len(delays)} delays, more than {MAX_DELAYS}")
        return tuple(map(float, delays))

    def ray(self) -> dict[str, Any]:
        """Return the options that are handed on to Ray, `memory` in bytes."""
        ray = {name: self.get(name) for name in RAY_OPTIONS if self.get(name) is not None}
        for option in ("num_cpus", "num_gpus"):
            self.number(option, " of devices")
        if "memory" in ray:
            ray["memory"] = size = size_of(ray["memory"])
            if size is None:
                raise self.fail("memory", BYTES)
        self.integer("max_calls", 0)
        for option in ("resources", "label_selector", "runtime_env"):
            if option in ray and not isinstance(ray[option], Mapping):
                raise self.fail(option, f"must be a dict, not {type(ray[option]).__name__}")
        self._check_resources(ray.get("resources", {}))
        for key, label in ray.get("label_selector", {}).items():
            if not isinstance(key, str) or not isinstance(label, str):
                raise self.fail("label_selector", "must map labels to texts")
        if not isinstance(ray.get("fallback_strategy", []), list):
            raise self.fail("fallback_strategy", "must be a list of dicts")
        self.text("accelerator_type")
        strategy = ray.get("scheduling_strategy")
        if isinstance(strategy, str) and strategy not in {"DEFAULT", "SPREAD"}:
            raise self.fail("scheduling_strategy", "as a text it is 'DEFAULT' or 'SPREAD'")
        return ray

    def _check_resources(self, resources: Mapping[Any, Any]) -> None:
        for name, amount in resources.items():
            if not isinstance(name, str) or not is_number(amount) or amount < 0:
                raise self.fail("resources", "must map names to amounts, 0 or more")
            if name in {"CPU", "GPU"}:
                raise self.fail("resources", f"has {name!r}: use num_{name.lower()}s")


BYTES = "must be bytes, more than 0, as a number or such as '2GiB'"
"""What is said of what is no size."""


def size_of(value: object) -> int | None:
    """Return a size as users give it (`2e9`, `"2GiB"`) in bytes; None if it is none."""
    if isinstance(value, str):
        if not re.search(r"\d", value):
            return None
        from pydantic import ByteSize, TypeAdapter, ValidationError

        try:
            return int(TypeAdapter(ByteSize).validate_python(value)) or None
        except ValidationError:
            return None
    return int(value) if is_number(value) and value > 0 else None


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unknown(option: str, names: list[str]) -> str:
    if option in _INSTEAD and "num_cpus" in names:
        return f"{option} is Ray's, but raysched decides on it itself: {_INSTEAD[option]}"
    close = " or ".join(map(repr, get_close_matches(option, names, 2)))
    hint = f"did you mean {close}? " if close else ""
    return f"there is no option {option!r}; {hint}The options are {', '.join(names)}"
