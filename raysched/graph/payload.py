"""Pickling of calls: one pass that copies the arguments and finds the futures inside them.

A future pickles as a numbered *slot*: `Slot(n)` on the wire, the n-th dependency of the call in the
graph. Whoever unpickles the payload supplies the values, so a future may sit anywhere that pickle
reaches: in lists, sets, dicts, dataclasses, pydantic models. The same pass is what makes task runs
share nothing by accident.
"""

import io
import pickle
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import cloudpickle

from raysched.errors import FutureError, SerializationError
from raysched.model.ids import IDENTITY_BYTES

if TYPE_CHECKING:
    from raysched.graph.group import Edge

PROTOCOL = 5
"""Pickle protocol 5: the first one with out-of-band buffers (PEP 574)."""

ATOMS = frozenset({int, str, bytes, float, bool, type(None)})
"""Types whose pickle is a function of their value alone, so that it can be digested as it is."""

_by_value_modules: dict[str, bytes] = {"__main__": b"__main__"}


class Dependency(Protocol):
    """What sits in a payload in place of a value to come: a future, in its many forms."""

    def identity(self) -> bytes:
        """Return the digest that stands for the value in digests of inputs."""

    def edge(self) -> "Edge":
        """Return the arrow from the value's group to whoever needs it."""


class _Local(threading.local):
    found: "list[Dependency] | None" = None
    first_slot: int = 0
    digesting: bool = False
    values: "Callable[[int], Any] | None" = None


_local = _Local()


def register_by_value(module: str) -> None:
    """Pickle what `module` defines by value: workers cannot import it under that name."""
    _by_value_modules[module] = module.encode()


def is_by_value(module: str | None) -> bool:
    """Whether what `module` defines travels by value."""
    return module in _by_value_modules


def reduce_dependency(dependency: Dependency) -> tuple[Any, ...]:
    """Pickle `dependency` as the next slot: for `__reduce__` of futures.

    Raises:
        FutureError: No call is being pickled, so nobody could supply the value.
    """
    if _local.digesting:
        return _slot, (dependency.identity(),)
    if _local.found is None:
        message = (
            "a future cannot be pickled: pass it to a task as an argument (or inside one), "
            "or pass its value, future.result()"
        )
        raise FutureError(message)
    _local.found.append(dependency)
    return _slot, (_local.first_slot + len(_local.found) - 1,)


def is_recording() -> bool:
    """Whether the arguments of a call are being pickled or digested in this thread."""
    return _local.digesting or _local.found is not None


def is_digesting() -> bool:
    """Whether a digest is being made in this thread: values are never rebuilt from it."""
    return _local.digesting


@contextmanager
def without_slots() -> Iterator[None]:
    """Pickle as if no call were recorded: futures in the block raise `FutureError`."""
    before, _local.found = _local.found, None
    try:
        yield
    finally:
        _local.found = before


class Slot:
    """A dependency whose number is known before its call is pickled: a column of a map."""

    __slots__ = ("identity_of_value", "number")

    def __init__(self, number: int, identity_of_value: bytes) -> None:
        self.number = number
        self.identity_of_value = identity_of_value

    def __reduce__(self) -> tuple[Any, ...]:
        return _slot, (self.identity_of_value if _local.digesting else self.number,)


def dumps(
    value: object, buffers: list[pickle.PickleBuffer] | None = None, out_of_band_min: int = 0
) -> bytes:
    """Pickle `value`: by the C pickler, or by cloudpickle where that is not enough.

    Args:
        value: The value.
        buffers: Where to put its buffers, out of band (PEP 574); None keeps them in the pickle.
        out_of_band_min: Smaller buffers (bytes) stay in the pickle.

    Raises:
        SerializationError: `value` cannot be pickled.
    """
    keep_in_band = None if buffers is None else _collector(buffers, out_of_band_min)
    try:
        data = pickle.dumps(value, PROTOCOL, buffer_callback=keep_in_band)
        if not _names_by_value(data):
            return data
    except FutureError:
        raise
    except Exception:  # noqa: BLE001, S110 - any user's __reduce__ may raise anything
        pass
    if buffers is not None:
        buffers.clear()
    return _cloudpickle(value, keep_in_band)


def _collector(
    buffers: list[pickle.PickleBuffer], out_of_band_min: int
) -> Callable[[pickle.PickleBuffer], bool]:
    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < out_of_band_min:
            return True
        buffers.append(buffer)
        return False

    return keep_in_band


def dump_call(value: object, first_slot: int = 0) -> tuple[bytes, list[Dependency]]:
    """Pickle the arguments of a call; return the payload and the dependencies by slot.

    Args:
        value: The arguments.
        first_slot: Number of the first slot.

    Raises:
        SerializationError: An argument cannot be pickled.
        FutureError: A future inside `value` cannot be waited for here.
    """
    with _finding(first_slot) as found:
        try:
            data = pickle.dumps(value, PROTOCOL)
            if not _names_by_value(data):
                return data, found
        except FutureError:
            raise
        except Exception:  # noqa: BLE001, S110 - cloudpickle says what is wrong, if it is
            pass
        found.clear()
        return _cloudpickle(value), found


def load_call(payload: bytes, values: Callable[[int], Any]) -> Any:
    """Unpickle a payload; `values(n)` supplies the value of slot n."""
    before, _local.values = _local.values, values
    try:
        return pickle.loads(payload)
    finally:
        _local.values = before


def digest(value: object, *context: bytes) -> bytes:
    """Return the canonical digest of `value` within `context` (`IDENTITY_BYTES` bytes).

    Equal values have equal digests in every process: sets are sorted, shared and repeated objects
    look alike, functions count by name or, where they have none, by their code without line
    numbers. Futures count by their identity.
    """
    hasher = blake2b(b"\0".join(context), digest_size=IDENTITY_BYTES)
    hasher.update(_canonical(value))
    return hasher.digest()


def _canonical(value: object) -> bytes:
    if type(value) in ATOMS:
        return pickle.dumps(value, PROTOCOL)
    before, _local.digesting = _local.digesting, True
    try:
        try:
            data = _dump_canonical(_FastPickler, value)
        except Exception:  # noqa: BLE001 - cyclic, or only cloudpickle can
            return _canonical_with_memo(value)
        if b"\x8f" in data or b"\x91" in data:  # opcodes EMPTY_SET and FROZENSET
            return _dump_canonical(_SortingPickler, value)
        return data
    finally:
        _local.digesting = before


def _canonical_with_memo(value: object) -> bytes:
    try:
        return _dump_canonical(_CanonicalPickler, value)
    except Exception:  # noqa: BLE001 - any user's __reduce__ may raise anything
        return _cloudpickle(value)


def _dump_canonical(factory: type[pickle.Pickler], value: object) -> bytes:
    buffer = io.BytesIO()
    pickler = factory(buffer, PROTOCOL)
    # Without the memo, equal strings that happen to be one object pickle like two.
    pickler.fast = factory is not _CanonicalPickler
    pickler.dump(value)
    return buffer.getvalue()


class _FastPickler(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, types.FunctionType):
            return _function_digest, (_function_key(obj),)
        if isinstance(obj, type):
            return _function_digest, ((obj.__module__, obj.__qualname__),)
        return NotImplemented


class _SortingPickler(_FastPickler):
    def persistent_id(self, obj: object) -> Any:
        if isinstance(obj, set | frozenset):
            return type(obj).__name__, sorted(_canonical(item) for item in obj)
        return None


class _CanonicalPickler(_SortingPickler):
    """With memo, for cyclic objects."""


def _function_key(function: types.FunctionType) -> tuple[Any, ...]:
    name = (function.__module__, function.__qualname__)
    if "<" not in function.__qualname__ and not is_by_value(function.__module__):
        return name
    return (*name, *_code_key(function.__code__))


def _code_key(code: types.CodeType) -> tuple[Any, ...]:
    constants = tuple(
        _code_key(item) if isinstance(item, types.CodeType) else repr(item)
        for item in code.co_consts
    )
    return code.co_code, code.co_names, constants


def _function_digest(key: object) -> object:
    return key


def _slot(number: object) -> Any:
    if _local.values is None:
        message = "a payload with futures was unpickled outside a task run"
        raise SerializationError(message)
    return _local.values(number)  # type: ignore[arg-type]


def _names_by_value(data: bytes) -> bool:
    # By reference it would be looked up in the worker's own module of that name.
    return any(name in data for name in _by_value_modules.values())


@contextmanager
def _finding(first_slot: int) -> Iterator[list[Dependency]]:
    before = _local.found, _local.first_slot
    found: list[Dependency] = []
    _local.found, _local.first_slot = found, first_slot
    try:
        yield found
    finally:
        _local.found, _local.first_slot = before


def _cloudpickle(
    value: object, buffer_callback: Callable[[pickle.PickleBuffer], bool] | None = None
) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(value, PROTOCOL, buffer_callback=buffer_callback)
    except FutureError:
        raise
    except Exception as error:
        message = f"{type(value).__qualname__} cannot be pickled: {error}"
        raise SerializationError(message) from error
    return data
