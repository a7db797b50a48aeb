import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysched import SerializationError
from raysched.graph.digest import digest

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
)
HASHABLE = ATOMS | st.tuples(ATOMS, ATOMS) | st.frozensets(ATOMS, max_size=3)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
    ),
    max_leaves=10,
)


class Colour(Enum):
    RED = 1


@dataclass(frozen=True)
class Box:
    content: Any


def rebuilt(value: Any) -> Any:
    """Return an equal value that shares no object, in another order where that is free."""
    if isinstance(value, list | tuple):
        return type(value)(rebuilt(item) for item in value)
    if isinstance(value, dict):
        return {rebuilt(key): rebuilt(value[key]) for key in reversed(value)}
    if isinstance(value, set | frozenset):
        return type(value)(rebuilt(item) for item in reversed(list(value)))
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")
    return value


@given(VALUES)
def test_equal_values_have_equal_digests(value: Any) -> None:
    assert digest(value) == digest(rebuilt(value))
    assert digest(Box([value])) == digest(Box([rebuilt(value)]))


def typed(value: Any) -> Any:
    """Return what two values have to share to be the same input."""
    if isinstance(value, list | tuple):
        return type(value).__name__, [typed(item) for item in value]
    if isinstance(value, dict):
        return "dict", sorted(((typed(k), typed(v)) for k, v in value.items()), key=repr)
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(map(typed, value), key=repr)
    return type(value).__name__, repr(value)


@given(VALUES, VALUES)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (typed(one) == typed(other))


def test_shared_and_repeated_strings_look_alike() -> None:
    text, again = (b"shared".decode() for _ in range(2))
    assert text is not again
    assert digest([text, text]) == digest([text, again])


def test_context_counts() -> None:
    assert digest(1, b"a") != digest(1, b"b")


def test_cyclic_values() -> None:
    def cycle() -> list[Any]:
        loop: list[Any] = [1]
        loop.append(loop)
        return loop

    assert digest(cycle()) == digest(cycle())


def test_deep_values() -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    assert digest(deep) == digest(rebuilt(deep)) != digest([deep])


def captured(value: Any) -> Any:
    """Return a closure over `value`."""

    def inner() -> Any:
        return value

    return inner


def with_default(value: int) -> Any:
    """Return a function with a default value."""

    def inner(x: int = value) -> int:
        return x

    return inner


class TestFunctions:
    def test_by_name(self) -> None:
        assert digest(rebuilt) == digest(rebuilt) != digest(typed)
        assert digest(functools.partial(rebuilt, 1)) != digest(functools.partial(rebuilt, 2))

    def test_classes_and_enums(self) -> None:
        assert digest(Box) != digest(Colour)
        assert digest(Colour.RED) == digest(Colour(1))
        assert digest(Box(1)) != digest(Box(2))

    def test_lambdas_by_their_code(self) -> None:
        one = [lambda x: x + 1, lambda x: x + 2]
        assert digest(one[0]) != digest(one[1])
        twins = [
            lambda x: x in {"a", "b"},
            lambda x: x in {"a", "b"},
        ]
        assert digest(twins[0]) == digest(twins[1])

    def test_closures_by_what_they_capture(self) -> None:
        assert digest(captured(1)) == digest(captured(1)) != digest(captured(2))

    def test_defaults(self) -> None:
        assert digest(with_default(1)) == digest(with_default(1)) != digest(with_default(2))

    def test_that_capture_themselves(self) -> None:
        def countdown(n: int) -> int:
            return countdown(n - 1) if n else 0

        assert digest(countdown) == digest(countdown)


def test_what_cannot_be_pickled() -> None:
    with pytest.raises(SerializationError, match="cannot be pickled"):
        digest(n for n in range(1))


def test_other_processes_agree() -> None:
    program = (
        "from raysched.graph.digest import digest\n"
        "words = {'one', 'two', 'three', 'four'}\n"
        "values = [words, {word: [word] for word in words}, frozenset(words), digest,\n"
        "          lambda word: word in {'a', 'b', 'c'}, {'nested': [words]}, 1.5, 'ü']\n"
        "print(digest(values).hex(), [digest(value).hex() for value in values])\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(answers) == 1
