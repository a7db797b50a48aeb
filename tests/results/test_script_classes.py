"""Results of classes that the flow's file defines, in processes that know it by other names."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCRIPT = '''
import enum
import os
import sys
from dataclasses import dataclass

from raysched import flow, task


class Colour(enum.Enum):
    RED = 1


@dataclass
class Row:
    number: int
    colour: Colour


def check(value):
    """Fail unless the classes are those of this module."""
    row, _ = value
    assert type(row) is Row, (type(row), Row)
    assert row == Row(row.number, Colour.RED)
    assert row.colour is Colour.RED


@task
def make(number, size):
    with open(f"made-{number}-{size}-{os.getpid()}", "w"):
        pass
    return Row(number, Colour.RED), b"x" * size


@task
def use(values, one):
    for value in (*values, one):
        check(value)
    if os.path.exists("fail"):
        raise RuntimeError("told to")
    return sum(row.number for row, _ in values)


@flow
def rows():
    small = make.map([1, 2], [10, 10])
    large = make.map([3, 4], [100_000, 100_000])
    both = [*small, *large]
    total = use.submit(both, large[0])
    for future in both:
        check(future.result())
    return total.result()


if __name__ == "__main__":
    print("returned", rows.resume("last") if sys.argv[1:] else rows())
'''

RAYSCHED = (sys.executable, "-m", "raysched")

Commands: TypeAlias = "dict[str, Callable[[str], tuple[str, ...]]]"

BEGIN: Commands = {
    "script": lambda file: (sys.executable, file),
    "command": lambda file: (*RAYSCHED, "run", file),
    "module": lambda file: (sys.executable, "-m", file.removesuffix(".py")),
}
GO_ON: Commands = {
    "script": lambda file: (sys.executable, file, "resume"),
    "command": lambda file: (*RAYSCHED, "resume", "last", file),
    "module": lambda file: (sys.executable, "-m", file.removesuffix(".py"), "resume"),
}
INLINE = [(first, then, "rows_of.py", "inline") for first in BEGIN for then in GO_ON]
# A file that cannot be imported under its own name, and functions that travel to other processes.
OTHERS = [
    ("script", "command", "rows.of.py", "inline"),
    ("command", "script", "rows.of.py", "inline"),
    ("script", "command", "rows_of.py", "ray"),
    ("command", "script", "rows_of.py", "ray"),
    ("command", "script", "rows.of.py", "ray"),
]


@pytest.mark.parametrize(("first", "then", "file", "backend"), [*INLINE, *OTHERS])
def test_results_are_of_the_classes_of_the_file(
    tmp_path: Path, first: str, then: str, file: str, backend: str
) -> None:
    (tmp_path / file).write_text(SCRIPT)
    (tmp_path / "fail").touch()
    environment = {
        **os.environ,
        "RAYSCHED_HOME": str(tmp_path / "home"),
        "RAYSCHED_BACKEND": backend,
        "RAYSCHED_ADDRESS": "local" if backend == "ray" else "",
    }

    def run(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    failed = run(BEGIN[first](file))
    assert "RuntimeError: told to" in failed.stdout + failed.stderr
    made = list(tmp_path.glob("made-*"))
    assert len(made) == 4
    (tmp_path / "fail").unlink()
    for path in made:
        path.unlink()
    done = run(GO_ON[then](file))
    assert "returned 10" in " ".join(done.stdout.split()), done.stdout + done.stderr
    assert list(tmp_path.glob("made-*")) == []


OLDER = """
import os

from models import Old, make_old
from raysched import flow, task


@task
def make(number, size):
    with open(f"made-{number}", "w"):
        pass
    return make_old(number), b"x" * size


@task
def use(values):
    if os.path.exists("fail"):
        raise RuntimeError("told to")
    return sum(old.number for old, _ in values)


@flow
def olds():
    values = make.map([1, 2, 3], [10, 10, 100_000])
    total = use.submit(values)
    total.wait()
    return total.result() + sum(future.result()[0].number for future in values)
"""

MODELS = """
class {name}:
    def __init__(self, number):
        self.number = number


Old = {name}


def make_old(number):
    return {name}(number)
"""


def test_results_of_a_class_that_is_gone_are_made_again(tmp_path: Path) -> None:
    (tmp_path / "flow_of_olds.py").write_text(OLDER)
    (tmp_path / "models.py").write_text(MODELS.format(name="First"))
    (tmp_path / "fail").touch()
    environment = {
        **os.environ,
        "RAYSCHED_HOME": str(tmp_path / "home"),
        "RAYSCHED_BACKEND": "inline",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(*command: str) -> str:
        ran = subprocess.run(
            (*RAYSCHED, *command),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return " ".join((ran.stdout + ran.stderr).split())

    assert "told to" in run("run", "flow_of_olds.py")
    (tmp_path / "fail").unlink()
    (tmp_path / "models.py").write_text(MODELS.format(name="Second"))
    for made in tmp_path.glob("made-*"):
        made.unlink()
    told = run("resume", "last", "flow_of_olds.py")
    assert "returned 12" in told
    assert "computed again" in told
    assert sorted(path.name for path in tmp_path.glob("made-*")) == ["made-1", "made-2", "made-3"]
