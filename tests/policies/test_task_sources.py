"""What changes the digest of a task's code, and what does not."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from raysched.define.sources import source_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

_numbers = count()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., ModuleType]:
    """Return what makes a module of a text, and of others that it imports."""

    def load(text: str, **others: str) -> ModuleType:
        # A directory of its own, as Python remembers what it has found in one.
        directory = tmp_path / str(next(_numbers))
        directory.mkdir()
        for name, other in others.items():
            (directory / f"{name}.py").write_text(dedent(other))
        file = directory / "work.py"
        file.write_text(dedent(text))
        spec = spec_from_file_location("work", file)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        before = dict(sys.modules), list(sys.path)
        sys.modules["work"] = module
        sys.path.insert(0, str(directory))
        for name in others:
            sys.modules.pop(name, None)
        try:
            spec.loader.exec_module(module)
            # Looked at here, as what it imports is found by the path.
            module.digest = source_digest(module.f)  # type: ignore[attr-defined]
        finally:
            sys.path[:] = before[1]
            for name in others:
                sys.modules.pop(name, None)
        return module

    return load


BASE = """
    LIMIT = 3
    WORDS = {"one", "two", "three"}

    def f(x):
        return helper(x) + LIMIT + len(WORDS)

    def helper(x):
        return deeper(x) + 1

    def deeper(x):
        return x * 2
"""

SAME = {
    "moved lines": BASE.replace("def f", "\n\n\n    def f"),
    "a comment": BASE.replace("return helper", "# why\n        return helper"),
    "a docstring": BASE.replace("return helper", '"""Say it."""\n        return helper'),
    "a docstring of a helper": BASE.replace("return deeper", '"""So."""\n        return deeper'),
    "formatting": BASE.replace(
        "helper(x) + LIMIT", "(\n        helper(\n            x\n        )\n        + LIMIT)"
    ),
    "an annotation": BASE.replace("def f(x):", "def f(x: int) -> int:"),
    "something else": BASE + "\n    def other():\n        return 1\n",
    "the order of definitions": BASE.replace("    LIMIT = 3\n", "") + "\n    LIMIT = 3\n",
    "the order of a set": BASE.replace('"one", "two"', '"two", "one"'),
}

DIFFERENT = {
    "the body": BASE.replace("+ LIMIT", "- LIMIT"),
    "a helper": BASE.replace("+ 1", "+ 2"),
    "a helper's helper": BASE.replace("x * 2", "x * 3"),
    "a constant": BASE.replace("LIMIT = 3", "LIMIT = 4"),
    "the type of a constant": BASE.replace("LIMIT = 3", "LIMIT = 3.0"),
    "an element of a set": BASE.replace('"three"', '"four"'),
    "a parameter's name": BASE.replace(
        "def deeper(x):\n        return x", "def deeper(y):\n        return y"
    ),
    "a default": BASE.replace("def helper(x)", "def helper(x, y=1)"),
    "a constant that is a function now": BASE.replace("LIMIT = 3", "LIMIT = len"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_these_are_no_changes(load: Callable[..., Any], text: str) -> None:
    assert load(text).digest == load(BASE).digest


@pytest.mark.parametrize("text", DIFFERENT.values(), ids=DIFFERENT)
def test_these_are_changes(load: Callable[..., Any], text: str) -> None:
    assert load(text).digest != load(BASE).digest


def test_names_of_local_variables_do_not_count(load: Callable[..., Any]) -> None:
    text = """
    def f(x):
        total = [part for part in range(x)]
        def inner():
            return total
        return inner()
    """
    renamed = text.replace("total", "every").replace("part", "each")
    assert load(renamed).digest == load(text).digest


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("class C:\n    def run(self):\n        return 1\ndef f(): return C().run()", "1", "2"),
        ("class C:\n    size = 1\ndef f(): return C.size", "1", "2"),
        ("class B:\n    size = 1\nclass C(B): pass\ndef f(): return C()", "1", "2"),
        ("class C:\n    @property\n    def a(self): return 1\ndef f(): return C().a", "1", "2"),
        ("class C:\n    @staticmethod\n    def a(): return 1\ndef f(): return C.a()", "1", "2"),
        ("class C:\n    one: int\ndef f(): return C()", "int", "str"),
        (
            (
                "from dataclasses import dataclass\n@dataclass\nclass C:\n    n: int = 1\n"
                "def f(): return C()"
            ),
            "1",
            "2",
        ),
        (
            (
                "from pydantic import BaseModel\nclass C(BaseModel):\n    n: int = 1\n"
                "def f(): return C()"
            ),
            "1",
            "2",
        ),
        ("from enum import Enum\nclass C(Enum):\n    A = 1\ndef f(): return C.A", "1", "2"),
        ("class C:\n    n = 1\nc = C()\nc.m = 5\ndef f(): return c", "5", "6"),
        ("from functools import cache\n@cache\ndef g(): return 1\ndef f(): return g()", "1", "2"),
        (
            (
                "from functools import partial\ndef g(x): return x\nh = partial(g, 1)\n"
                "def f(): return h()"
            ),
            "1",
            "2",
        ),
        ("g = lambda x: x + 1\ndef f(): return g(1)", "x + 1", "x + 2"),
        ("def g(): return 1\nWAYS = {'a': g}\ndef f(): return WAYS['a']()", "1", "2"),
        ("def g(): return 1\ndef f(x=g): return x()", "1", "2"),
        ("def make(n):\n    def f(): return n\n    return f\nf = make(1)", "make(1)", "make(2)"),
        ("def f():\n    def g(): return h()\n    return g()\ndef h(): return 1", "1", "2"),
        ("def f(n): return f(n - 1) if n else g(n)\ndef g(n): return f(n) + 1", "+ 1", "+ 2"),
        ("async def f(): return await g()\nasync def g(): return 1", "1", "2"),
        ("def f(x): return x in {'a', 'b'}", "'b'", "'c'"),
        (
            (
                "def log(fn):\n    def g(*a): return fn(*a)\n    return g\n"
                "@log\ndef h(x): return x + 1\ndef f(): return h(1)"
            ),
            "x + 1",
            "x + 2",
        ),
        ("from raysched import task\n@task\ndef g(): return 1\ndef f(): return g()", "1", "2"),
        (
            (
                "from contextlib import contextmanager\n@contextmanager\ndef g():\n    yield 1\n"
                "def f():\n    with g() as x: return x"
            ),
            "1",
            "2",
        ),
    ],
)
def test_what_is_reached_counts(
    load: Callable[..., Any], text: str, before: str, after: str
) -> None:
    changed = after.join(text.rsplit(before, 1))
    assert changed != text
    assert load(text).digest == load(text).digest
    assert load(changed).digest != load(text).digest


def test_a_helper_in_another_module_counts_and_its_neighbours_do_not(
    load: Callable[..., Any],
) -> None:
    text = "import helpers\ndef f(): return helpers.clean()"
    helpers = "def clean(): return 1\ndef other(): return 1"
    digest = load(text, helpers=helpers).digest
    assert load(text, helpers=helpers.replace("clean(): return 1", "clean(): return 2")).digest != (
        digest
    )
    assert load(text, helpers=helpers.replace("other(): return 1", "other(): return 2")).digest == (
        digest
    )


@pytest.mark.parametrize("how", ["import helpers", "from helpers import clean"])
def test_a_module_that_is_imported_in_the_function_counts_as_a_whole(
    load: Callable[..., Any], how: str
) -> None:
    text = f"def f():\n    {how}\n    return 1"
    helpers = '"""Docs."""\nimport deep\ndef clean(): return 1'
    digest = load(text, helpers=helpers, deep="A = 1").digest
    again = helpers.replace("Docs", "Other docs").replace("def", "\n\n\ndef")
    assert load(text, helpers=again, deep="A = 1").digest == digest
    changed = helpers.replace("return 1", "return 2")
    assert load(text, helpers=changed, deep="A = 1").digest != digest
    assert load(text, helpers=helpers, deep="A = 2").digest != digest


def test_options_of_the_task_do_not_count(load: Callable[..., Any]) -> None:
    text = "from raysched import task\n@task\ndef f(): return 1\nf = f.fn"
    assert load(text.replace("@task", "@task(retries=3)")).digest == load(text).digest


def test_a_library_counts_by_its_version(
    load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pydantic

    text = "import pydantic\ndef f(): return pydantic.BaseModel"
    digest = load(text).digest
    monkeypatch.setattr(pydantic, "__version__", "99")
    assert load(text).digest != digest


def test_a_method_counts_with_its_class(load: Callable[..., Any]) -> None:
    text = "class C:\n    def f(self): return self.g()\n    def g(self): return 1\nf = C.f"
    assert load(text.replace("return 1", "return 2")).digest != load(text).digest


def test_what_cannot_be_pickled_counts_by_its_class(load: Callable[..., Any]) -> None:
    text = "import threading\nlock = threading.Lock()\ndef f():\n    with lock: return 1"
    assert load(text).digest == load(text).digest


def test_a_container_that_holds_itself_ends(load: Callable[..., Any]) -> None:
    text = "a = [1]\na.append(a)\ndef f(): return a"
    assert load(text).digest == load(text).digest
    assert load(text.replace("[1]", "[2]")).digest != load(text).digest


def test_a_name_that_stands_for_something_else_is_noticed(load: Callable[..., Any]) -> None:
    module = load(BASE)
    module.LIMIT = 5
    assert source_digest(module.f) != module.digest
    module.LIMIT = 3
    assert source_digest(module.f) == module.digest


def test_all_processes_agree(load: Callable[..., Any], tmp_path: Path) -> None:
    expected = load(BASE).digest
    (tmp_path / "work.py").write_text(dedent(BASE))
    program = (
        "import work; from raysched.define.sources import source_digest as d; print(d(work.f))"
    )
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join([str(tmp_path), *sys.path])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == expected


def test_what_is_captured_anew_is_noticed() -> None:
    step = 1

    def f() -> int:
        return step

    before = source_digest(f)
    step = 2
    assert source_digest(f) != before
    step = 1
    assert source_digest(f) == before


def test_a_script_has_the_digest_of_its_module(tmp_path: Path) -> None:
    text = """
        from dataclasses import dataclass
        from enum import Enum
        from raysched.define.sources import source_digest

        class Colour(Enum):
            RED = 1

        @dataclass
        class Options:
            n: int = 3

        OPTIONS = Options(4)

        def f(x):
            return x * OPTIONS.n, Colour.RED

        print(source_digest(f))
    """
    (tmp_path / "script.py").write_text(dedent(text))
    digests = {
        subprocess.run(
            [sys.executable, *how], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for how in (["script.py"], ["-c", "import script"], ["-m", "script"])
    }
    assert len(digests) == 1
