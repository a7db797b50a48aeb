"""`debug`: task runs that failed, again in a process of their own."""

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from cli.commands import Command

FLOW = """
import asyncio
import ctypes
import json
import os
import threading
from helper import parse
from raysched import flow, get_run_logger, runtime, task


@task
def extract(n: int) -> dict:
    return {"n": n, "rows": [1, 2, n]}


@task(retries=1)
def load(data: dict, table: str = "usage", *, scale: int = 1, password: str = "") -> int:
    get_run_logger().warning("loading %d", data["n"])
    rows = extract(data["n"])["rows"]
    if data["n"] == 3:
        broken = "{"
        return json.loads(broken)
    return sum(rows) * scale


@task
async def later(values: list, failure: Exception | None = None) -> int:
    await asyncio.sleep(0)
    number = len(values)
    raise ValueError(f"too many: {number} {failure!r}")


@task(persist_result=False)
def secret() -> str:
    return "hidden"


@task
def use(value: str, path: str = "flag") -> str:
    from pathlib import Path

    if not Path(path).exists():
        raise OSError(f"no {path}")
    return value.upper()


@task(check=lambda rows: len(rows) > 0)
def checked() -> list:
    return []


@task
def adding(numbers: list[int]) -> int:
    raise ValueError(f"{numbers!r}")


@task
def asking() -> None:
    raise ValueError(runtime.flow_run.parameters)


@task
def lock() -> object:
    return threading.Lock()


@task
def nesting() -> str:
    adding.submit([9])
    return "not looked at"


@task
def dying() -> None:
    if "DIE" in os.environ:
        ctypes.string_at(0)
    raise ValueError


def not_empty(rows: list) -> None:
    first = rows[0]


@task(check=not_empty)
def looked_at() -> list:
    return []


@task
def large(data: bytes) -> None:
    raise ValueError(len(data))


@flow
def nightly(broken: bool = True):
    from raysched import allow_failure

    data = extract.map(range(5))
    loaded = load.map(data, scale=2, password="hush-hush")
    use.submit("plain").wait()
    use.submit(secret.submit()).wait()
    later.submit(data, failure=allow_failure(loaded[3])).wait()
    parse.submit("x").wait()
    asking.submit().wait()
    some = parse.map(["1", "x", "3"], min_success=0.5)
    adding.submit(some).wait()
    adding.submit(parse.map(["5", "6"], min_success=1)).wait()
    adding.submit(parse.map(["7", "8"])).wait()
    for each in checked, lock, nesting, dying, looked_at:
        each.submit().wait()
    large.submit(bytes(2 * 1024**2)).wait()
    parse.submit(loaded[3]).wait()

    @task
    def local() -> None:
        raise ValueError

    local.submit().wait()
"""

HELPER = """
from raysched import task


@task
def parse(text: str) -> int:
    return int(text)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a flow that has run, and failed in many ways."""
    folder = tmp_path_factory.mktemp("shop")
    lay_out(folder)
    run(folder, "-m", "raysched", "run", "flow.py")
    return folder


def lay_out(folder: Path) -> None:
    for name, text in {"flow": FLOW, "helper": HELPER}.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def run(folder: Path, *arguments: str) -> None:
    environment = os.environ | {"RAYSCHED_HOME": str(folder), "RAYSCHED_BACKEND": "inline"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True)
    assert done.returncode == 1, done.stderr


@pytest.fixture
def failed(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory from which that run is looked at."""
    monkeypatch.setenv("RAYSCHED_HOME", str(shop))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def digest() -> bytes:
    database = Path(os.environ["RAYSCHED_HOME"], "raysched.db")
    return hashlib.sha256(database.read_bytes()).digest()


def type_in(raysched: Command, *arguments: str, lines: str) -> str:
    """Answers the debugger by these lines; returns all that it said."""
    before = digest()
    done = raysched("debug", "last", *arguments, stdin=textwrap.dedent(lines))
    assert done.code == 1
    assert digest() == before
    return done.out + done.err


@pytest.mark.usefixtures("failed")
class TestDebugger:
    def test_opens_where_the_check_raised(self, raysched: Command) -> None:
        told = type_in(raysched, "looked_at", lines="p 'here', rows\nq\n")
        assert "('here', [])" in told

    def test_opens_at_the_users_innermost_frame(self, raysched: Command) -> None:
        told = type_in(raysched, "load[3]", lines="p broken, data, scale\nq\n")
        assert "('{', {'n': 3, 'rows': [1, 2, 3]}, 2)" not in told.split("(Pdb)")[0]
        assert "'{'" in told
        assert "{'n': 3, 'rows': [1, 2, 3]}" in told
        # As in the run: its logger, and the task that it calls.
        assert "WARNING loading 3" in told

    def test_opens_where_an_async_function_raised(self, raysched: Command) -> None:
        told = type_in(raysched, "later", lines="p number\np type(failure)\nq\n")
        assert "ValueError: too many: 5 JSONDecodeError" in told
        assert "<class 'json.decoder.JSONDecodeError'>" in told

    @pytest.mark.parametrize("key", ["load[3]", "later"])
    def test_stops_at_the_start_of_the_function(self, raysched: Command, key: str) -> None:
        told = type_in(raysched, key, "--trace", lines="p 'here', 6 * 7\nq\n")
        stopped, answer, *_ = told.split("(Pdb)")
        assert "get_run_logger" in stopped if key == "load[3]" else "await" in stopped
        assert "('here', 42)" in answer
        assert "the debugger was left" in told

    def test_may_go_on_from_the_start_to_where_it_raises(self, raysched: Command) -> None:
        told = type_in(raysched, "load[3]", "--trace", lines="c\np broken\nq\n")
        assert "'{'" in told
        assert "JSONDecodeError" in told


@pytest.mark.usefixtures("failed")
class TestWithoutDebugger:
    def test_tells_the_arguments_and_the_traceback_of_the_users_code(
        self, raysched: Command
    ) -> None:
        done = raysched("debug", "last", "load[3]", "--no-debugger")
        assert done.code == 1
        assert "load[3] of nightly" in done.err
        assert "data = {'n': 3, 'rows': [1, 2, 3]}" in done.err
        assert "table = 'usage'" in done.err
        assert "hush-hush" not in done.err
        assert f"raysched{os.sep}" not in done.err.partition("Traceback")[2]

    def test_that_goes_well_this_time_says_so(self, raysched: Command, failed: Path) -> None:
        (failed / "flag").touch()
        done = raysched("debug", "last", "use[0]")
        assert (done.code, "went well this time, and returned 'PLAIN'" in done.err) == (0, True)

    def test_finds_tasks_of_other_modules(self, raysched: Command) -> None:
        done = raysched("debug", "last", "parse[0]", "--no-debugger")
        assert "ValueError: invalid literal for int() with base 10: 'x'" in done.err

    @pytest.mark.parametrize(
        ("key", "told"),
        [
            ("adding[0]", "ValueError: Successes([1, 3], failures=[ValueError("),
            ("adding[1]", "ValueError: Successes([5, 6], failures=[])"),
            ("adding[2]", "ValueError: [7, 8]"),
        ],
    )
    def test_gathers_maps_as_the_run_did(self, raysched: Command, key: str, told: str) -> None:
        assert told in raysched("debug", "last", key, "--no-debugger").err

    def test_knows_the_run_that_it_belongs_to(self, raysched: Command) -> None:
        told = raysched("debug", "last", "asking", "--no-debugger").err
        assert "ValueError: {'broken': True}" in told

    def test_asks_the_check_too(self, raysched: Command) -> None:
        done = raysched("debug", "last", "checked", "--no-debugger")
        assert (done.code, "CheckFailed" in done.err) == (1, True)

    @pytest.mark.parametrize(
        ("key", "told"),
        [
            ("lock", "SerializationError: the result of task 'lock' cannot be pickled"),
            ("nesting", "nesting[0] returned, but what it called did not end well"),
            ("checked", "CheckFailed: the result of checked[0] is refused by check=<lambda>"),
        ],
    )
    def test_what_no_own_code_raised_is_told_without_a_debugger(
        self, raysched: Command, key: str, told: str
    ) -> None:
        done = raysched("debug", "last", key, stdin="")
        assert (done.code, told in done.err, "(Pdb)" in done.out) == (1, True, False)
        assert "Traceback" not in done.err

    def test_crash_in_native_code_says_where(
        self, raysched: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DIE", "")
        done = raysched("debug", "last", "dying", "--no-debugger")
        assert done.code == -signal.SIGSEGV
        assert re.search(r'flow\.py", line \d+ in dying', done.err)

    @pytest.mark.parametrize(
        ("evidence", "how"),
        [({"signal": "SIGSEGV"}, " (SIGSEGV)"), ({"exit_code": 7}, " (exit code 7)"), ({}, "")],
    )
    def test_of_one_whose_worker_died_warns(  # noqa: PLR0913 - four fixtures
        self,
        raysched: Command,
        shop: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        evidence: dict[str, object],
        how: str,
    ) -> None:
        home = tmp_path / "home"
        shutil.copytree(shop, home)
        with closing(sqlite3.connect(home / "raysched.db")) as connection, connection:
            connection.execute(
                "UPDATE attempt SET error_kind = 'worker died', error_evidence = ?",
                (json.dumps(evidence),),
            )
        monkeypatch.setenv("RAYSCHED_HOME", str(home))
        monkeypatch.chdir(tmp_path)
        done = raysched("debug", "last", "dying", "--no-debugger")
        assert f"! its worker died{how}; if that happens again" in done.err

    def test_takes_the_flow_from_where_it_is_now(self, raysched: Command, failed: Path) -> None:
        moved = FLOW.replace("json.loads(broken)", "1 / 0")
        (failed / "moved.py").write_text(moved, encoding="utf-8")
        (failed / "helper.py").write_text(HELPER, encoding="utf-8")
        done = raysched("debug", "last", "load[3]", "--no-debugger", "--target", "moved.py")
        assert "ZeroDivisionError" in done.err


@pytest.mark.usefixtures("failed")
class TestRefusals:
    @pytest.mark.parametrize(
        ("key", "told"),
        [
            ("extract[1]", "COMPLETED: only of task runs that failed for good the arguments"),
            ("parse[8]", "never ran, because of load[3]: look at that"),
            ("use[1]", "secret[0] completed, but its value was not kept: the task has persist_res"),
            ("large", "its arguments were not kept, which happens where they have more than 1 MiB"),
            ("local", "a task that is made within a function cannot be found"),
        ],
    )
    def test_say_what_is_missing(self, raysched: Command, key: str, told: str) -> None:
        done = raysched("debug", "last", key)
        assert done.code in {1, 2}
        assert told.lower() in done.err.lower()

    def test_of_a_run_without_a_target(
        self, raysched: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lay_out(tmp_path)
        run(tmp_path, "-c", f"{FLOW}\nnightly()\n")
        monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
        done = raysched("debug", "last", "load[3]")
        assert (done.code, "--target file.py:flow" in done.err) == (2, True)
