"""One story of the chaos suite: a driver in a process of its own, and what is done to it."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from chaos.cluster import ENVIRONMENT, Cluster
from chaos.log import read_log
from chaos.sides import Row
from raysched import get_run
from raysched.client import Run
from raysched.model.states import StateType
from raysched.settings import settings
from raysched.store.database import database
from raysched.testing import FaultPoints, Point

if TYPE_CHECKING:
    from servers import Server

PATIENCE_SECONDS = 90.0
"""What has not come by then does not come any more."""

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"

TASK_RUNS = {"flights/flow.py": 51, "billing/flow.py": 43, "ml_sweep/flow.py": 0}
"""How many task runs of an example complete; 0 for any number."""


_ROWS = """
SELECT task, first + idx, state FROM task_run JOIN task_group
ON task_group.run = task_run.run AND task_group.id = task_run.grp
"""


@dataclass(frozen=True)
class Death:
    """What there was when the driver was killed.

    Attributes:
        rows: The task runs in the database.
        lines: How many lines the log had.
    """

    rows: list[Row]
    lines: int


@dataclass
class Story:
    """A driver and what is done to it.

    Attributes:
        seed: What decides about it.
        fault: Name of the fault, from `FAULTS`.
        place: Its directory.
        cluster: Where it runs; None for inline.
        server: The PostgreSQL that has its database; None for SQLite.
        driver: Its process, once it runs.
        points: What happens at points.
        struck: How many processes we have killed from outside, the driver not among them.
        kills: How many processes have died of us, at most.
        lost: Whether its driver was killed.
        deaths: The deaths of its driver after which the run went on.
        stopped: Whether it was told to end.
        told: Point, first time and number of times of faults that others than its driver's end were
            told of.
        example: The example that it runs, or "" for a random flow.
        wrong: What was found that must not be.
    """

    seed: int
    fault: str
    place: Path
    cluster: Cluster | None = None
    server: "Server | None" = None
    driver: "subprocess.Popen[bytes] | None" = None
    points: FaultPoints = field(init=False)
    struck: int = 0
    kills: int = 0
    lost: bool = False
    deaths: list[Death] = field(default_factory=list)
    stopped: bool = False
    told: list[tuple[Point, int, int]] = field(default_factory=list)
    example: str = ""
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = Random(f"{self.seed} {self.fault}")
        self.points = FaultPoints(self.place)
        home = self.place / "home"
        self.url = f"sqlite:///{home / 'raysched.db'}"
        if self.server is not None:
            self.url = self.server.schema()
        self.environment = {
            "RAYSCHED_HOME": str(home),
            "RAYSCHED_DATABASE_URL": self.url,
            "RAYSCHED_BACKEND": "inline",
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, sys.path)]),
        }
        if self.cluster is not None:
            self.environment |= ENVIRONMENT | {
                "RAYSCHED_BACKEND": "ray",
                "RAYSCHED_ADDRESS": self.cluster.address,
            }

    @property
    def broken(self) -> int:
        """How many faults happened: some points are not reached as often as was told."""
        died = len(self.deaths) + self.lost
        return self.struck + died + self.stopped + sum(map(self._happened, self.told))

    def _happened(self, fault: tuple[Point, int, int]) -> int:
        point, nth, times = fault
        return min(times, max(0, self.points.reached(point) - nth + 1))

    def start(self, *command: str | Path, **environment: str) -> "subprocess.Popen[bytes]":
        """Start the driver, or the next one."""
        with (self.place / "output").open("ab") as output:
            self.driver = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.place,
                env=os.environ | self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.driver

    @property
    def is_running(self) -> bool:
        """Whether the driver is there."""
        return self.driver is not None and self.driver.poll() is None

    @property
    def output(self) -> str:
        """What the driver has printed."""
        return (self.place / "output").read_text("utf-8", "replace")

    def strike(self) -> None:
        """Note that we have killed a process, or a node with all of its own."""
        self.struck += 1
        self.kills += 1

    def sleep(self, seconds: float) -> bool:
        """Let time pass while the driver runs; return whether it still does."""
        end = time.monotonic() + seconds
        while self.is_running and time.monotonic() < end:
            time.sleep(0.01)
        return self.is_running

    def until_begun(self) -> bool:
        """Wait until the first task run has begun; return whether the driver still runs."""
        while self.is_running and not (self.place / "log").exists():
            time.sleep(0.01)
        return self.is_running

    def until_more(self, lines: int) -> bool:
        """Wait until the log has more than so many lines; return whether the driver still runs."""
        while self.is_running and read_log(self.place).lines <= lines:
            time.sleep(0.01)
        return self.is_running

    def finish(self) -> int:
        """Wait for the driver's end; return its exit code."""
        assert self.driver is not None
        try:
            return self.driver.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"the driver does not end; {self._stacks()}")
            self.driver.kill()
            return self.driver.wait()

    def _stacks(self) -> str:
        return f"the run is {[(one.key, one.state.name) for one in self.kept().task_runs()]}"

    def die(self) -> None:
        """Kill the driver."""
        assert self.driver is not None
        self.driver.kill()
        self.driver.wait()

    def resume(self) -> bool:
        """Go on with the run of a driver that was killed; return whether it had not ended."""
        run = self.open_run()
        if run is None:
            return False
        # It takes its workers with it.
        self.kills += 1
        self.deaths.append(Death(self.rows(), read_log(self.place).lines))
        self.start(HERE / "driver.py", self.place, run)
        return True

    def open_run(self) -> str | None:
        """Return the id of the run if it has not ended."""
        found = self._ask("SELECT id, state FROM flow_run WHERE parent = ''")
        return str(found[0][0]) if found and not StateType(found[0][1]).is_terminal else None

    @property
    def has_run(self) -> bool:
        """Whether there is a run."""
        return bool(self._ask("SELECT id FROM flow_run WHERE parent = ''"))

    def rows(self) -> list[Row]:
        """Return all task runs as they are written, those of subflows too."""
        return [Row(task, index, StateType(state)) for task, index, state in self._ask(_ROWS)]

    def is_whole(self) -> bool:
        """Whether the database is not broken."""
        if self.server is not None:
            return True
        return self._ask("PRAGMA integrity_check") == [("ok",)]

    def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what the database has; nothing if the driver died before there were tables."""
        asked = database(self.url)
        try:
            with asked.engine.connect() as connection:
                return [tuple(row) for row in connection.execute(text(statement))]
        except DBAPIError:
            return []
        finally:
            asked.close()

    def kept(self) -> Run:
        """Return the run, as anybody sees it."""
        names = ("RAYSCHED_HOME", "RAYSCHED_DATABASE_URL")
        before = {name: os.environ.get(name) for name in names}
        os.environ.update({name: self.environment[name] for name in names})
        settings.cache_clear()
        try:
            (run,) = self._ask("SELECT id FROM flow_run WHERE parent = ''")
            return get_run(run[0])
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
            settings.cache_clear()
