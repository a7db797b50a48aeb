"""Canonical digests: equal values of equal types have equal ones, in every process.

They are what a resume matches task runs on, so nothing that may differ between processes enters:
not the order of sets and dicts, not which strings are one object, not line numbers or addresses.
"""

import io
import pickle
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from inspect import unwrap
from itertools import chain
from pathlib import PurePath
from typing import Any

from raysched.errors import FutureError, RayschedError
from raysched.graph.naming import module_name
from raysched.graph.payload import (
    ATOMS,
    PROTOCOL,
    Slot,
    activity,
    are_atoms,
    dumps_by_value,
    is_by_value,
    slot,
)
from raysched.model.ids import IDENTITY_BYTES


def digest(value: object, *context: bytes) -> bytes:
    """Return the canonical digest of `value` within `context` (`IDENTITY_BYTES` bytes).

    Functions and classes count by name. Functions without one, and those of modules that travel by
    value, count by their code without line numbers, their defaults and what they capture. Futures
    count by their identity.

    Raises:
        SerializationError: `value` cannot be pickled.
        FutureError: `value` holds a future where none can be.
    """
    hasher = blake2b(b"\0".join(context), digest_size=IDENTITY_BYTES)
    hasher.update(_canonical(value))
    return hasher.digest()


def digests(column: Sequence[Any]) -> list[bytes]:
    """Return the digest of each element of a column; quickly, if they are atoms."""
    if not are_atoms(column):
        return list(map(digest, column))
    dumps = pickle.dumps
    return [blake2b(dumps(x, PROTOCOL), digest_size=IDENTITY_BYTES).digest() for x in column]


def digest_rows(columns: Sequence[Sequence[Any]], *context: bytes) -> bytearray:
    """Return the digests of rows of atoms and slots, in one buffer: for each that of `digest`.

    Args:
        columns: The elements, column by column.
        context: As of `digest`.
    """
    before = blake2b(b"\0".join(context), digest_size=IDENTITY_BYTES)
    digests = bytearray()
    for row in _canonical_rows(columns):
        hasher = before.copy()
        hasher.update(row)
        digests += hasher.digest()
    return digests


def task_label(name: str, fn: Callable[..., Any]) -> bytes:
    """Return what tells a task from others in digests, also from those of the same name.

    A function that its module knows counts by the file's name and its own, not by its code: work
    that has completed outlives a change of the code. One made inside another function, of which
    there may be many, counts by its code and what it captures.

    Args:
        name: The task's name.
        fn: The user's function.
    """
    function = unwrap(fn)
    # What is not a function, such as a partial one, counts by what it is made of.
    qualname = getattr(function, "__qualname__", "<object>")
    # The same for `python f.py`, where the module is __main__, and for `package.f`.
    file = getattr(sys.modules.get(function.__module__), "__file__", None) or ""
    label = f"{name}\0{PurePath(file).stem}\0{qualname}".encode()
    if "<" not in qualname:
        return label
    try:
        return digest(function, label)
    except RayschedError:
        return label


def _canonical(value: object) -> bytes:
    if type(value) in ATOMS:
        return pickle.dumps(value, PROTOCOL)
    if type(value) is tuple and all(type(element) in ATOMS for element in value):
        return _canonical_row(value)
    before, activity.digesting = activity.digesting, True
    try:
        data = _dumped(_Pickler, value)
        # Opcodes EMPTY_DICT, EMPTY_SET and FROZENSET; where they are mere data they cost time only.
        unordered = b"}" in data or b"\x8f" in data or b"\x91" in data
        return _dumped(_SortingPickler, value) if unordered else data
    except FutureError:
        raise
    except Exception:  # noqa: BLE001 - cyclic, or only cloudpickle can
        return _canonical_with_memo(value)
    finally:
        activity.digesting = before


def _canonical_row(row: tuple[Any, ...]) -> bytes:
    # Pickles one after the other, each with its end; all others begin with the PROTO opcode.
    return b"(" + b"".join([pickle.dumps(element, PROTOCOL) for element in row])


def _canonical_rows(columns: Sequence[Sequence[Any]]) -> Iterator[bytes]:
    if all(map(are_atoms, columns)):
        return map(_canonical_row, zip(*columns, strict=True))
    if not all(isinstance(column[0], Slot) for column in columns):
        return map(_canonical, zip(*columns, strict=True))
    # Of slots only identities differ, which are of one length: so rows differ only there.
    marks = [b"identity %07d" % number for number in range(len(columns))]
    pattern = _canonical(tuple(Slot(0, mark) for mark in marks))
    between = re.split(b"|".join(marks), pattern)
    return (_filled(between, row) for row in zip(*columns, strict=True))


def _filled(between: Sequence[bytes], row: Sequence[Slot]) -> bytes:
    identities = (each.identity_of_value for each in row)
    return b"".join(chain.from_iterable(zip(between, identities, strict=False))) + between[-1]


def _dumped(factory: "type[_Pickler]", value: object, *, memo: bool = False) -> bytes:
    buffer = io.BytesIO()
    pickler = factory(buffer, PROTOCOL)
    # With the memo, equal strings that happen to be one object pickle unlike two.
    pickler.fast = not memo
    pickler.dump(value)
    return buffer.getvalue()


def _canonical_with_memo(value: object) -> bytes:
    try:
        return _dumped(_SortingPickler, value, memo=True)
    except FutureError:
        raise
    except Exception:  # noqa: BLE001 - only cloudpickle can, or says why not
        return dumps_by_value(value)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:
        if obj is slot or obj is _by_name or obj is _by_code:
            return NotImplemented
        if isinstance(obj, type):
            return _by_name, (module_name(obj.__module__), obj.__qualname__)
        if not isinstance(obj, types.FunctionType):
            return NotImplemented
        name = module_name(obj.__module__)
        if "<" not in obj.__qualname__ and (name != obj.__module__ or not is_by_value(name)):
            return _by_name, (name, obj.__qualname__)
        return _by_code, (obj.__qualname__, *_parts(obj))


class _SortingPickler(_Pickler):
    def persistent_id(self, obj: object) -> Any:
        if type(obj) is dict and len(obj) > 1:
            items = sorted((_canonical(key), _canonical(value)) for key, value in obj.items())
            return "dict", items
        if isinstance(obj, set | frozenset):
            return type(obj).__qualname__, sorted(map(_canonical, obj))
        return None


def _parts(function: types.FunctionType) -> tuple[Any, ...]:
    contents = [cell.cell_contents for cell in function.__closure__ or ()]
    captured = tuple(None if content is function else content for content in contents)
    return (
        *_code_key(function.__code__),
        function.__defaults__,
        function.__kwdefaults__,
        captured,
    )


def _code_key(code: types.CodeType) -> tuple[Any, ...]:
    constants = tuple(
        _code_key(constant) if isinstance(constant, types.CodeType) else constant
        for constant in code.co_consts
    )
    return code.co_code, code.co_names, constants


def _by_name(module: str, qualname: str) -> None:
    """Stand for a function or class. Never called, as digests are not unpickled."""


def _by_code(*parts: object) -> None:
    """Stand for a function without a name to count by."""
