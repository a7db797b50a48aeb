"""`raysched up`, `down` and `status`, and the runs that find the Ray that is kept."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.commands import Command

SOURCE = """
import os
import time
from pathlib import Path
from raysched import flow, task

@task
def look() -> list[str]:
    return [os.getcwd(), os.environ.get("COLOUR", "")]

@task
def wait_for(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.05)
    return path

@flow
def looking():
    return look()

@flow
def waiting(path: str):
    return wait_for(path)

if __name__ == "__main__":
    print(*looking())
"""

START = [sys.executable, "-m", "raysched", "up", "--num-cpus", "2"]


@pytest.fixture(scope="module")
def kept_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("kept")
    yield home
    down = [sys.executable, "-m", "raysched", "down", "--force"]
    subprocess.run(down, env={**os.environ, "RAYSCHED_HOME": str(home)}, check=True)


@pytest.fixture(scope="module")
def starts(kept_home: Path) -> list[str]:
    """What two who started it at once were told."""
    environment = {**os.environ, "RAYSCHED_HOME": str(kept_home)}
    both = [
        subprocess.Popen(START, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    return told


@pytest.fixture
def kept(
    kept_home: Path,
    starts: list[str],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The path of the record of a Ray that is up; a flow is in the working directory."""
    monkeypatch.setenv("RAYSCHED_HOME", str(kept_home))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "looking.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (record,) = kept_home.glob("ray/*/kept.json")
    return record


def recorded(kept: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def processes(kept: dict[str, Any]) -> list[psutil.Process]:
    """Those that Ray has started: its session, or its address, is in their arguments."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(
            kept["session"] in argument or kept["address"] in argument
            for argument in process.info["cmdline"] or ()
        )
    ]


def backend_of_last_run(raysched: Command) -> str:
    found: str = raysched("runs", "--json").json()[0]["backend"]
    return found


class TestNoneIsUp:
    def test_status_says_what_to_do(self, raysched: Command) -> None:
        done = raysched("status")
        assert done.code == 1
        assert "raysched up starts one" in done.out
        assert raysched("status", "--json").json()["up"] is False

    def test_down_has_nothing_to_end(self, raysched: Command) -> None:
        done = raysched("down")
        assert (done.code, done.err) == (0, "")
        assert "no Ray to end" in done.out
        assert raysched("down", "--json").json() == {"ended": False}

    def test_home_that_cannot_be_written(
        self, raysched: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYSCHED_HOME", "/proc/nowhere")
        done = raysched("up")
        assert (done.code, done.out) == (1, "")
        assert "/proc/nowhere" in done.err
        assert "set RAYSCHED_HOME to a directory of your own" in done.err

    @pytest.mark.parametrize("size", ["much", "1MB"])
    def test_impossible_object_store(self, raysched: Command, size: str) -> None:
        done = raysched("up", "--object-store-memory", size)
        assert (done.code, done.out) == (2, "")
        assert "object_store_memory" in done.err

    def test_record_that_cannot_be_read(self, raysched: Command, home: Path) -> None:
        record = home / "ray" / platform.node() / "kept.json"
        record.parent.mkdir(parents=True)
        record.write_text("{}", encoding="utf-8")
        for command in ("status", "up", "down"):
            done = raysched(command)
            assert (done.code, done.out) == (1, "")
            assert "cannot be read" in done.err


class TestIsUp:
    def test_two_who_start_it_at_once_get_one(self, starts: list[str]) -> None:
        assert sorted("is up already" in told for told in starts) == [False, True]

    @pytest.mark.usefixtures("kept")
    def test_status(self, raysched: Command) -> None:
        status = raysched("status", "--json").json()
        assert (status["up"], status["problem"], status["programs"]) == (True, "", [])
        assert status["resources"]["CPU"] == {"total": 2, "used": 0}
        shown = raysched("status")
        assert shown.code == 0
        assert status["address"] in shown.out
        assert "0 of 2 CPUs" in shown.out

    def test_is_for_this_user_on_this_machine_only(self, kept: Path) -> None:
        secret = [kept, Path(recorded(kept)["token_path"]), Path(recorded(kept)["session"])]
        assert [path.stat().st_mode & 0o077 for path in secret] == [0, 0, 0]
        listening = {
            connection.laddr.ip
            for process in processes(recorded(kept))
            for each in (process, *process.children(recursive=True))
            for connection in each.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}

    @pytest.mark.usefixtures("kept")
    def test_again_with_other_options_is_refused(self, raysched: Command) -> None:
        assert raysched("up").code == 0
        done = raysched("up", "--num-cpus", "3")
        assert (done.code, done.out) == (1, "")
        assert "started with --num-cpus 2, not with --num-cpus 3" in done.err

    @pytest.mark.usefixtures("kept")
    def test_run_has_the_directory_and_variables_of_its_process(
        self, raysched: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLOUR", "green")
        done = raysched("run", "looking.py:looking")
        assert done.code == 0, done.err
        assert f"returned ['{Path.cwd()}', 'green']" in done.out
        assert backend_of_last_run(raysched).endswith("kept by raysched up")

    @pytest.mark.usefixtures("kept")
    def test_script_finds_it_too(self, raysched: Command) -> None:
        done = subprocess.run(
            [sys.executable, "looking.py"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout.split()) == (0, [str(Path.cwd())]), done.stderr
        assert backend_of_last_run(raysched).endswith("kept by raysched up")

    @pytest.mark.usefixtures("kept")
    def test_is_not_ended_while_a_run_uses_it(self, raysched: Command) -> None:
        go = Path("go").resolve()
        command = [sys.executable, "-m", "raysched", "run", "looking.py:waiting"]
        with subprocess.Popen(
            [*command, "--param", f"path={go}"], stdout=subprocess.DEVNULL
        ) as run:
            while not (programs := raysched("status", "--json").json()["programs"]):
                assert run.poll() is None
            assert [each["pid"] for each in programs] == [run.pid]
            done = raysched("down")
            go.touch()
        assert (done.code, done.out) == (1, "")
        assert run.returncode == 0
        assert f"{run.pid}  " in done.err
        assert "raysched down --force" in done.err


class TestIsOfNoUse:
    def test_another_version(self, raysched: Command, kept: Path) -> None:
        before = kept.read_bytes()
        kept.write_text(json.dumps({**recorded(kept), "ray_version": "2.0.0"}), encoding="utf-8")
        try:
            status, up, down = (raysched(command) for command in ("status", "up", "down"))
        finally:
            kept.write_bytes(before)
        assert status.code == 1
        assert "it is Ray 2.0.0, and this is Ray " in status.out
        assert (up.code, up.out) == (1, "")
        assert "End it by `raysched down`" in up.err
        assert (down.code, down.out) == (1, "")
        assert "cannot be seen" in down.err

    def test_another_token(self, raysched: Command, kept: Path) -> None:
        token = Path(recorded(kept)["token_path"])
        before = token.read_bytes()
        token.write_text("f" * 64, encoding="utf-8")
        try:
            status = raysched("status")
        finally:
            token.write_bytes(before)
        assert status.code == 1
        assert "refuses the authentication token" in status.out

    def test_killed_head_is_noticed_replaced_and_ended(self, raysched: Command, kept: Path) -> None:
        first = recorded(kept)
        psutil.Process(first["gcs"]["pid"]).kill()
        status = raysched("status")
        assert status.code == 1
        assert "it has ended without `raysched down`" in status.out
        run = raysched("run", "looking.py:looking")
        assert run.code == 0, run.err
        assert run.err.count("the Ray of `raysched up` is not used") == 1
        assert backend_of_last_run(raysched).endswith("started here")

        assert raysched("up").code == 0
        assert processes(first) == []
        second = recorded(kept)
        assert raysched("down").code == 0
        assert (processes(second), kept.exists()) == ([], False)
        assert not any(Path(each["session"]).exists() for each in (first, second))
        assert raysched("status").code == 1
