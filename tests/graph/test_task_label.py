"""What tells tasks apart in digests, also those of one name."""

import sys
from collections.abc import Callable
from functools import partial, wraps
from threading import Lock
from types import ModuleType
from typing import Any

import pytest

from raysched.graph.digest import task_label


def made(factor: int) -> Callable[[int], int]:
    def scaled(x: int) -> int:
        return x * factor

    return scaled


def in_module(monkeypatch: pytest.MonkeyPatch, name: str, file: str, body: str) -> Any:
    """Return the function `work` of a module with this code."""
    module = ModuleType(name)
    module.__file__ = file
    monkeypatch.setitem(sys.modules, name, module)
    exec(f"def work(x):\n    return {body}\n", module.__dict__)  # noqa: S102 - the test's own text
    return module.work


def test_is_the_same_for_a_script_and_for_the_module_that_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = in_module(monkeypatch, "__main__", "/here/f.py", "x")
    module = in_module(monkeypatch, "package.f", "/here/package/f.py", "x")
    assert task_label("work", script) == task_label("work", module)


def test_outlives_a_change_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = in_module(monkeypatch, "f", "/here/f.py", "x")
    after = in_module(monkeypatch, "f", "/here/f.py", "x + 1")
    assert task_label("work", before) == task_label("work", after)


def test_differs_between_files(monkeypatch: pytest.MonkeyPatch) -> None:
    one = in_module(monkeypatch, "load", "/here/load.py", "x")
    other = in_module(monkeypatch, "clean", "/here/clean.py", "x")
    assert task_label("work", one) != task_label("work", other)


def test_differs_between_names_of_one_function() -> None:
    assert task_label("one", made) != task_label("other", made)


def test_differs_between_what_a_function_captures() -> None:
    assert task_label("scaled", made(2)) != task_label("scaled", made(3))
    assert task_label("scaled", made(2)) == task_label("scaled", made(2))


def test_differs_between_lambdas() -> None:
    labels = [task_label("lambda", fn) for fn in (lambda x: x + 1, lambda x: x - 1)]
    assert labels[0] != labels[1]


def test_differs_between_what_objects_are_made_of() -> None:
    one, other = partial(made, 1), partial(made, 2)
    assert task_label("made", one) != task_label("made", other)
    assert task_label("made", one) == task_label("made", partial(made, 1))


def test_looks_through_wrappers() -> None:
    @wraps(in_module)
    def wrapper(*args: Any) -> Any:
        return in_module(*args)

    assert task_label("work", wrapper) == task_label("work", in_module)


def test_of_what_captures_something_unspeakable_is_by_name() -> None:
    lock = Lock()

    def locked() -> bool:
        return bool(lock.locked())

    assert task_label("locked", locked) == task_label("locked", locked)
