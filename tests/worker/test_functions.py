from __future__ import annotations

import json
import logging

import pytest

from raysched.errors import SerializationError
from raysched.worker.functions import FunctionReference, refer


def test_importable_function_travels_by_name() -> None:
    reference = refer(json.dumps)
    assert reference == FunctionReference("json:dumps")
    assert reference.resolve() is json.dumps


def test_decorated_function_is_found_below_its_decoration() -> None:
    reference = refer(plain)
    assert reference.pickled == b""
    assert reference.resolve() is plain


def test_closure_travels_by_value() -> None:
    offset = 2

    def shift(value: int) -> int:
        return value + offset

    reference = refer(shift)
    assert reference.pickled
    assert reference.resolve()(3) == 5


def test_missing_module_is_named() -> None:
    with pytest.raises(SerializationError, match=r"no_such_module:f.*Install its module"):
        FunctionReference("no_such_module:f").resolve()


def test_captured_lock_is_named() -> None:
    import threading

    lock = threading.Lock()
    with pytest.raises(SerializationError, match=r"lock.*captures"):
        refer(lambda: lock)


def test_large_capture_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    data = bytes(2 * 1024**2)
    with caplog.at_level(logging.WARNING):
        refer(lambda: data)
    assert "2.1 MB" in caplog.text


class _Decorated:
    def __init__(self, fn: object) -> None:
        self.fn = fn


def function() -> int:
    return 1


plain = function
function = _Decorated(plain)  # type: ignore[assignment]
