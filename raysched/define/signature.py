"""Binding of arguments to a function's parameters, quickly where the signature is plain."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from string import Formatter
from typing import Any

from raysched.errors import InvalidOption, ParameterError

_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_BY_NAME = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


class Signature:
    """The parameters of a flow or task.

    Args:
        what: For messages: `task 'parse'`.
        fn: The user's function.

    Attributes:
        defaults: Default values by parameter name.
        by_name: Whether every parameter can be given by its name: none is positional-only and
            there is no `*args`.
        var_keyword: Name of the `**kwargs` parameter, or None.
        var_positional: Name of the `*args` parameter, or None.
    """

    def __init__(self, what: str, fn: Callable[..., Any]) -> None:
        self._what = what
        try:
            self._signature = inspect.signature(fn)
        except (TypeError, ValueError):  # some builtins tell nothing about themselves
            self._signature = inspect.signature(lambda *args, **kwargs: None)  # noqa: ARG005
        parameters = self._signature.parameters.values()
        self.names = tuple(parameter.name for parameter in parameters)
        self.defaults: Mapping[str, Any] = {
            parameter.name: _default(parameter.default)
            for parameter in parameters
            if parameter.default is not parameter.empty
        }
        kinds = {parameter.kind: parameter.name for parameter in parameters}
        self.var_keyword = kinds.get(inspect.Parameter.VAR_KEYWORD)
        self.var_positional = kinds.get(inspect.Parameter.VAR_POSITIONAL)
        self.by_name = (
            self.var_positional is None and inspect.Parameter.POSITIONAL_ONLY not in kinds
        )
        self._plain = all(parameter.kind in _BY_NAME for parameter in parameters)
        self._positional = tuple(
            parameter.name
            for parameter in parameters
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        self._required = {
            name
            for name, parameter in self._signature.parameters.items()
            if parameter.default is parameter.empty and parameter.kind in _BY_NAME
        }

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by parameter name, in the order of the signature, as given.

        Raises:
            ParameterError: They do not fit the signature.
        """
        if self._plain and len(args) <= len(self._positional):
            bound = dict(zip(self._positional, args, strict=False))
            if not kwargs:
                if self._required <= bound.keys():
                    return bound
            elif (
                not args
                and kwargs.keys() <= self._signature.parameters.keys()
                and self._required <= kwargs.keys()
            ):
                return {name: kwargs[name] for name in self.names if name in kwargs}
        try:
            return dict(self._signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise ParameterError(
                f"{self._what}: {error}{self._hint(kwargs)}; its parameters are {self._signature}"
            ) from None

    def complete(self, bound: Mapping[str, Any]) -> dict[str, Any]:
        """Return `bound` with the defaults of what is missing, in the order of the signature."""
        if not self.defaults:
            return dict(bound)
        both = {**self.defaults, **bound}
        return {name: both[name] for name in self.names if name in both}

    def as_call(self, bound: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments that bind to `bound`."""
        arguments = inspect.BoundArguments(self._signature, dict(bound))
        return arguments.args, arguments.kwargs

    def check_template(self, option: str, template: str) -> None:
        """Check the fields of a run name template.

        Raises:
            InvalidOption: It is no template, or names what is no parameter.
        """
        try:
            fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
        except ValueError as error:
            raise InvalidOption(
                f"{self._what}: {option}={template!r} is no template: {error}"
            ) from None
        for field in fields:
            name = field.replace("[", ".").partition(".")[0]
            if name not in self._signature.parameters and self.var_keyword is None:
                raise InvalidOption(
                    f"{self._what}: {option}={template!r} names {name!r}, which is no parameter: "
                    f"use one of {', '.join(self.names) or 'none, as there are none'}"
                )

    def unlike(self, other: "Signature") -> str:
        """Return why a call that fits `other` might not fit this; "" if all of them do."""
        takes_all = self.var_positional is not None and self.var_keyword is not None
        if self._required <= set(other.names) and (takes_all or self._follows(other)):
            return ""
        return f"takes {self} where the task takes {other}"

    def __str__(self) -> str:
        return str(self._signature)

    def _follows(self, other: "Signature") -> bool:
        mine, theirs = self._kinds(), other._kinds()  # noqa: SLF001 - its own class
        by_position = [name for name, kind in theirs.items() if kind is not _KEYWORD_ONLY]
        return (
            list(mine)[: len(by_position)] == by_position
            and all(mine.get(name) is kind for name, kind in theirs.items())
            and all(_is_default(self, name, value) for name, value in other.defaults.items())
            and (other.var_positional is None or self.var_positional is not None)
            and (other.var_keyword is None or self.var_keyword is not None)
        )

    def _kinds(self) -> dict[str, Any]:
        """Return how each parameter can be given, without `*args` and `**kwargs`."""
        return {
            name: parameter.kind
            for name, parameter in self._signature.parameters.items()
            if name not in {self.var_positional, self.var_keyword}
        }

    def _hint(self, kwargs: Mapping[str, Any]) -> str:
        unknown = [name for name in kwargs if name not in self._signature.parameters]
        close = get_close_matches(unknown[0], self.names, 1) if unknown else []
        return f" (did you mean {close[0]!r}?)" if close else ""


def _is_default(signature: Signature, name: str, value: Any) -> bool:
    own = signature.defaults.get(name, signature)
    try:
        return own is value or bool(own == value)
    except Exception:  # noqa: BLE001 - arrays and the like do not compare to one truth
        return False


def _default(default: Any) -> Any:
    # pydantic's `x: int = Field(default=3)`; without importing pydantic to look.
    is_field = type(default).__name__ == "FieldInfo" and type(default).__module__.startswith(
        "pydantic."
    )
    return default.get_default(call_default_factory=True) if is_field else default
