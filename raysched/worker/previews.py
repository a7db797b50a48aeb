"""Values as short text for people: never large, never slow because of their size, no secrets.

Python's `reprlib` bounds what it knows, and calls `repr` of all else; here arrays, tables, models
and whatever else tends to be large is told by its shape.
"""

import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import islice
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, SimpleNamespace
from typing import Any, TypeAlias
from uuid import UUID

from raysched.worker.causes import printable
from raysched.worker.masking import MASK, Masks

PREVIEW_MAX_CHARACTERS = 300
"""A preview is cut at this length."""

CONTENT_MAX_CHARACTERS = 240
"""So much of it is what a value contains; the rest is left for how much there is in all."""

DEPTH_MAX = 4
"""Containers, models and the like are looked into this deep, counting the value itself."""

MANY = 1000
"""Objects with a `__repr__` of their own and more elements than this are told by their number."""

SMALL_ARRAY = 10
"""Arrays with up to so many elements are shown."""

_LOOKED_AT = 2 * PREVIEW_MAX_CHARACTERS
"""Text is looked through for secrets beyond the cut (characters): one may begin before."""

_INT_MAX_BITS = 256
_COLUMNS_MAX = 20

_ARRAY_LIBRARIES = frozenset(
    {"cupy", "dask", "jax", "jaxlib", "numpy", "pandas", "polars", "pyarrow", "scipy", "tensorflow"}
    | {"torch", "xarray"}
)
"""Libraries whose values are told by shape: `repr` of theirs may take a second, or compute."""

_QUICK = (
    *(date, time, timedelta, tzinfo, Decimal, Fraction, UUID, PurePath, range, slice, complex),
    *(FunctionType, BuiltinFunctionType),
)
"""Types of the standard library whose `repr` is short, and calls no code of others."""

_BRACKETS: tuple[tuple[type, str, str], ...] = (
    (list, "[", "]"),
    (tuple, "(", ")"),
    (set, "{", "}"),
    (frozenset, "{", "}"),
    (deque, "[", "]"),
)

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

_Attributes: TypeAlias = Iterable[tuple[str, Any]]


class Previews:
    """Makes previews.

    Args:
        masks: What is a secret.
        only_quick: Whether to call no code but the standard library's: for another thread than the
            value's own.
    """

    def __init__(self, masks: Masks, *, only_quick: bool = False) -> None:
        self._masks = masks
        self._only_quick = only_quick
        self._left = 0

    def of(self, value: object, name: str = "") -> str:
        """Return the preview of a value; never raises.

        Args:
            value: The value.
            name: What it is called; a value that is called like a secret is not shown.
        """
        self._left = CONTENT_MAX_CHARACTERS
        try:
            text = MASK if self._is_secret(name, value) else self._text(value, DEPTH_MAX)
        except Exception as broken:  # noqa: BLE001 - a user's class may raise anything anywhere
            text = f"<{_name(value)}: {type(broken).__name__} while it was looked at>"
        return printable(_cut(text, PREVIEW_MAX_CHARACTERS))

    def _text(self, value: Any, depth: int) -> str:
        for show in (self._plain, self._string, self._array, self._container, self._object):
            text = show(value, depth)
            if text is not None:
                break
        else:
            text = self._repr(value)
        return text

    def _leaf(self, text: str) -> str:
        text = _cut(text, max(self._left, 20))
        self._left -= len(text)
        return text

    def _plain(self, value: Any, depth: int) -> str | None:
        del depth
        kind = type(value)
        if value is None or kind in (bool, float):
            return self._leaf(repr(value))
        if kind is int:
            bits = value.bit_length()
            return self._leaf(repr(value) if bits <= _INT_MAX_BITS else f"<int of {bits} bits>")
        if isinstance(value, Enum):
            return self._leaf(f"{_name(value)}.{value._name_}")
        return self._leaf(f"<class '{_full_name(value)}'>") if isinstance(value, type) else None

    def _string(self, value: Any, depth: int) -> str | None:
        del depth
        kind = type(value)
        if kind is str:
            start, prefix, unit = value[:_LOOKED_AT], "", "characters"
        elif kind in (bytes, bytearray):
            start, prefix, unit = bytes(value[:_LOOKED_AT]).decode("latin-1"), "b", "bytes"
        else:
            return None
        text = self._leaf(f"{prefix}{self._masks.text(start)!r}")
        return f"{text} ({len(value):,} {unit})" if text.endswith("…") else text

    def _array(self, value: Any, depth: int) -> str | None:
        del depth
        if not any(each.__module__.partition(".")[0] in _ARRAY_LIBRARIES for each in _mro(value)):
            return None
        shape = _shape(value)
        if shape is None:
            return None if isinstance(value, _QUICK) else self._leaf(f"<{_name(value)}>")
        if shape == ():
            return self._leaf(_one_line(repr(value)))
        dtype = getattr(value, "dtype", None)
        if (
            not self._only_quick
            and getattr(value, "size", MANY) <= SMALL_ARRAY
            and str(dtype) not in ("None", "object")
        ):
            return self._leaf(self._masks.text(f"{_name(value)}({value.tolist()}, dtype={dtype})"))
        told = [f"shape={shape}"]
        if dtype is not None:
            told.append(f"dtype={dtype}")
        columns = getattr(value, "column_names", getattr(value, "columns", None))
        if columns is not None:
            told.append(f"columns={list(map(str, islice(columns, _COLUMNS_MAX)))}")
        return self._leaf(f"{_name(value)}({', '.join(told)})")

    def _container(self, value: Any, depth: int) -> str | None:
        if isinstance(value, dict):
            pairs = dict.items(value)
            text = self._row("{", "}", (self._pair(*pair, depth) for pair in pairs), value, depth)
            return text if type(value) is dict else f"{_name(value)}({text})"
        for base, opening, closing in _BRACKETS:
            if isinstance(value, base) and not hasattr(value, "_fields"):
                elements: Iterator[Any] = base.__iter__(value)  # type: ignore[attr-defined]
                texts = (self._text(element, depth - 1) for element in elements)
                text = self._row(opening, closing, texts, value, depth)
                return text if type(value) in (list, tuple, set) else f"{_name(value)}({text})"
        return None

    def _object(self, value: Any, depth: int) -> str | None:
        if _is_pydantic(value, "SecretStr", "SecretBytes", "Secret"):
            return self._leaf(f"{_name(value)}('{MASK}')")
        attributes = _attributes(value)
        if attributes is None:
            return None
        texts = (
            f"{name}{'=' if name else ''}"
            f"{MASK if self._is_secret(name, each) else self._text(each, depth - 1)}"
            for name, each in attributes
        )
        return self._row(f"{_name(value)}(", ")", texts, None, depth)

    def _row(self, opening: str, closing: str, texts: Iterator[str], sized: Any, depth: int) -> str:
        size = None if sized is None else type(sized).__len__(sized)
        if depth <= 0:
            return f"{opening}…{closing}" if size != 0 else f"{opening}{closing}"
        self._left -= len(opening) + len(closing)
        parts: list[str] = []
        for text in texts:
            parts.append(text)
            self._left -= 2
            if self._left <= 0:
                break
        if size is not None and len(parts) < size:
            parts.append(f"… {size:,} in all")
        elif next(texts, None) is not None:
            parts.append("…")
        comma = "," if opening == "(" and size == 1 else ""
        return f"{opening}{', '.join(parts)}{comma}{closing}"

    def _pair(self, key: Any, value: Any, depth: int) -> str:
        shown = self._text(key, depth - 1)
        self._left -= 2
        if isinstance(key, str) and self._is_secret(key, value):
            return f"{shown}: {MASK}"
        return f"{shown}: {self._text(value, depth - 1)}"

    def _repr(self, value: Any) -> str:
        kind = type(value)
        is_quick = isinstance(value, _QUICK) and kind.__module__ in sys.stdlib_module_names
        if not is_quick:
            if self._only_quick or "__repr__" not in _written(kind):
                return self._leaf(f"<{_full_name(type(value))} object>")
            if hasattr(kind, "__len__") and (size := len(value)) > MANY:
                return self._leaf(f"<{_name(value)} of {size:,}>")
        text = _ADDRESS.sub("", repr(value)[:_LOOKED_AT])
        return self._leaf(self._masks.text(_one_line(text)))

    def _is_secret(self, name: str, value: object) -> bool:
        """Whether not to show what has this name; that there is nothing is no secret."""
        kind = type(value)
        if value is None or kind is bool or (kind in (str, bytes) and not value):
            return False
        return self._masks.hides(name)


def type_of(value: object) -> str:
    """Return the name of a value's class, with its module unless that is `builtins`."""
    return printable(_full_name(type(value)))


def _attributes(value: Any) -> _Attributes | None:
    """Return the names and values of what a value consists of, where its class tells that."""
    names = _declared(value)
    if names is not None:
        return _read(value, names)
    kind: Any = type(value)
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return zip(kind._fields, tuple.__iter__(value), strict=False)
    if kind is SimpleNamespace:
        return list(vars(value).items())
    if isinstance(value, BaseException) and "__repr__" not in _written(kind):
        return [("", each) for each in value.args]
    return None


def _declared(value: Any) -> Iterable[str] | None:
    """Return the names of the attributes that belong to the `repr` which a class has been given."""
    kind = type(value)
    if is_dataclass(kind) and kind.__dataclass_params__.repr:  # type: ignore[attr-defined]
        return [each.name for each in fields(kind) if each.repr]
    if hasattr(kind, "__attrs_attrs__"):
        return [each.name for each in kind.__attrs_attrs__ if each.repr]
    if _is_pydantic(value, "BaseModel"):
        return [name for name, each in kind.__pydantic_fields__.items() if each.repr]
    return None


def _written(kind: type) -> set[str]:
    """Return the names in the bodies of a class and its bases, Python's own ones left out."""
    return {name for each in kind.__mro__ if each.__module__ != "builtins" for name in vars(each)}


def _shape(value: Any) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", None)
    if shape is None:
        return None
    lengths = tuple(shape)
    # Of what is computed later, they may be no numbers yet.
    return lengths if all(isinstance(length, int) for length in lengths) else None


def _read(value: object, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    read: Callable[[object, str], Any] = object.__getattribute__
    for name in names:
        try:
            yield name, read(value, name)
        except AttributeError:  # not set yet
            continue


def _is_pydantic(value: object, *names: str) -> bool:
    # Where nobody has imported it there is nothing of it.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, tuple(getattr(pydantic, n) for n in names))


def _mro(value: object) -> tuple[type, ...]:
    return type(value).__mro__


def _name(value: object) -> str:
    return type(value).__qualname__


def _full_name(kind: type) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
