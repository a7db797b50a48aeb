from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysched.errors import InternalError, SerializationError
from raysched.results.envelope import OUT_OF_BAND_MIN_BYTES, decode, encode

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(PLAIN)
def test_round_trip(value: object) -> None:
    encoded = encode(value)
    assert decode(encoded.join()) == value
    assert decode(encoded.parts()) == value


@given(st.lists(st.integers(0, 3 * OUT_OF_BAND_MIN_BYTES), max_size=4))
def test_round_trip_of_buffers(sizes: list[int]) -> None:
    arrays = [np.arange(size, dtype=np.uint8) for size in sizes]
    encoded = encode(arrays)
    assert encoded.size >= sum(sizes)
    assert len(encoded.buffers) == sum(size >= OUT_OF_BAND_MIN_BYTES for size in sizes)
    for found in (decode(encoded.join()), decode(encoded.parts())):
        assert all((a == b).all() for a, b in zip(found, arrays, strict=True))


@pytest.mark.parametrize("size", [10, 100_000])
def test_copies_are_fresh_and_writable(size: int) -> None:
    envelope = encode(np.zeros(size)).join()
    first = decode(envelope)
    first[0] = 1
    assert decode(envelope)[0] == 0


def test_large_buffers_are_not_copied_before_they_are_joined() -> None:
    array = np.zeros(100_000)
    (buffer,) = encode(array).buffers
    array[0] = 7
    assert np.frombuffer(memoryview(buffer), dtype=float)[0] == 7


def test_functions_travel_by_value() -> None:
    offset = 3
    assert decode(encode(lambda x: x + offset).join())(4) == 7


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(SerializationError, match="lock"):
        encode(threading.Lock())


def test_what_cannot_be_rebuilt_is_named() -> None:
    envelope = encode(Stubborn()).join()
    with pytest.raises(SerializationError, match="cannot be unpickled here: OSError"):
        decode(envelope)


def test_newer_format_is_refused() -> None:
    with pytest.raises(InternalError, match="format 200"):
        decode(bytes((200, 1, 2)))


class Stubborn:
    def __reduce__(self) -> tuple[object, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise OSError
