"""What flows and tasks have in common: a function with options and hooks, perhaps a method."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, NoReturn, ParamSpec, Self, TypeVar

from raysched.define.checker import Checker
from raysched.define.signature import Signature
from raysched.errors import InvalidOption
from raysched.graph.payload import is_by_value
from raysched.model.options import FlowSpec, Hook, Hooks, TaskSpec

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=Hook)

_RESERVED = ("return_state", "wait_for")


class Decorated(Generic[P, R]):
    """A function with options.

    Args:
        fn: The function.
        options: The options as given.

    Attributes:
        fn: The function, without `staticmethod` or `classmethod` around it.

    Raises:
        InvalidOption: `fn` is no function.
    """

    word: ClassVar[str]
    """`flow` or `task`."""

    not_here: ClassVar[Mapping[str, str]]
    """Methods of Prefect's that there are not, with what to use instead."""

    fn: Callable[P, R]

    def __init__(self, fn: Any, options: Mapping[str, Any]) -> None:
        self._kind = type(fn) if isinstance(fn, staticmethod | classmethod) else None
        function = fn if self._kind is None else fn.__func__
        if not callable(function) or isinstance(function, Decorated | type):
            raise InvalidOption(f"@{self.word} needs a function, not {fn!r}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidOption(
                f"{self.word} {function.__name__!r} is a generator: return a list instead of "
                "yielding"
            )
        functools.update_wrapper(self, function)  # type: ignore[arg-type] # not called as P says
        self.fn = function
        self._options = dict(options)
        self._first: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def spec(self) -> TaskSpec | FlowSpec:
        """The function with its options, checked."""
        raise NotImplementedError

    def on_running(self, hook: H) -> H:
        """Have `hook(flow or task, run, state)` called when a run begins; a decorator."""
        return self._add("on_running", hook)

    def on_completion(self, hook: H) -> H:
        """Have `hook(flow or task, run, state)` called when a run completed; a decorator."""
        return self._add("on_completion", hook)

    def on_failure(self, hook: H) -> H:
        """Have `hook(flow or task, run, state)` called when a run failed; a decorator.

        After the last attempt, also for runs that timed out.
        """
        return self._add("on_failure", hook)

    def on_crashed(self, hook: H) -> H:
        """Have `hook(flow or task, run, state)` called when a run crashed; a decorator."""
        return self._add("on_crashed", hook)

    def on_cancellation(self, hook: H) -> H:
        """Have `hook(flow or task, run, state)` called when a run was cancelled; a decorator."""
        return self._add("on_cancellation", hook)

    def __getattr__(self, name: str) -> NoReturn:
        if name in self.not_here:
            raise AttributeError(f"{self.word}s have no .{name}: use {self.not_here[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> Any:
        # Those of the function.
        module, qualname = vars(self)["__module__"], vars(self)["__qualname__"]
        if not is_by_value(module) and "<" not in qualname and _found(module, qualname) is self:
            return qualname
        return _rebuild, (type(self), self._undecorated(), self._options, self._first)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _bound(self, instance: object, owner: type | None) -> Any:
        receiver = owner if self._kind is classmethod else instance
        if receiver is None or self._kind is staticmethod:
            return self
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__, _first=(receiver,))
        return bound

    def _changed(self, options: Mapping[str, Any]) -> Self:
        given = {name: value for name, value in options.items() if value is not None}
        options = {**self._options, **given}
        changed: Self = _rebuild(type(self), self._undecorated(), options, self._first)
        return changed

    def _undecorated(self) -> Any:
        kind: Any = self._kind
        return self.fn if kind is None else kind(self.fn)

    def _add(self, kind: str, hook: H) -> H:
        if not callable(hook):
            raise InvalidOption(f"{self.word} {self.name!r}: {kind} needs a function, not {hook!r}")
        hooks = self.spec.hooks
        added = (*getattr(hooks, kind), hook)
        self._options = {**self._options, kind: added}
        self._set_hooks(replace(hooks, **{kind: added}))
        return hook

    def _set_hooks(self, hooks: Hooks) -> None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a flow or task declares, partly checked.

    Attributes:
        name: Its name.
        what: For messages: `task 'parse'`.
        checker: Checks the options.
        signature: The function's parameters.
        run_name: Template or function for the names of runs, or None.
    """

    name: str
    what: str
    checker: Checker
    signature: Signature
    run_name: str | Callable[[], str] | None


def declare(
    decorated: Decorated[Any, Any], options: Mapping[str, Any], known: Iterable[str]
) -> Declaration:
    """Check what flows and tasks have in common.

    Args:
        decorated: The flow or task.
        options: Its options as given.
        known: The names of options that there are.

    Raises:
        InvalidOption: An option is unknown or impossible.
    """
    word, fn = decorated.word, decorated.fn
    own_name = getattr(fn, "__name__", type(fn).__name__)
    what = f"{word} {options.get('name') or own_name!r}"
    checker = Checker(what, options, known)
    signature = Signature(what, fn)
    for reserved in _RESERVED:
        if reserved in signature.names:
            raise InvalidOption(f"{what}: a parameter cannot be named {reserved!r}: rename it")
    run_name = checker.run_name(f"{word}_run_name")
    if isinstance(run_name, str):
        signature.check_template(f"{word}_run_name", run_name)
    return Declaration(checker.text("name") or own_name, what, checker, signature, run_name)


def _found(module: str, name: str) -> Any:
    try:
        return functools.reduce(getattr, name.split("."), sys.modules[module])
    except (AttributeError, KeyError):
        return None


def _rebuild(
    decorated: type[Decorated[Any, Any]],
    fn: Any,
    options: Mapping[str, Any],
    first: tuple[Any, ...],
) -> Any:
    rebuilt: Any = decorated(fn, **options)
    rebuilt._first = first  # noqa: SLF001 - its own class
    return rebuilt
