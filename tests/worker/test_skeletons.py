"""Where the values to come are in a call, found without unpickling its objects."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from raysched.graph.payload import Slot, dump_call
from raysched.worker.skeletons import skeleton, slots_in


@dataclass
class Plain:
    inside: Any


@dataclass(frozen=True, slots=True)
class Slotted:
    inside: Any


class Model(BaseModel):
    inside: Any


class ByArguments:
    """Pickled with what its `__new__` takes."""

    inside: Any

    def __new__(cls, *, inside: Any) -> Self:
        made = super().__new__(cls)
        made.inside = inside
        return made

    def __getnewargs_ex__(self) -> tuple[Any, ...]:
        return (), {"inside": self.inside}


class Listed(list[Any]):
    pass


WRAPPERS = [
    lambda inside: [1, inside],
    lambda inside: (inside,),
    lambda inside: {"key": inside},
    lambda inside: OrderedDict(key=inside),
    lambda inside: defaultdict(list, key=inside),
    lambda inside: deque([inside]),
    lambda inside: SimpleNamespace(inside=inside),
    lambda inside: Listed([inside, np.zeros(3), datetime(2026, 1, 1, tzinfo=UTC)]),
    lambda inside: [inside, {1, 2}, frozenset({"a"}), b"x" * 300, lambda: 1, Plain],
    Plain,
    Slotted,
    lambda inside: Model(inside=inside),
    lambda inside: ByArguments(inside=inside),
]
NESTED = st.tuples(st.integers(0, 5), st.lists(st.sampled_from(WRAPPERS), max_size=4))


def nested(number: int, wrappers: list[Any]) -> Any:
    """Return the value of a slot inside of other objects."""
    value: Any = Slot(number, b"")
    for wrap in wrappers:
        value = wrap(value)
    return value


@given(st.lists(st.lists(NESTED, max_size=3), max_size=4))
def test_slots_are_found_wherever_they_are(arguments: list[list[tuple[int, list[Any]]]]) -> None:
    call = [[nested(*each) for each in argument] for argument in arguments]
    found = [slots_in(part) for part in skeleton(dump_call(call)[0])]
    assert found == [frozenset(number for number, _ in argument) for argument in arguments]


def test_classes_that_travel_by_value() -> None:
    """As those of `__main__`, which cloudpickle makes again from their parts."""

    class Local:
        def __init__(self, inside: Any) -> None:
            self.inside = inside

    call = (Local(Slot(3, b"")), Local(1), [Local])
    assert [slots_in(part) for part in skeleton(dump_call(call)[0])] == [{3}, set(), set()]


def test_no_code_of_the_arguments_is_called() -> None:
    payload = pickle.dumps((Loud(), Slot(1, b"")))
    loud, slot = skeleton(payload)
    assert slots_in(loud) == set()
    assert slots_in(slot) == {1}
    with pytest.raises(RuntimeError):
        pickle.loads(payload)


class Loud:
    def __reduce__(self) -> Any:
        return _shout, ()


def _shout() -> None:
    raise RuntimeError


def test_modules_that_are_not_there() -> None:
    payload = b"\x80\x05\x8c\x07nowhere\x8c\x05Thing\x93)\x81."  # nowhere.Thing()
    assert slots_in(skeleton(payload)) == set()
    assert "nowhere" not in sys.modules


def test_what_contains_itself() -> None:
    loop: list[Any] = [Slot(2, b"")]
    loop.append(loop)
    assert slots_in(skeleton(dump_call(loop)[0])) == {2}
