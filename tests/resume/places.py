"""Drivers whose task runs leave a line for each execution."""

from collections import Counter
from dataclasses import dataclass

from faults.drivers import Driver, Place
from raysched import get_run
from raysched.model.states import SUCCESSES
from raysched.testing import FaultPoints

COMMON = '''
import os
import signal
import time
from pathlib import Path

from raysched import flow, task
from raysched.define.context import attempt_context

HERE = Path(__file__).parent


def ran(name=None):
    """Count an execution, by the key of the task run."""
    name = name or attempt_context.get().task_run_key
    file = os.open(HERE / "ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{name}\\n".encode())
    os.close(file)


def mark(name):
    """Leave this process's id."""
    (HERE / f"{name}.new").write_text(str(os.getpid()))
    (HERE / f"{name}.new").rename(HERE / name)


def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.01)


def is_there(name):
    return (HERE / name).exists()


def once(name):
    """Whether this is the first time, over all processes."""
    try:
        (HERE / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die():
    os.kill(os.getpid(), signal.SIGKILL)
'''


@dataclass
class CountingPlace(Place):
    """A place whose task runs call `ran`."""

    @property
    def executions(self) -> Counter[str]:
        """How often each task run was executed."""
        file = self.path / "ran"
        return Counter(file.read_text("utf-8").split()) if file.exists() else Counter()

    def touch(self, name: str) -> None:
        """Make what `is_there` and `wait_for` look for."""
        (self.path / name).touch()

    def raysched(self, *arguments: str) -> Driver:
        """Run a command; return it after its end."""
        driver = self.start("-m", "raysched", *arguments)
        driver.finish()
        return driver

    def done(self, *arguments: str) -> str:
        """Run a command that has to go well; return what it printed."""
        driver = self.raysched(*arguments)
        assert driver.process.returncode == 0, driver.output
        return driver.output

    def broken(self, faults: FaultPoints, *arguments: str) -> Driver:
        """Run a command with faults; return it after its end."""
        before = dict(self.environment)
        self.environment |= faults.environment()
        try:
            return self.raysched(*arguments)
        finally:
            self.environment.clear()
            self.environment.update(before)

    def completed(self) -> set[str]:
        """Return the keys of the last run's task runs that completed, and were not undone."""
        return {
            each.key for each in get_run("last").task_runs(states=SUCCESSES) if not each.rolled_back
        }
