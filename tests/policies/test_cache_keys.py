"""Cache keys as pure functions: one row of a map has the key that it would have alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from raysched.graph.digest import digest, digests
from raysched.policies.cache import (
    FILES,
    KEY,
    PARAMETER,
    RUN,
    SOURCE,
    cache_key,
    cache_keys,
    differences,
    named_key,
    nearest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = st.text("abxyzé%_", min_size=1, max_size=4) | st.sampled_from([SOURCE, RUN, FILES + "a"])
DIGESTS = st.binary(min_size=16, max_size=16)
PARTS = st.dictionaries(NAMES, DIGESTS, max_size=5)
ATOMS = st.integers() | st.text() | st.binary() | st.floats() | st.booleans() | st.none()


@given(label=st.binary(), parts=PARTS, varying=st.sets(NAMES), data=st.data())
def test_keys_of_rows_are_those_of_each_alone(
    label: bytes, parts: Mapping[str, bytes], varying: set[str], data: st.DataObject
) -> None:
    fixed = {name: each for name, each in parts.items() if name not in varying}
    rows = data.draw(st.lists(st.tuples(*[DIGESTS for _ in varying]), max_size=4))
    names = sorted(varying)
    columns = {name: [row[n] for row in rows] for n, name in enumerate(names)}
    expected = [cache_key(label, fixed | dict(zip(names, row, strict=True))) for row in rows]
    if columns:
        assert list(zip(*cache_keys(label, fixed, columns), strict=True)) == expected


@given(label=st.binary(), other=st.binary(), first=PARTS, second=PARTS)
def test_different_parts_have_different_keys(
    label: bytes, other: bytes, first: Mapping[str, bytes], second: Mapping[str, bytes]
) -> None:
    key, text = cache_key(label, first)
    assert (key == cache_key(label, second)[0]) is (first == second)
    assert (key == cache_key(other, first)[0]) is (label == other)
    assert json.loads(text) == {name: each[:8].hex() for name, each in first.items()}


@given(column=st.lists(ATOMS))
def test_digests_of_columns_are_those_of_each_alone(column: list[object]) -> None:
    assert digests(column) == [digest(element) for element in column]


@given(first=st.text(), second=st.text())
def test_keys_with_a_name(first: str, second: str) -> None:
    assert (named_key(first)[0] == named_key(second)[0]) is (first == second)


def test_differences_are_told() -> None:
    before = {
        SOURCE: "0",
        RUN: "0",
        KEY: "a",
        "x": "0",
        "gone": "0",
        FILES + "p": "0",
        PARAMETER + "day": "0",
    }
    now = {SOURCE: "1", RUN: "1", KEY: "b", "x": "1", "new": "0"}
    now |= {FILES + "p": "1", PARAMETER + "day": "1"}
    assert differences(before, now) == [
        "cache_key_fn returned 'b', not 'a'",
        "it is another flow run",
        "the task's code has changed",
        "the files that argument 'p' names have changed",
        "the flow's parameter 'day' differs",
        "argument 'gone' is no longer a part of it",
        "argument 'new' was not a part of it",
        "argument 'x' differs",
    ]
    assert differences(before, before) == []


def test_the_nearest_one_is_told() -> None:
    now = {"x": "1", "y": "1", SOURCE: "1"}
    others = [{"x": "2", "y": "2", SOURCE: "1"}, {"x": "1", "y": "1", SOURCE: "0"}]
    assert nearest(now, others) == ["the task's code has changed"]
