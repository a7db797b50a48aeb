"""The options of `@task` and `@flow`: their names, types and checks."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypedDict

from raysched.define.task_runners import RayTaskRunner, ThreadPoolTaskRunner
from raysched.errors import InvalidOption
from raysched.model.options import Hook

MAX_DELAYS = 50
"""As in Prefect: more configured delays are a mistake."""


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
    crash_retries: int | None
    timeout_seconds: float | None
    max_concurrency: int | None
    max_parallel: int | None
    batch: bool | None
    batch_size: int | None
    log_prints: bool | None
    persist_result: bool | None
    on_running: Iterable[Hook] | None
    on_completion: Iterable[Hook] | None
    on_failure: Iterable[Hook] | None
    on_crashed: Iterable[Hook] | None
    on_cancellation: Iterable[Hook] | None

    num_cpus: float | None
    num_gpus: float | None
    memory: float | str | None
    resources: Mapping[str, float] | None
    accelerator_type: str | None
    label_selector: Mapping[str, str] | None
    fallback_strategy: list[dict[str, Any]] | None
    scheduling_strategy: Any
    runtime_env: Mapping[str, Any] | None
    max_calls: int | None


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

_INSTEAD = {
    "num_returns": "return a tuple, and pick its elements in another task",
    "max_retries": "use crash_retries, which counts the same crashes",
    "retry_exceptions": "use retries, with retry_condition_fn to choose",
    "enable_task_events": "every state is kept in the database already",
}
"""Ray's task options that raysched decides on itself, with what to use instead."""

_HOOKS = ("on_running", "on_completion", "on_failure", "on_crashed", "on_cancellation")


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
        self._what = what
        self._options = options
        names = sorted(known)
        for option in options:
            if option not in names:
                raise InvalidOption(f"{what}: {_unknown(option, names)}")

    def fail(self, option: str, problem: str) -> InvalidOption:
        """Return the error for an option."""
        return InvalidOption(f"{self._what}: {option}={self._options[option]!r}: {problem}")

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
        if not _is_number(value) or value < 0 or (above_zero and not value):
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
        if not all(_is_number(delay) and delay >= 0 for delay in delays):
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
            ray["memory"] = self._bytes("memory")
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
            if not isinstance(name, str) or not _is_number(amount) or amount < 0:
                raise self.fail("resources", "must map names to amounts, 0 or more")
            if name in {"CPU", "GPU"}:
                raise self.fail("resources", f"has {name!r}: use num_{name.lower()}s")

    def _bytes(self, option: str) -> int:
        value = self.get(option)
        if isinstance(value, str) and re.search(r"\d", value):
            from pydantic import ByteSize, TypeAdapter, ValidationError

            try:
                return int(TypeAdapter(ByteSize).validate_python(value))
            except ValidationError:
                pass
        elif _is_number(value) and value > 0:
            return int(value)
        raise self.fail(option, "must be bytes, more than 0, as a number or such as '2GiB'")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unknown(option: str, names: list[str]) -> str:
    if option in _INSTEAD and "num_cpus" in names:
        return f"{option} is Ray's, but raysched decides on it itself: {_INSTEAD[option]}"
    close = get_close_matches(option, names, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"there is no option {option!r}; {hint}The options are {', '.join(names)}"
