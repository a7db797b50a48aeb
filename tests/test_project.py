"""What the project as a whole promises: what its import costs, its size, how it is packaged."""

from __future__ import annotations

import ast
import fnmatch
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from raysched.settings import variables

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
SOURCES = sorted(
    path
    for folder in ("raysched", "examples", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)

RAYSCHED = Path(sysconfig.get_path("scripts")) / "raysched"

INSTALL_AND_RUN = 'pip install -e ".[examples]" && raysched run examples/flights/flow.py'
INSTALL_AND_TEST = 'pip install -e ".[dev]" && pytest'


def run(*command: str | Path, **environment: str) -> str:
    """Runs a command away from the checkout, so that only the installed package can be found."""
    done = subprocess.run(
        command,
        cwd="/",
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def normalised(requirement: str) -> str:
    """The name in a requirement or a pin, as package indexes compare names."""
    name = re.split(r"[\[<>=!~ ;]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


class TestImport:
    HEAVY = frozenset(
        {"alembic", "numpy", "opentelemetry", "ray", "rich", "sqlalchemy", "sqlmodel", "typer"}
    )

    def test_loads_nothing_heavy(self) -> None:
        loaded = run(sys.executable, "-c", "import sys, raysched; print(*sys.modules)").split()
        assert "raysched" in loaded
        assert self.HEAVY.isdisjoint(loaded)

    def test_every_public_name_is_there(self) -> None:
        probe = "import raysched; [getattr(raysched, name) for name in raysched.__all__]"
        run(sys.executable, "-W", "error", "-c", probe)


class TestCommand:
    def test_module_and_script_agree_on_the_version(self) -> None:
        said = run(RAYSCHED, "--version")
        assert version("raysched") in said
        assert run(sys.executable, "-m", "raysched", "--version") == said

    def test_installed_version_is_the_one_of_the_project(self) -> None:
        assert version("raysched") == PROJECT["version"]


class TestSize:
    def test_modules_have_at_most_400_lines(self) -> None:
        lines = {name_of(path): len(read(path).splitlines()) for path in SOURCES}
        assert {name: count for name, count in lines.items() if count > 400} == {}

    def test_functions_have_at_most_50_lines(self) -> None:
        """Counts the code, not the signature and not the docstring."""
        lines = {
            f"{name_of(path)}:{node.lineno} {node.name}": code_lines(node)
            for path in SOURCES
            for node in ast.walk(ast.parse(read(path)))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert {name: count for name, count in lines.items() if count > 50} == {}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    if not body:
        return 0
    return (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1


class TestLayout:
    ALLOWED = frozenset(
        {
            "LICENSE",
            "README.md",
            "benchmarks",
            "cluster",
            "docs",
            "examples",
            "pyproject.toml",
            "raysched",
            "tests",
        }
    )

    def test_top_level_holds_nothing_else(self) -> None:
        ignored = [
            line.strip("/")
            for line in read(ROOT / ".gitignore").splitlines()
            if line and not line.startswith("#")
        ]
        found = {
            entry.name
            for entry in ROOT.iterdir()
            if not entry.name.startswith(".")
            and not any(fnmatch.fnmatch(entry.name, pattern) for pattern in ignored)
        }
        assert found <= self.ALLOWED

    def test_types_are_shipped(self) -> None:
        assert (ROOT / "raysched" / "py.typed").is_file()


class TestReadme:
    @pytest.mark.parametrize("command", [INSTALL_AND_RUN, INSTALL_AND_TEST])
    def test_has_the_commands(self, command: str) -> None:
        assert command in read(ROOT / "README.md").splitlines()

    def test_example_runs(self, tmp_path: Path) -> None:
        (example,) = re.findall(r"```python\n(.+?)```", read(ROOT / "README.md"), re.DOTALL)
        (tmp_path / "words.py").write_text(example, encoding="utf-8")
        for name in ("one.md", "two.md"):
            (tmp_path / name).write_text("some words to count", encoding="utf-8")
        home = {"RAYSCHED_HOME": str(tmp_path / "home")}
        target = tmp_path / "words.py"
        run(RAYSCHED, "run", target, "--backend", "inline", "--param", f"folder={tmp_path}", **home)
        (words,) = json.loads(run(RAYSCHED, "runs", "--json", **home))
        assert (words["flow"], words["state"]) == ("words", "COMPLETED")
        assert words["tasks"] == {"COMPLETED": 4}

    def test_checks_call_the_test_command(self) -> None:
        checks = read(ROOT / ".ci" / "run")
        assert INSTALL_AND_TEST in map(str.strip, checks.splitlines())

    def test_links_lead_somewhere(self) -> None:
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", read(ROOT / "README.md"))
        assert links
        assert [link for link in links if not (ROOT / link).exists()] == []

    def test_every_setting_is_told_of(self) -> None:
        told = read(ROOT / "docs/index.md")
        for_tests = {"RAYSCHED_FAULT_POINTS", "RAYSCHED_FUSION", "RAYSCHED_UNIT_SIZE"}
        missing = {name for name in variables() if f"`{name}`" not in told}
        assert missing == for_tests

    def test_changelog_tells_of_the_version(self) -> None:
        changelog = read(ROOT / "docs" / "changelog.md")
        assert re.search(rf"^## \[?{re.escape(PROJECT['version'])}\b", changelog, re.MULTILINE)


class TestDependencies:
    requirements = sorted(
        {
            requirement
            for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
            for requirement in group
            if normalised(requirement) != PROJECT["name"]
        }
    )
    pins = tuple(read(ROOT / ".ci" / "constraints.txt").splitlines())

    @pytest.mark.parametrize("requirement", requirements)
    def test_have_a_lower_and_an_upper_bound(self, requirement: str) -> None:
        assert re.fullmatch(r"[\w.-]+(\[\w+\])?>=[\d.]+(a\d+)?,<[\d.]+", requirement)

    def test_checks_run_on_exact_versions(self) -> None:
        strange = [pin for pin in self.pins if not re.fullmatch(r"[\w.-]+==[\w.+]+", pin)]
        assert strange == []

    @pytest.mark.parametrize("requirement", requirements)
    def test_checks_pin_every_requirement(self, requirement: str) -> None:
        assert normalised(requirement) in map(normalised, self.pins)

    def test_exceptions_from_lint_rules_have_a_reason(self) -> None:
        text = read(ROOT / "pyproject.toml")
        rules = re.findall(r'^  "[A-Z]+\d*",.*$', text, re.MULTILINE)
        assert rules
        assert [rule for rule in rules if not re.search(r"# \S", rule)] == []
