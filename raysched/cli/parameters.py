"""Parameters of a flow from the command line."""

import inspect
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from raysched.errors import ParameterError


def read_parameters(
    fn: Callable[..., Any], pairs: Sequence[str], document: str | None
) -> dict[str, Any]:
    """Return the parameters of `fn` given by `--param` and `--params-json`.

    A value is read as JSON if it is some, otherwise as text. Where the annotation has room for the
    text only (`str`, dates, …), it stays text: `--param name=007`.

    Args:
        fn: The flow's function; its annotations are looked at.
        pairs: What `--param` was given, `name=value` each.
        document: What `--params-json` was given: a JSON object, `@file` with one, or `@-` for
            standard input. Values of `pairs` go over it.

    Raises:
        ParameterError: A pair has no `=`, a name comes twice, or the document is no JSON object.
    """
    parameters = {} if document is None else _read_document(document)
    given: set[str] = set()
    hints = _hints(fn)
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not (name and sign):
            raise ParameterError(f"--param {pair}: give it as name=value")
        if name in given:
            raise ParameterError(f"--param {name} is given twice")
        given.add(name)
        parameters[name] = _value(text, hints.get(name, Any))
    return parameters


def describe_parameters(fn: Callable[..., Any], name: str) -> str:
    """Return the flow's signature for people: `nightly(day: date, *, limit: int = 3) -> Report`."""
    return f"{name}{inspect.signature(fn)}"


def _read_document(document: str) -> dict[str, Any]:
    text = document
    if document.startswith("@"):
        place = document[1:]
        try:
            text = Path("/dev/stdin" if place == "-" else place).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(f"--params-json {document}: {error}") from error
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ParameterError(f"--params-json is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ParameterError('--params-json must be a JSON object: {"name": value, …}')
    return value


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations that can be evaluated, by parameter."""
    fn = inspect.unwrap(fn)
    hints: dict[str, Any] = {}
    for name, annotation in inspect.get_annotations(fn).items():
        one = SimpleNamespace(__annotations__={name: annotation})
        # Text may evaluate to anything, or import what is not there.
        with suppress(Exception):
            hints |= get_type_hints(one, globalns=fn.__globals__, include_extras=True)
    return hints


def _value(text: str, hint: Any) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    if isinstance(value, str):
        return value
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except PydanticUserError:
        return value
    # Neither fits: the flow says so, about the value as it was meant.
    return text if not _fits(adapter, value) and _fits(adapter, text) else value


def _fits(adapter: TypeAdapter[Any], value: object) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True
