"""A flow around what is under test."""

from collections.abc import Callable
from typing import Any

from raysched import flow


def in_flow(body: Callable[..., Any], *args: Any) -> Any:
    """Call `body` as the code of a flow; return what the flow returns."""
    return flow(lambda: body(*args), name="around")()


def caught(call: Callable[..., Any], *args: Any) -> str:
    """Return the exception that a call raises, as text."""
    try:
        call(*args)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def ignore(_: object) -> None:
    """Do nothing with it."""
