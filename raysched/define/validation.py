"""Checking and coercing a flow's parameters, by pydantic from its annotations."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from raysched.define.signature import Signature
from raysched.errors import ParameterError


class Validator:
    """Checks the parameters of one flow.

    Args:
        what: For messages: `flow 'nightly'`.
        fn: The user's function.
        signature: Its parameters.
    """

    def __init__(self, what: str, fn: Callable[..., Any], signature: Signature) -> None:
        self._what = what
        self._fn = fn
        self._signature = signature

    def __call__(self, bound: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters, coerced to the annotations.

        Raises:
            ParameterError: They do not fit, or an annotation cannot be read.
        """
        from pydantic import ValidationError

        args, kwargs = self._signature.as_call(bound)
        try:
            coerced: dict[str, Any] = self._validated(*args, **kwargs)
        except ValidationError as error:
            problems = "; ".join(self._problem(problem) for problem in error.errors())
            raise ParameterError(f"{self._what}: {problems}") from None
        return coerced

    @functools.cached_property
    def _validated(self) -> Callable[..., dict[str, Any]]:
        from pydantic import ConfigDict, validate_call
        from pydantic.errors import PydanticUserError

        @functools.wraps(self._fn)
        def collect(*args: Any, **kwargs: Any) -> dict[str, Any]:
            return self._signature.bind(args, kwargs)

        # What the function returns is not to be checked, nor to be awaited.
        collect.__annotations__ = {
            name: hint for name, hint in collect.__annotations__.items() if name != "return"
        }
        try:
            return validate_call(config=ConfigDict(arbitrary_types_allowed=True))(collect)
        except (PydanticUserError, NameError) as error:
            raise ParameterError(
                f"{self._what}: an annotation cannot be checked: {error}. Import what it names at "
                "run time, or use @flow(validate_parameters=False)"
            ) from error

    def _problem(self, problem: Mapping[str, Any]) -> str:
        place, *inner = problem["loc"] or ("?",)
        name = self._signature.names[place] if isinstance(place, int) else place
        path = "".join(f"[{step!r}]" for step in inner)
        return f"parameter {name + path!r}: {problem['msg']}, got {problem['input']!r:.200}"
