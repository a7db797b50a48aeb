"""Digests of code: of a task's function, with everything of the user's own that it refers to.

What counts is what runs: the bytecode, whatever has become of the file since. So line numbers,
comments, docstrings, formatting and names of local variables do not enter; nor do the options of
decorators such as `@task`, and annotations enter only where they make a class what it is. What is
in a library counts by its name and the library's version. Another minor version of Python compiles
otherwise, and so changes all digests.
"""

import dis
import functools
import inspect
import re
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import EnumMeta
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from raysched.define import modules
from raysched.define.decorated import Decorated
from raysched.define.lookups import Captured, Lookup
from raysched.define.own_code import home_of, is_own
from raysched.graph.digest import digest

DIGEST_BYTES = 8

MOST_OF_A_LIBRARY = 100
"""Things that are looked at of a library that a task's function is in. Around one of an installed
project of the user's own there are hardly more; `task(pandas.read_csv)` leads through all of
pandas, and counts by its name and the library's version."""

MOST_ELEMENTS = 1000
"""Larger containers count as values only: functions in them by their names."""

Description: TypeAlias = Any
"""Nested tuples of str, bytes, int and None: their repr is one for equal code."""

_SILENT = frozenset({"RESUME", "NOP", "CACHE", "EXTENDED_ARG", "PRECALL", "MAKE_CELL"})
"""Instructions that do nothing themselves."""

_UNNAMED = frozenset(dis.haslocal) | frozenset(dis.hasfree)
"""Operations on variables of the function, which count by their positions."""

_GLOBALS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})

_BESIDE_THE_POINT = frozenset({"__doc__", "__firstlineno__", "__static_attributes__"})
"""What bodies of modules and classes define that is no part of what they do."""

_SHAPE = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


_Known: TypeAlias = tuple[str, list[Lookup | Captured]]

_remembered: WeakKeyDictionary[Callable[..., Any], _Known] = WeakKeyDictionary()


def source_digest(function: Callable[..., Any]) -> str:
    """Return the digest of a function's code (16 hexadecimal digits).

    It is remembered for as long as all names that were looked up stand for the same objects; what
    changes inside these, as a list that is appended to, is not noticed.

    Args:
        function: The user's function, without `@task`.
    """
    # What is no function may neither be hashable nor be referred to weakly.
    is_plain = isinstance(function, types.FunctionType)
    known = _remembered.get(function) if is_plain else None
    if known is not None and all(lookup.holds() for lookup in known[1]):
        return known[0]
    walk = _Walk(home_of(function))
    try:
        described = walk.all_of(function)
    except _TooLarge:
        walk = _Walk("")
        described = walk.all_of(function)
    text = repr(described).encode("utf-8", "surrogatepass")
    found = blake2b(text, digest_size=DIGEST_BYTES, person=b"source").hexdigest()
    # One that has captured itself would never be forgotten.
    if is_plain and not any(
        isinstance(lookup, Captured) and lookup.value is function for lookup in walk.lookups
    ):
        _remembered[function] = found, walk.lookups
    return found


class _TooLarge(Exception):
    """A task's function is in a library that leads too far."""


class _Walk:
    """Describes what is reached from a function, each thing once, in the order of being reached.

    Args:
        home: The library that the function is in, "" if it is in none: it is its user's own.
    """

    def __init__(self, home: str) -> None:
        self._home = home
        self._numbers: dict[Any, int] = {}
        self._reached: deque[Any] = deque()
        self._alive: list[Any] = []
        self._entered: set[int] = set()
        self.lookups: list[Lookup | Captured] = []

    def all_of(self, function: Callable[..., Any]) -> list[Description]:
        """Return the descriptions of everything that is reached.

        Raises:
            _TooLarge: That is more than is looked at of a library.
        """
        described = [self._value(function)]
        owner = _class_around(function)
        if owner is not None:
            described.append(self._value(owner))
        while self._reached:
            if self._home and len(described) > MOST_OF_A_LIBRARY:
                raise _TooLarge
            thing = self._reached.popleft()
            if isinstance(thing, Path):
                described.append(self._file(thing))
            elif isinstance(thing, type):
                described.append(self._class(thing))
            else:
                described.append(self._function(thing))
        return described

    def _number(self, thing: Any) -> Description:
        """Return what stands for a thing that is described on its own."""
        key = thing if isinstance(thing, Path) else id(thing)
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            self._reached.append(thing)
            # Ids are given again.
            self._alive.append(thing)
        return "see", self._numbers[key]

    def _value(self, value: Any) -> Description:  # noqa: PLR0911 - one for each kind of value
        if isinstance(value, Decorated):
            return self._value(value.fn)
        if isinstance(value, types.FunctionType):
            if is_own(value.__code__.co_filename, self._home):
                return self._number(value)
            return (*_by_name(value), *self._wrapped(value))
        if isinstance(value, type):
            return self._number(value) if self._is_own(value.__module__) else _by_name(value)
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, types.BuiltinFunctionType):
            return _by_name(value)
        return self._around(value) or self._data(value)

    def _around(self, value: Any) -> Description:
        """Describe what has a function in it, as Python's own kinds of callables; else None."""
        if isinstance(value, types.MethodType):
            return "method", self._value(value.__func__), self._value(value.__self__)
        if isinstance(value, functools.partial):
            return "partial", *map(self._value, (value.func, value.args, value.keywords))
        if isinstance(value, staticmethod | classmethod):
            return type(value).__name__, self._value(value.__func__)
        if isinstance(value, property):
            return "property", *map(self._value, (value.fget, value.fset, value.fdel))
        if isinstance(value, functools.cached_property):
            return "cached", self._value(value.func)
        return None

    def _data(self, value: Any) -> Description:
        kind = type(value)
        if kind in {list, tuple, dict} and len(value) <= MOST_ELEMENTS:
            return self._container(value)
        own = self._number(kind) if self._is_own(kind.__module__) else _by_name(kind)
        wrapped = self._wrapped(value)
        return (own, *wrapped) if wrapped else (own, _digest(value))

    def _container(self, value: Any) -> Description:
        if id(value) in self._entered:
            return "cycle"
        self._entered.add(id(value))
        try:
            if not isinstance(value, dict):
                return type(value).__name__, *map(self._value, value)
            items = [(_digest(key), self._value(element)) for key, element in value.items()]
            return "dict", *sorted(items, key=repr)
        finally:
            self._entered.remove(id(value))

    def _wrapped(self, value: Any) -> tuple[Description, ...]:
        """Return what is inside of what a decorator has made, such as one of `functools.cache`."""
        try:
            wrapped = vars(value).get("__wrapped__")
        except TypeError:
            return ()
        return () if wrapped is None else (self._value(wrapped),)

    def _function(self, function: types.FunctionType) -> Description:
        return (
            "function",
            self._code(function.__code__, function.__globals__),
            self._value(function.__defaults__),
            self._value(function.__kwdefaults__),
            tuple(map(self._cell, function.__closure__ or ())),
            self._wrapped(function),
        )

    def _cell(self, cell: types.CellType) -> Description:
        try:
            value = cell.cell_contents
        except ValueError:  # it is empty
            return None
        self.lookups.append(Captured(cell, value))
        return self._value(value)

    def _class(self, kind: type) -> Description:
        members = {name: value for name, value in vars(kind).items() if _is_member(name, value)}
        if isinstance(kind, EnumMeta):
            every: Mapping[str, Any] = kind.__members__
            found = [(name, self._value(member.value)) for name, member in every.items()]
            members = {
                name: value
                for name, value in members.items()
                if isinstance(value, types.FunctionType | property | staticmethod | classmethod)
                and not name.startswith("_generate")
            }
        else:
            found = []
        annotations: Mapping[str, Any] = {}
        with suppress(Exception):  # names in them may not be there yet
            annotations = inspect.get_annotations(kind)
        fields = vars(kind).get("__pydantic_fields__", {})
        return (
            "class",
            tuple(self._value(base) for base in kind.__bases__),
            tuple(found),
            tuple((name, self._value(members[name])) for name in sorted(members)),
            tuple((name, _text(annotation)) for name, annotation in annotations.items()),
            tuple((name, _text(field)) for name, field in fields.items()),
        )

    def _module(self, module: types.ModuleType) -> Description:
        file = getattr(module, "__file__", None)
        if file and is_own(file, self._home) and file.endswith(".py"):
            return self._number(Path(file))
        return "module", module.__name__, modules.version_of(module.__name__)

    def _file(self, path: Path) -> Description:
        """Describe a module as a whole, by its file: what is imported where it is needed only."""
        try:
            code = compile(path.read_bytes(), path.name, "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError):
            return "unreadable", path.name
        return "file", self._code(code, {"__package__": modules.package_of(path)})

    def _code(self, code: types.CodeType, namespace: Mapping[str, Any]) -> Description:
        steps = [each for each in dis.get_instructions(code) if each.opname not in _SILENT]
        count = code.co_argcount + code.co_kwonlyargcount
        return (
            code.co_varnames[:count],
            (code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _SHAPE),
            tuple(self._steps(steps, namespace)),
            code.co_exceptiontable,
        )

    def _steps(
        self, steps: list[dis.Instruction], namespace: Mapping[str, Any]
    ) -> Iterator[Description]:
        for place, step in enumerate(steps):
            after = steps[place + 1] if place + 1 < len(steps) else None
            if step.opcode in dis.hasconst:
                if after is None or after.argval not in _BESIDE_THE_POINT:
                    yield step.opname, self._constant(step.argval, namespace)
            elif step.opcode in _UNNAMED:
                yield step.opname, step.arg
            elif step.opname in _GLOBALS:
                yield step.opname, step.argval, self._named(steps, place, namespace)
            elif step.opname == "IMPORT_NAME":
                yield step.argval, *self._imported(steps, place, namespace)
            elif step.argval not in _BESIDE_THE_POINT:
                yield step.opname, _plain(step.argval)

    def _constant(self, value: Any, namespace: Mapping[str, Any]) -> Description:
        if isinstance(value, types.CodeType):
            return self._code(value, namespace)
        return _digest(value)

    def _named(
        self, steps: list[dis.Instruction], place: int, namespace: Mapping[str, Any]
    ) -> Description:
        """Describe what a name of a module stands for; of a module the attribute that is used."""
        name = steps[place].argval
        if name not in namespace:
            return None
        value = self._look_up(namespace, name)
        while isinstance(value, types.ModuleType) and self._is_own(value.__name__):
            place += 1
            used = steps[place] if place < len(steps) else None
            if used is None or used.opname not in _ATTRIBUTES or used.argval not in vars(value):
                break
            value = self._look_up(vars(value), used.argval)
        return self._value(value)

    def _look_up(self, namespace: Mapping[str, Any], name: str) -> Any:
        value = namespace[name]
        self.lookups.append(Lookup(namespace, name, value))
        return value

    def _imported(
        self, steps: list[dis.Instruction], place: int, namespace: Mapping[str, Any]
    ) -> Iterable[Description]:
        """Describe what an `import` inside a function leads to, without importing it."""
        # The two constants before it: how many dots, and the names of `from … import`.
        level, names = (step.argval for step in steps[place - 2 : place])
        package = namespace.get("__package__") or ""
        for name in modules.named(steps[place].argval, level, names or (), package):
            file = modules.file_of(name)
            if file is not None and file.endswith(".py") and is_own(file, self._home):
                yield self._number(Path(file))
            else:
                yield "module", name, modules.version_of(name)

    def _is_own(self, module: str) -> bool:
        if module == "__main__":
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
        return bool(file) and is_own(str(file), self._home)


def _class_around(function: Callable[..., Any]) -> type | None:
    """Return the class that a method belongs to, if it is defined in a module."""
    path = getattr(function, "__qualname__", "").split(".")[:-1]
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    if not path or "<locals>" in path:
        return None
    for name in path:
        found = vars(found).get(name) if hasattr(found, "__dict__") else None
    return found if isinstance(found, type) else None


def _is_member(name: str, value: object) -> bool:
    """Whether something in a class was put there by its author."""
    if not (name.startswith("__") and name.endswith("__")):
        return not name.startswith(("_abc_", "model_", "__pydantic"))
    return isinstance(value, types.FunctionType | staticmethod | classmethod | property)


def _by_name(value: Any) -> Description:
    if isinstance(value, types.FunctionType):
        # What a decorator returned may have taken over the name of what it wraps.
        module, qualname = value.__globals__.get("__name__", ""), value.__code__.co_qualname
    else:
        module = getattr(value, "__module__", None) or ""
        qualname = getattr(value, "__qualname__", type(value).__qualname__)
    return "library", module, qualname, modules.version_of(module)


def _digest(value: Any) -> bytes | str:
    try:
        return digest(value)
    except Exception:  # noqa: BLE001 - what cannot be pickled counts by its class
        return f"{type(value).__module__}.{type(value).__qualname__}"


def _plain(argument: object) -> object:
    return argument if isinstance(argument, str | int) else _text(argument)


def _text(value: object) -> str:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    try:
        return _ADDRESS.sub("", repr(value))
    except Exception:  # noqa: BLE001 - it is the user's
        return type(value).__qualname__
