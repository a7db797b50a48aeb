"""HTML and SVG from Python, in which no text can be taken for markup by mistake."""

from html import escape
from typing import TypeAlias


class Markup(str):
    """Text that is markup already; every other text is escaped where it is put into an element."""

    __slots__ = ()


Content: TypeAlias = str | None
"""Text, `Markup`, or None for nothing."""

VOID = frozenset({"br", "hr", "meta", "path", "rect"})
"""Elements that are written without content."""


def element(name: str, /, *content: Content, **attributes: str | float | None) -> Markup:
    """Return an element.

    Args:
        name: Its name.
        content: What is in it, in order.
        attributes: Its attributes: `class_` is `class`, `stroke_width` is `stroke-width`; those
            that are None are left out, and "" is written as a name alone.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + (f'="{escape(str(value))}"' if value != "" else "")
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*content)}</{name}>")


def join(*content: Content) -> Markup:
    """Return texts and markup one after the other."""
    return Markup(
        "".join(
            each if isinstance(each, Markup) else escape(_clean(each)) for each in content if each
        )
    )


def _clean(text: str) -> str:
    """Return text without characters that HTML and XML have no way to write."""
    return "".join(
        each if each in "\n\t" or (each >= " " and not "\x7f" <= each <= "\x9f") else "�"
        for each in text
    )
