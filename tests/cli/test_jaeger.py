"""`raysched jaeger`, with programs that answer as Jaeger does; the real one where there is one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli import fake_jaeger
from cli.commands import Command
from raysched.telemetry import jaeger

REAL = shutil.which(os.environ.get("RAYSCHED_JAEGER", "jaeger"))


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which programs are found."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    return directory


@pytest.fixture(autouse=True)
def ended(raysched: Command, home: Path) -> Iterator[None]:
    yield
    if jaeger.record_path(home).exists():
        raysched("jaeger", "--stop")


def install(directory: Path, name: str, source: str = "") -> Path:
    script = directory / name
    source = source or Path(fake_jaeger.__file__).read_text(encoding="utf-8")
    script.write_text(f"#!{sys.executable}\n{source}", encoding="utf-8")
    script.chmod(0o755)
    return script


def calls(directory: Path) -> list[list[str]]:
    lines = (directory / "calls").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def start(raysched: Command, *options: str) -> Any:
    done = raysched("jaeger", "--json", *options)
    assert done.code == 0, done.err
    return done.json()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


class TestNoneIsThere:
    def test_says_how_to_get_one(self, raysched: Command) -> None:
        done = raysched("jaeger")
        assert (done.code, done.out) == (1, "")
        assert "https://www.jaegertracing.io/download/" in done.err
        assert "Docker or Podman" in done.err

    def test_engine_that_does_not_answer_is_named(self, raysched: Command, path: Path) -> None:
        install(path, "docker", "raise SystemExit('no daemon')")
        done = raysched("jaeger")
        assert done.code == 1
        assert "docker: installed, but no engine answers" in done.err

    def test_variable_that_names_no_program(
        self, raysched: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYSCHED_JAEGER", "/nowhere/jaeger")
        done = raysched("jaeger")
        assert (done.code, done.out) == (1, "")
        assert "RAYSCHED_JAEGER: /nowhere/jaeger is no program" in done.err

    def test_has_nothing_to_stop_nor_to_tell(self, raysched: Command, home: Path) -> None:
        done = raysched("jaeger", "--stop")
        assert (done.code, done.err) == (0, "")
        assert "no Jaeger to end" in done.out
        assert raysched("jaeger", "--stop", "--json").json() == {"ended": False}
        assert raysched("status", "--json").json()["jaeger"] is None
        assert jaeger.endpoint(home) == ""

    def test_home_that_cannot_be_written(
        self, raysched: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYSCHED_HOME", "/proc/nowhere")
        done = raysched("jaeger")
        assert (done.code, done.out) == (1, "")
        assert "set RAYSCHED_HOME to a directory of your own" in done.err

    def test_record_that_cannot_be_read(self, raysched: Command, home: Path) -> None:
        record = jaeger.record_path(home)
        record.parent.mkdir(parents=True)
        record.write_text("{}", encoding="utf-8")
        for command in (("jaeger",), ("jaeger", "--stop"), ("status",)):
            done = raysched(*command)
            assert done.code == 1
            assert "cannot be read" in done.err
        # Runs do without.
        assert jaeger.endpoint(home) == ""


class TestBinary:
    def test_is_found_by_runs_until_it_is_stopped(
        self, raysched: Command, path: Path, home: Path
    ) -> None:
        install(path, "jaeger")
        up = start(raysched)
        assert jaeger.endpoint(home) == up["otlp_http"]
        assert raysched("status", "--json").json()["jaeger"] == up
        assert f"Ended the Jaeger at {up['ui']}" in raysched("jaeger", "--stop").out
        assert not psutil.pid_exists(up["pid"])
        assert jaeger.endpoint(home) == ""

    def test_listens_on_loopback_only(self, raysched: Command, path: Path) -> None:
        install(path, "jaeger")
        up = start(raysched)
        found = psutil.Process(up["pid"]).net_connections("inet")
        listening = {each.laddr for each in found if each.status == psutil.CONN_LISTEN}
        assert {address.ip for address in listening} == {"127.0.0.1"}
        urls = [up["ui"], up["otlp_http"], up["otlp_grpc"]]
        assert {address.port for address in listening} == {port_of(url) for url in urls}

    def test_second_start_tells_of_the_first(self, raysched: Command, path: Path) -> None:
        install(path, "jaeger")
        up = start(raysched)
        done = raysched("jaeger")
        assert done.code == 0
        assert "Jaeger is up already" in done.out
        assert up["ui"] in done.out
        refused = raysched("jaeger", "--ui-port", "1", "--keep")
        assert (refused.code, refused.out) == (1, "")
        assert f"its --ui-port is {port_of(up['ui'])}" in refused.err
        assert "it has its traces in memory only" in refused.err

    def test_free_ports_take_the_place_of_those_that_are_taken(
        self, raysched: Command, path: Path
    ) -> None:
        install(path, "jaeger")
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                taken.bind(("127.0.0.1", 16686))
                taken.listen()
            except OSError:
                # Then somebody else on this machine has taken it.
                pass
            up = start(raysched)
            assert port_of(up["ui"]) != 16686
            refused = raysched("jaeger", "--ui-port", "16686")
            assert refused.code == 1
        assert raysched("jaeger", "--stop").code == 0

    def test_port_that_was_asked_for_and_is_taken(self, raysched: Command, path: Path) -> None:
        install(path, "jaeger")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = raysched("jaeger", "--http-port", str(port))
        assert (done.code, done.out) == (1, "")
        assert f"--http-port {port}: another program listens there" in done.err

    def test_traces_are_kept_in_the_home_if_asked(
        self, raysched: Command, path: Path, home: Path
    ) -> None:
        install(path, "jaeger")
        up = start(raysched, "--keep")
        storage = jaeger.place(home) / "traces"
        assert (up["storage"], storage.is_dir()) == (str(storage), True)
        ((_, config),) = calls(path)
        assert str(storage) in config

    def test_what_it_says_is_told_when_it_does_not_start(
        self, raysched: Command, path: Path, home: Path
    ) -> None:
        install(path, "jaeger", "raise SystemExit('invalid configuration')")
        done = raysched("jaeger")
        assert (done.code, done.out) == (1, "")
        assert "ended as soon as it was started; it says:\n  invalid configuration" in done.err
        assert not jaeger.record_path(home).exists()

    def test_killed_one_counts_as_none_and_is_replaced(
        self, raysched: Command, path: Path, home: Path
    ) -> None:
        install(path, "jaeger")
        first = psutil.Process(start(raysched)["pid"])
        first.kill()
        first.wait()
        assert jaeger.endpoint(home) == ""
        assert "has ended by itself" in raysched("status").out
        assert start(raysched)["pid"] != first.pid

    def test_another_process_with_its_id_counts_as_none(
        self, raysched: Command, path: Path, home: Path
    ) -> None:
        install(path, "jaeger")
        up = start(raysched)
        record = jaeger.record_path(home)
        before = record.read_text(encoding="utf-8")
        changed = {**json.loads(before), "pid": os.getpid()}
        record.write_text(json.dumps(changed), encoding="utf-8")
        assert jaeger.endpoint(home) == ""
        record.write_text(before, encoding="utf-8")
        assert jaeger.endpoint(home) == up["otlp_http"]

    def test_record_is_for_this_user_only(self, raysched: Command, path: Path, home: Path) -> None:
        install(path, "jaeger")
        start(raysched)
        record = jaeger.record_path(home)
        assert [each.stat().st_mode & 0o077 for each in (record, record.parent)] == [0, 0]

    def test_in_the_foreground_ends_with_ctrl_c(self, path: Path, home: Path) -> None:
        install(path, "jaeger")
        command = [sys.executable, "-m", "raysched", "jaeger", "--foreground"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            assert process.stdout is not None
            told = iter(process.stdout)
            assert "Jaeger is up" in next(told)
            assert any("Ctrl-C ends it" in line for line in told)
            os.killpg(process.pid, signal.SIGINT)
        assert process.returncode == 0
        assert not jaeger.record_path(home).exists()


class TestContainer:
    @pytest.mark.parametrize("engine", ["docker", "podman"])
    def test_publishes_on_loopback_only(self, raysched: Command, path: Path, engine: str) -> None:
        install(path, engine)
        up = start(raysched, "--keep")
        (run,) = [call for call in calls(path) if call[1] == "run"]
        published = [each for each in run if each.startswith("--publish")]
        assert published == [
            f"--publish=127.0.0.1:{port_of(up[url])}:{inner}"
            for url, inner in (("ui", 16686), ("otlp_http", 4318), ("otlp_grpc", 4317))
        ]
        assert f"--volume={up['storage']}:/traces" in run
        assert raysched("jaeger", "--stop").code == 0
        assert calls(path)[-1] == [engine, "rm", "--force", run[run.index("--name") + 1]]

    def test_is_second_choice(self, raysched: Command, path: Path) -> None:
        install(path, "docker")
        binary = install(path, "jaeger")
        assert start(raysched)["program"] == str(binary)


@pytest.mark.skipif(REAL is None, reason="there is no jaeger on PATH or in RAYSCHED_JAEGER")
@pytest.mark.parametrize("options", [[], ["--keep"]])
def test_real_one(raysched: Command, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setenv("RAYSCHED_JAEGER", str(REAL))
    up = start(raysched, *options)
    found = psutil.Process(up["pid"]).net_connections("inet")
    listening = {each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN}
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert raysched("jaeger", "--stop").code == 0
    assert not psutil.pid_exists(up["pid"])
