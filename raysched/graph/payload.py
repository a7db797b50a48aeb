"""Pickling of calls: one pass that copies the arguments and finds the futures inside them.

A future pickles as a numbered *slot*: `Slot(n)` on the wire, the n-th dependency of the call in the
graph. Whoever unpickles the payload supplies the values, so a future may sit anywhere that pickle
reaches: in lists, sets, dicts, dataclasses, pydantic models. The same pass is what makes task runs
share nothing by accident.
"""

import pickle
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from raysched.errors import FutureError, SerializationError

if TYPE_CHECKING:
    from raysched.graph.group import Edge

PROTOCOL = 5
"""Pickle protocol 5: the first one with out-of-band buffers (PEP 574)."""

ATOMS = frozenset({int, str, bytes, float, bool, type(None)})
"""Types whose pickle is a function of their value alone, so that it can be digested as it is."""

_TOKEN = re.compile(rb"once_per_worker\0[^\0]+\0[0-9a-f]+")

_supply_object: Callable[[str, bytes], Any] | None = None


_by_value_modules: dict[str, bytes] = {"__main__": b"__main__"}


ByValue: TypeAlias = Callable[[object, Callable[[pickle.PickleBuffer], bool] | None], bytes]
"""Pickles what the C pickler cannot; see `dumps_by_value`."""


class Dependency(Protocol):
    """What sits in a payload in place of a value to come: a future, in its many forms."""

    def identity(self) -> bytes:
        """Return the digest that stands for the value in digests of inputs."""

    def edge(self) -> "Edge":
        """Return the arrow from the value's group to whoever needs it."""


class Activity(threading.local):
    """What a thread is pickling, for the `__reduce__` of what it meets. For this room only."""

    found: "list[Dependency] | None" = None
    first_slot: int = 0
    digesting: bool = False
    values: "Callable[[int], Any] | None" = None
    objects: "Callable[[str, bytes], Any] | None" = None


activity = Activity()


def register_by_value(module: str) -> None:
    """Pickle what `module` defines by value: workers cannot import it under that name.

    Args:
        module: Name of a module that is loaded, or being loaded.
    """
    import cloudpickle  # often not needed, and slow to import

    _by_value_modules[module] = module.encode()
    # Otherwise it would take classes of the module by their names, which are there here.
    cloudpickle.register_pickle_by_value(sys.modules[module])


def is_by_value(module: str | None) -> bool:
    """Whether what `module` defines travels by value."""
    return module in _by_value_modules


def reduce_dependency(dependency: Dependency) -> tuple[Any, ...]:
    """Pickle `dependency` as the next slot: for `__reduce__` of futures.

    Raises:
        FutureError: No call is being pickled, so nobody could supply the value.
    """
    if activity.digesting:
        return slot, (dependency.identity(),)
    if activity.found is None:
        message = (
            "a future cannot be pickled: pass it to a task as an argument (or inside one), "
            "or pass its value, future.result()"
        )
        raise FutureError(message)
    activity.found.append(dependency)
    return slot, (activity.first_slot + len(activity.found) - 1,)


def is_recording() -> bool:
    """Whether the arguments of a call are being pickled or digested in this thread."""
    return activity.digesting or activity.found is not None


def is_digesting() -> bool:
    """Whether a digest is being made in this thread: values are never rebuilt from it."""
    return activity.digesting


@contextmanager
def without_slots() -> Iterator[None]:
    """Pickle as if no call were recorded: futures in the block raise `FutureError`."""
    before, activity.found = activity.found, None
    try:
        yield
    finally:
        activity.found = before


class Slot:
    """A dependency whose number is known before its call is pickled: a column of a map."""

    __slots__ = ("identity_of_value", "number")

    def __init__(self, number: int, identity_of_value: bytes) -> None:
        self.number = number
        self.identity_of_value = identity_of_value

    def __reduce__(self) -> tuple[Any, ...]:
        return slot, (self.identity_of_value if activity.digesting else self.number,)


def are_atoms_or_slots(column: Sequence[object]) -> bool:
    """Whether a column's elements are all of `ATOMS`, or all slots."""
    return are_atoms(column) or set(map(type, column)) == {Slot}


def are_atoms(column: Sequence[object]) -> bool:
    """Whether all elements are of `ATOMS`: nobody can change them."""
    return isinstance(column, range) or set(map(type, column)) <= ATOMS


def dumps(
    value: object,
    buffers: list[pickle.PickleBuffer] | None = None,
    out_of_band_min: int = 0,
    by_value: "ByValue | None" = None,
) -> bytes:
    """Pickle `value`: by the C pickler, or by cloudpickle where that is not enough.

    Args:
        value: The value.
        buffers: Where to put its buffers, out of band (PEP 574); None keeps them in the pickle.
        out_of_band_min: Smaller buffers (bytes) stay in the pickle.
        by_value: What is called instead of `dumps_by_value`.

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
    return (by_value or dumps_by_value)(value, keep_in_band)


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
    before = activity.found, activity.first_slot
    found: list[Dependency] = []
    activity.found, activity.first_slot = found, first_slot
    try:
        try:
            data = pickle.dumps(value, PROTOCOL)
            if not _names_by_value(data):
                return data, found
        except FutureError:
            raise
        except Exception:  # noqa: BLE001, S110 - cloudpickle says what is wrong, if it is
            pass
        found.clear()
        return dumps_by_value(value), found
    finally:
        activity.found, activity.first_slot = before


def load_call(
    payload: bytes,
    values: Callable[[int], Any],
    objects: Callable[[str, bytes], Any] | None = None,
) -> Any:
    """Unpickle a payload.

    Args:
        payload: What `dump_call` returned.
        values: Supplies the value of slot n.
        objects: Supplies what is made once per worker, in place of what is in this process.
    """
    before = activity.values, activity.objects
    activity.values, activity.objects = values, objects
    try:
        return pickle.loads(payload)
    finally:
        activity.values, activity.objects = before


def slot(number: object) -> Any:
    """Stand for a value to come: what a dependency becomes when its payload is unpickled.

    Raises:
        SerializationError: Nobody supplies values here.
    """
    if activity.values is None:
        message = "a payload with futures was unpickled outside a task run"
        raise SerializationError(message)
    return activity.values(number)  # type: ignore[arg-type]


def object_token(name: str, key: bytes) -> str:
    """Return what an object that each worker makes once is known by.

    Args:
        name: For people.
        key: Digest of what it is made by and of.
    """
    return f"once_per_worker\0{name}\0{key.hex()}"


def object_name(token: str) -> str:
    """Return the name in a token."""
    return token.split("\0")[1]


def objects_in(payload: bytes) -> set[str]:
    """Return the tokens of the objects that a payload wants of its worker."""
    return {match[0].decode() for match in _TOKEN.finditer(payload)}


def supply_objects(supply: Callable[[str, bytes], Any]) -> None:
    """Say who makes the objects that payloads want of their worker.

    Args:
        supply: Given the token and how the object is made: factory, arguments, arguments by name,
            as `dump_call` has pickled them, in Base64. Names of modules that travel by value do not
            show through that, so that they concern the one pickle and not those around it.
    """
    global _supply_object  # noqa: PLW0603 - one a process
    _supply_object = supply


def worker_object(token: str, recipe: bytes) -> Any:
    """Stand for an object that each worker makes once: what `once_per_worker` is unpickled to.

    Raises:
        SerializationError: Nobody makes objects here.
    """
    supply = activity.objects or _supply_object
    if activity.values is None or supply is None:
        message = "a payload with an object made once per worker was unpickled outside a task run"
        raise SerializationError(message)
    return supply(token, recipe)


def _names_by_value(data: bytes) -> bool:
    # By reference it would be looked up in the worker's own module of that name.
    for name in _by_value_modules.values():  # noqa: SIM110 - any() takes three times as long
        if name in data:
            return True
    return False


def dumps_by_value(
    value: object,
    buffer_callback: Callable[[pickle.PickleBuffer], bool] | None = None,
    pickler: type[pickle.Pickler] | None = None,
) -> bytes:
    """Pickle `value` by cloudpickle, which also knows functions and classes without a name.

    Args:
        value: The value.
        buffer_callback: Of PEP 574.
        pickler: A class derived from cloudpickle's, to be used instead.

    Raises:
        SerializationError: `value` cannot be pickled.
    """
    import cloudpickle  # often not needed, and slow to import

    file = BytesIO()
    try:
        (pickler or cloudpickle.Pickler)(file, PROTOCOL, buffer_callback=buffer_callback).dump(
            value
        )
    except FutureError:
        raise
    except Exception as error:
        message = f"{type(value).__qualname__} cannot be pickled: {error}"
        raise SerializationError(message) from error
    return file.getvalue()
