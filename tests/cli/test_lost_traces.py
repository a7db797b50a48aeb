"""Who looks at runs has the traces of lost ones sent by one process at a time."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cli.commands import Command
from cli.kept_runs import keep_lost
from raysched.telemetry.sending.environment import Protocol
from telemetry.receiver import WAIT_SECONDS, Receiver, receiving


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Where the runs of a test send their spans."""
    with receiving(Protocol.HTTP) as receiver:
        endpoint = receiver.destination().endpoint
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
        yield receiver


def telling_in(home: Path) -> list[psutil.Process]:
    """The living processes that tell what was lost in a home."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            of_home = process.environ().get("RAYSCHED_HOME") == str(home)
            if of_home and process.cmdline()[-2:] == ["trace", "--lost"]:
                found.append(process)
    return found


@pytest.fixture
def gate(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A pipe at which processes that tell what was lost wait as they start, until it is written."""
    pipe, modules = tmp_path / "gate", tmp_path / "modules"
    os.mkfifo(pipe)
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(
        f"import sys\nif sys.orig_argv[-1] == '--lost':\n    open({str(pipe)!r}).close()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(modules), prepend=os.pathsep)
    yield pipe
    for process in telling_in(home):
        process.kill()


def test_one_process_of_a_home_tells_them(
    raysched: Command, traced: Receiver, home: Path, gate: Path
) -> None:
    keep_lost()
    for command in (("runs",), ("runs",), ("show", "last")):
        raysched(*command)
    (telling,) = telling_in(home)
    # What it leaves when it dies is for the next one.
    telling.kill()
    telling.wait(WAIT_SECONDS)
    raysched("runs")
    (_,) = telling_in(home)
    gate.write_bytes(b"")
    traced.wait(lambda: traced.names() == {"flow nightly": 1, "task parse": 3, "run parse": 3})
