"""Cache policies, in Prefect's words: which task runs may share a result."""

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from raysched.define.checker import Checker
from raysched.define.signature import Signature
from raysched.errors import InvalidOption
from raysched.model.caching import CacheOptions, CachePart

_log = logging.getLogger(__name__)

_MICROSECOND_NS = 1000


@dataclass(frozen=True, slots=True, repr=False)
class CachePolicy:
    """What the key of a cached result is made of. Policies are added, and arguments subtracted.

    ```python
    @task(cache_policy=INPUTS - "verbose" + TASK_SOURCE)
    def total(table: Table, verbose: bool = False) -> float: ...
    ```

    Attributes:
        parts: What the key is made of; empty for `NO_CACHE`.
        without: Names of arguments that do not count among `INPUTS`.
        without_files: Names of arguments whose paths do not count among `FILES`.
    """

    parts: frozenset[CachePart] = frozenset()
    without: frozenset[str] = frozenset()
    without_files: frozenset[str] = frozenset()

    def __add__(self, other: "CachePolicy") -> "CachePolicy":
        if not isinstance(other, CachePolicy):
            return NotImplemented
        return CachePolicy(
            self.parts | other.parts,
            self.without | other.without,
            self.without_files | other.without_files,
        )

    def __sub__(self, argument: str) -> "CachePolicy":
        """Return a policy for which an argument does not count.

        Raises:
            InvalidOption: It is no name.
        """
        if not _is_name(argument):
            raise InvalidOption(
                f"{self!r} - {argument!r}: subtract the name of one argument, as a text: "
                'INPUTS - "verbose"'
            )
        name = frozenset({argument})
        return CachePolicy(
            self.parts,
            self.without | name if CachePart.INPUTS in self.parts else self.without,
            self.without_files | name if CachePart.FILES in self.parts else self.without_files,
        )

    def __repr__(self) -> str:
        without = {CachePart.INPUTS: self.without, CachePart.FILES: self.without_files}
        named = [
            " - ".join([part.name, *map(repr, sorted(without.get(part, ())))])
            for part in CachePart
            if part in self.parts
        ]
        return " + ".join(named) or "NO_CACHE"


def _is_name(argument: object) -> bool:
    return isinstance(argument, str) and argument.isidentifier()


def _of(*parts: CachePart) -> CachePolicy:
    return CachePolicy(frozenset(parts))


INPUTS = _of(CachePart.INPUTS)
"""The arguments: results of other tasks count by their content, as all arguments do."""

TASK_SOURCE = _of(CachePart.TASK_SOURCE)
"""The task's code, with the functions, classes and constants of yours that it uses."""

FLOW_PARAMETERS = _of(CachePart.FLOW_PARAMETERS)
"""The parameters of the flow run."""

RUN_ID = _of(CachePart.RUN_ID)
"""The flow run: results are shared within it only."""

FILES = _of(CachePart.FILES)
"""The content of files and directories that arguments name as `pathlib.Path`."""

DEFAULT = INPUTS + TASK_SOURCE + RUN_ID
"""What `persist_result=True` means where no policy is given."""

NO_CACHE = CachePolicy()
"""Nothing is shared; added to another policy it changes nothing."""

NONE = NO_CACHE
"""Prefect's other name of `NO_CACHE`."""


def cache(checker: Checker, signature: Signature) -> tuple[CacheOptions | None, bool]:
    """Return how results are cached, and whether that was asked for.

    Where it was not, a flow may yet ask for it, by `persist_result=True`.

    Args:
        checker: The options.
        signature: The task's parameters.

    Raises:
        InvalidOption: An option is impossible, or two exclude each other.
    """
    policy, key_fn = _policy(checker, signature), _key_fn(checker)
    lifetime = _lifetime(checker)
    refresh, persist = checker.flag("refresh_cache"), checker.flag("persist_result")
    chosen = "cache_key_fn" if key_fn is not None else "cache_policy"
    wanted = key_fn is not None or bool(policy is not None and policy.parts)
    if wanted and persist is False:
        raise checker.fail(
            chosen, "a result that is not kept cannot be cached: leave out persist_result=False"
        )
    keeps_up = next((each for each in ("setup", "teardown") if checker.flag(each)), None)
    if wanted and keeps_up:
        raise checker.fail(
            chosen, f"a {keeps_up} task is run for its effect, not its result: it is never cached"
        )
    if key_fn is not None:
        if policy is not None and policy.parts:
            _log.warning(
                "%s: both cache_policy and cache_key_fn are given: cache_key_fn is used",
                checker.what,
            )
        return CacheOptions(key_fn=key_fn, lifetime=lifetime, refresh=refresh), True
    if keeps_up or (policy is not None and not policy.parts):
        return None, False
    chosen_policy = DEFAULT if policy is None else policy
    options = CacheOptions(
        chosen_policy.parts,
        chosen_policy.without,
        chosen_policy.without_files,
        lifetime=lifetime,
        refresh=refresh,
    )
    return options, wanted or persist is True


def _policy(checker: Checker, signature: Signature) -> CachePolicy | None:
    policy = checker.get("cache_policy")
    if policy is None:
        return None
    if not isinstance(policy, CachePolicy):
        raise checker.fail(
            "cache_policy", "must be a policy, such as INPUTS + TASK_SOURCE, or NO_CACHE"
        )
    for name in sorted(policy.without | policy.without_files):
        if name in signature.names or signature.var_keyword is not None:
            continue
        close = get_close_matches(name, signature.names, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise checker.fail(
            "cache_policy",
            f"{name!r} is no parameter{hint}: its parameters are "
            f"{', '.join(signature.names) or 'none'}",
        )
    return policy


def _key_fn(checker: Checker) -> Callable[..., Any] | None:
    function = checker.function("cache_key_fn")
    if function is None:
        return None
    if inspect.iscoroutinefunction(function):
        raise checker.fail("cache_key_fn", "must be a plain function, not async def")
    try:
        own = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins tell nothing about themselves
        return function
    try:
        own.bind(None, {})
    except TypeError:
        raise checker.fail(
            "cache_key_fn", f"is called as (context, parameters), but takes {own}"
        ) from None
    return function


def _lifetime(checker: Checker) -> int:
    """Return how long a result may be used (ns), 0 for ever."""
    expiration = checker.get("cache_expiration")
    if expiration is None:
        return 0
    if not isinstance(expiration, timedelta) or expiration <= timedelta():
        raise checker.fail(
            "cache_expiration", "must be a timedelta, more than 0: timedelta(hours=12)"
        )
    return expiration // timedelta(microseconds=1) * _MICROSECOND_NS
