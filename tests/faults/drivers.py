"""Drivers as processes of their own, to be watched and broken from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from typer.testing import CliRunner

from raysched.cli.app import app

PATIENCE_SECONDS = 120.0
"""What has not come by then does not come any more, however busy the machine is."""


def until(condition: Callable[[], Any], what: object = "it") -> Any:
    """Wait for a condition; return its value.

    Args:
        condition: Is asked until it is true.
        what: For the message: what did not come.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)
    return value


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@dataclass
class Driver:
    """A command in a process group of its own, as a terminal would start it.

    Attributes:
        place: Its working directory; what it prints goes to a file there.
    """

    arguments: Sequence[str]
    place: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._output = self.place / f"output-{time.monotonic_ns()}"
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=self.place,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it printed so far, errors among it."""
        return self._output.read_text("utf-8", "replace")

    def until_said(self, *texts: str) -> None:
        """Wait until it has printed all of these."""

        def said() -> bool:
            output = self.output
            if all(text in output for text in texts):
                return True
            assert self.process.poll() is None, f"it ended without {texts}:\n{output}"
            return False

        until(said, texts)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to its process group, as a terminal does for Ctrl-C."""
        os.killpg(self.process.pid, number)

    def finish(self, patience: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; return the exit code."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.output}") from None

    def descendants(self) -> list[psutil.Process]:
        """Return the processes that it has started, and those that they have started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        """End it with all of its process group, if it still runs."""
        if self.process.poll() is None:
            self.signal_group(signal.SIGKILL)
        self.process.wait()


@dataclass
class Place:
    """A directory with a flow file and a database of its own, where drivers are started.

    Attributes:
        path: The directory. Tasks leave marks in it, see `mark` and `until_marked`.
        environment: Variables of all drivers here.
    """

    path: Path
    environment: dict[str, str]
    drivers: list[Driver] = field(default_factory=list)

    def use_local_ray(self) -> None:
        """Have drivers use the Ray of this session, see the fixture `local_ray`."""
        import ray

        self.environment |= {
            "RAYSCHED_BACKEND": "ray",
            "RAYSCHED_ADDRESS": ray.get_runtime_context().gcs_address,
            "RAY_AUTH_MODE": "token",
        }

    def write(self, source: str, name: str = "flows.py") -> None:
        """Write a module."""
        (self.path / name).write_text(source, encoding="utf-8")

    def start(self, *arguments: str) -> Driver:
        """Start `python <arguments>`."""
        driver = Driver(arguments, self.path, self.environment)
        self.drivers.append(driver)
        return driver

    def run(self, target: str, *options: str) -> Driver:
        """Start `raysched run`."""
        return self.start("-m", "raysched", "run", target, *options)

    def until_marked(self, name: str) -> str:
        """Wait until a task or flow has left a mark; return its text, by custom a process id."""
        path = self.path / name

        def marked() -> str:
            if path.exists():
                return path.read_text()
            for driver in self.drivers:
                assert driver.process.poll() is None, f"no {name}, but:\n{driver.output}"
            return ""

        return str(until(marked, name))

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Wait for a mark and send a signal to the process that has left it; return its id."""
        pid = int(self.until_marked(name))
        os.kill(pid, number)
        return pid

    def look(self, *arguments: str) -> Any:
        """Return what a command that only looks prints with `--json`, in this process."""
        done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def show(self) -> dict[str, Any]:
        """Return the last run with its task runs."""
        found: dict[str, Any] = self.look("show", "last")
        return found

    def states(self) -> dict[str, str]:
        """Return the states of the last run's task runs by key."""
        return {each["key"]: each["state"] for each in self.show()["task_runs"]}

    def until_running(self, key: str) -> None:
        """Wait until the database knows that a task run is running."""
        until(lambda: self.states().get(key) == "RUNNING", f"{key} RUNNING")

    def messages(self) -> list[str]:
        """Return the kept log messages of the last run."""
        return [record["message"] for record in self.look("logs", "last")]

    def close(self) -> None:
        """End all drivers, and print what they have printed: pytest shows it if the test failed."""
        for driver in self.drivers:
            driver.close()
            told = f"{' '.join(driver.arguments)} ended with {driver.process.returncode}"
            sys.stdout.write(f"==> {told}:\n{driver.output}\n")
