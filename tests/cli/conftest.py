"""A home of its own for each test, flows to run, and the command in this process or in another."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import Command, Done
from raysched.settings import settings

FLOWS = '''
import helper
from raysched import flow, get_run_logger, task


@task(retries=1)
def parse(number: int) -> int:
    get_run_logger().info("parsing %d", number)
    if number == 3:
        raise ValueError(f"cannot parse {number}")
    return helper.double(number)


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@flow
def adding(n: int = 3, name: str = "x") -> int:
    """Add numbers."""
    get_run_logger().warning("adding %d for %s", n, name)
    return total.submit(parse.map(range(n))).result()
'''


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [name for name in os.environ if name.startswith(("RAYSCHED_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a flow and a module that it imports."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "sums.py").write_text(FLOWS, encoding="utf-8")
    (folder / "helper.py").write_text("def double(x):\n    return 2 * x\n", encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def own_imports(tmp_path: Path) -> Iterator[None]:
    """What a test imports of its own is forgotten afterwards."""
    path = sys.path.copy()
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def looking() -> Command:
    """Runs a command that only looks, in this process."""

    def run(*arguments: str) -> Done:
        from raysched.cli.app import app

        result = CliRunner().invoke(app, arguments, prog_name="raysched")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def raysched() -> Command:
    """Runs a command in a process of its own, as people do."""

    def run(*arguments: str | Path, stdin: str | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "raysched", *map(str, arguments)],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run
