"""One story of the chaos suite: a driver in a process of its own, and what is done to it."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from chaos.cluster import ENVIRONMENT, Cluster
from raysched import get_run
from raysched.client import Run
from raysched.settings import settings
from raysched.testing import FaultPoints, Point

PATIENCE_SECONDS = 90.0
"""What has not come by then does not come any more."""

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"

TASK_RUNS = {"flights/flow.py": 51, "billing/flow.py": 43, "ml_sweep/flow.py": 0}
"""How many task runs of an example complete; 0 for any number."""


@dataclass
class Story:
    """A driver and what is done to it.

    Attributes:
        seed: What decides about it.
        fault: Name of the fault, from `FAULTS`.
        place: Its directory.
        cluster: Where it runs; None for inline.
        driver: Its process, once it runs.
        points: What happens at points.
        struck: How many processes we have killed from outside, the driver not among them.
        kills: How many processes have died of us, at most.
        lost: Whether its driver was killed.
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
    driver: "subprocess.Popen[bytes] | None" = None
    points: FaultPoints = field(init=False)
    struck: int = 0
    kills: int = 0
    lost: bool = False
    stopped: bool = False
    told: list[tuple[Point, int, int]] = field(default_factory=list)
    example: str = ""
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = Random(f"{self.seed} {self.fault}")
        self.points = FaultPoints(self.place)
        self.environment = {
            "RAYSCHED_HOME": str(self.place / "home"),
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
        return self.struck + self.lost + self.stopped + sum(map(self._happened, self.told))

    def _happened(self, fault: tuple[Point, int, int]) -> int:
        point, nth, times = fault
        return min(times, max(0, self.points.reached(point) - nth + 1))

    def start(self, *command: str | Path, **environment: str) -> "subprocess.Popen[bytes]":
        """Start the driver."""
        with (self.place / "output").open("wb") as output:
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

    def kept(self) -> Run:
        """Return the run, as anybody sees it."""
        before = os.environ.get("RAYSCHED_HOME")
        os.environ["RAYSCHED_HOME"] = self.environment["RAYSCHED_HOME"]
        settings.cache_clear()
        try:
            return get_run("last")
        finally:
            os.environ.pop("RAYSCHED_HOME")
            if before is not None:
                os.environ["RAYSCHED_HOME"] = before
            settings.cache_clear()
