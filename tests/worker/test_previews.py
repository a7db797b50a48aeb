"""What is shown of values: little, quickly, and no secrets."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from raysched.worker.masking import HARMLESS, MASK, SECRETS, Masks
from raysched.worker.previews import PREVIEW_MAX_CHARACTERS, Previews, type_of

MASKS = Masks()
PREVIEWS = Previews(MASKS)
QUICK = Previews(MASKS, only_quick=True)

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes()
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner, inner)
        | st.builds(SimpleNamespace, inside=inner)
    ),
)
SECRET = "hunter2-correct-horse"  # noqa: S105 - nobody's
WORDS = [name.strip() for name in SECRETS.split(",")]


@dataclass
class Login:
    user: str
    password: Any
    more: Any = None
    hidden: str = field(default="hidden", repr=False)


class Model(BaseModel):
    user: str = "me"
    api_key: str = SECRET
    pin: SecretStr = SecretStr(SECRET)
    raw: SecretBytes = SecretBytes(SECRET.encode())
    more: Any = None
    hidden: str = Field(default=SECRET, repr=False)


Point = namedtuple("Point", ["x", "secret"])  # noqa: PYI024 - as users write them


class Colour(Enum):
    RED = 1


class Refusing:
    def __repr__(self) -> NoReturn:
        raise RuntimeError


class Hostile:
    """Nothing of it can be used."""

    def _refuse(self, *_: object) -> NoReturn:
        raise RuntimeError

    __repr__ = __str__ = __len__ = __eq__ = __hash__ = __getattr__ = _refuse
    __class__ = property(_refuse)


class Talkative:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@given(VALUES)
def test_any_value_has_a_preview(value: object) -> None:
    for previews in (PREVIEWS, QUICK):
        text = previews.of(value)
        assert 0 < len(text) <= PREVIEW_MAX_CHARACTERS
        assert json.loads(json.dumps(text)) == text
        text.encode()


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9), st.lists, max_leaves=5))
def test_small_plain_data_looks_as_in_python(value: object) -> None:
    text = PREVIEWS.of(value)
    assume("…" not in text)
    assert text == repr(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1,), "(1,)"),
        ((), "()"),
        ({1, 2}, "{1, 2}"),
        ({"a": [1.5, "b"]}, "{'a': [1.5, 'b']}"),
        (Colour.RED, "Colour.RED"),
        (Login("me", None), "Login(user='me', password=None, more=None)"),
        (Point(1, None), "Point(x=1, secret=None)"),
        (OrderedDict(a=1), "OrderedDict({'a': 1})"),
        (deque([1]), "deque([1])"),
        (ValueError("x", 1), "ValueError('x', 1)"),
        (Path("/a"), "PosixPath('/a')"),
        (datetime(2026, 1, 2, tzinfo=UTC), repr(datetime(2026, 1, 2, tzinfo=UTC))),
        (Colour, f"<class '{__name__}.Colour'>"),
        (object(), "<object object>"),
        (Refusing(), "<Refusing: RuntimeError while it was looked at>"),
        ([10**5000], "[<int of 16610 bits>]"),
        (np.zeros(10**6), "ndarray(shape=(1000000,), dtype=float64)"),
        (np.array([1, 2]), "ndarray([1, 2], dtype=int64)"),
        (pd.DataFrame({"a": range(9)}), "DataFrame(shape=(9, 1), columns=['a'])"),
        (pd.Series([1.5]), "Series([1.5], dtype=float64)"),
        (Talkative("<Talkative at 0x7f00>"), "<Talkative>"),
    ],
)
def test_preview(value: object, text: str) -> None:
    assert PREVIEWS.of(value) == text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (list(range(10**6)), "1,000,000 in all"),
        ({str(i): i for i in range(10**5)}, "100,000 in all"),
        (set(range(10**5)), "100,000 in all"),
        ("x" * 10**6, "(1,000,000 characters)"),
        (b"x" * 10**6, "(1,000,000 bytes)"),
        (deque(range(10**5)), "100,000 in all"),
    ],
    ids=type_of,
)
def test_large_values_tell_their_size(value: object, told: str) -> None:
    assert told in PREVIEWS.of(value)


def test_large_objects_are_not_asked_for_their_repr() -> None:
    class Many:
        def __len__(self) -> int:
            return 10**6

        def __repr__(self) -> NoReturn:
            raise AssertionError

    assert PREVIEWS.of(Many()).endswith("Many of 1,000,000>")


def test_only_so_many_elements_are_looked_at() -> None:
    """However large it is, and whatever is in it."""
    touched = []

    class Element:
        def __repr__(self) -> str:
            touched.append(self)
            return "an element"

    PREVIEWS.of([[Element() for _ in range(1000)] for _ in range(1000)])
    assert len(touched) < PREVIEW_MAX_CHARACTERS


def test_what_contains_itself() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert PREVIEWS.of(loop) == "[1, [1, [1, [1, […]]]]]"


def test_hostile_objects_do_no_harm() -> None:
    for value in (Hostile(), [Hostile()], {"a": Hostile()}, Login("me", Hostile())):
        assert PREVIEWS.of(value)
        assert PREVIEWS.of(value, "token") == MASK


def test_another_thread_calls_no_code_of_others() -> None:
    value = Talkative("no")
    assert QUICK.of([value, threading.Lock(), Login("me", 1, value)]).count("object>") == 3


@given(
    st.sampled_from(WORDS), st.sampled_from(["{}", "db_{}", "{}_of_db", "X-{}-Y", "my {}", "{}2"])
)
def test_names_of_secrets(word: str, form: str) -> None:
    for name in (form.format(word), form.format(word).upper(), form.format(word).title()):
        assert MASKS.hides(name)


@pytest.mark.parametrize(
    "name",
    ["monkey", "keyword", "tokenizer", "author", "hockey", "secretary", "passage", "compass", ""]
    + [name.strip().replace(" ", "_") for name in HARMLESS.split(",")]
    + ["max_tokens", "primaryKey", "group_keys"],
)
def test_names_that_only_look_like_secrets(name: str) -> None:
    assert not MASKS.hides(name)


def test_plurals() -> None:
    assert all(map(MASKS.hides, ("passwords", "tokens", "api_keys", "credentials", "secretKeys")))


def test_names_in_camel_case() -> None:
    assert MASKS.hides("accessToken")
    assert MASKS.hides("APIKey")
    assert MASKS.hides("DBPassword")


@given(st.text(st.characters(codec="utf-8")))
def test_any_name_may_be_asked_about(name: str) -> None:
    assert MASKS.hides(name) in (True, False)


def test_more_names() -> None:
    masks = Masks(["ssn", " iban number "])
    assert masks.hides("customer_SSN")
    assert masks.hides("ibanNumber")
    assert masks.hides("password")
    assert not masks.hides("iban")
    assert not MASKS.hides("customer_ssn")


@given(st.sampled_from(WORDS), st.integers(0, 2))
def test_secrets_inside_of_values_are_not_shown(word: str, depth: int) -> None:
    name = f"the_{word}"
    values: list[Any] = [
        {name: SECRET},
        SimpleNamespace(**{name: SECRET}),
        Login("me", SECRET),
        Model(),
        Point(1, SECRET),
        SecretStr(SECRET),
        f"{name}={SECRET}",
        f"postgresql://me:{SECRET}@host/db",
        f"https://{SECRET}@host/x",
        f"https://host/x?a=b&{name}={SECRET}&c=d",
        f"Authorization: Bearer {SECRET}",
        Talkative(f"Client({name}={SECRET!r}, {name!r}: {SECRET!r})"),
        ValueError(f"{name}: {SECRET}"),
        np.array([f"{name}={SECRET}"]),
    ]
    for value in values:
        for _ in range(depth):
            value = [{"a": value}]  # noqa: PLW2901 - wrapped
        assert SECRET not in PREVIEWS.of(value)
        assert SECRET not in QUICK.of(value)


def test_what_is_called_like_a_secret_is_not_shown_at_all() -> None:
    assert PREVIEWS.of({"a": SECRET}, "credentials") == MASK
    assert PREVIEWS.of(Login("me", 1), "token") == MASK


@pytest.mark.parametrize("nothing", [None, True, False, "", b""], ids=repr)
def test_that_there_is_no_secret_is_none(nothing: object) -> None:
    assert PREVIEWS.of(nothing, "password") == repr(nothing)


def test_text_beside_secrets_stays() -> None:
    text = f"host=db password={SECRET} user=me, see http://host:80/path and me@host"
    assert MASKS.text(text) == text.replace(SECRET, MASK)


@given(st.text())
def test_text_without_secrets_stays(text: str) -> None:
    assume(not any(word in text.lower() for word in [*WORDS, "basic"]) and "://" not in text)
    assert MASKS.text(text) == text
