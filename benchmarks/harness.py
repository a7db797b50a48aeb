"""Runs a case: two drivers beside one Ray, each in a process of its own, turn by turn."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from benchmarks.case import Case, Measured, Side, Told
from benchmarks.databases import kept_in
from benchmarks.metrics import Turn

WORKER_NICENESS = "RAY_worker_niceness"
"""Ray's workers run at nice 15 unless told: a busy machine then slows them alone down."""


@dataclass(frozen=True, slots=True)
class Order:
    """How cases are measured.

    Attributes:
        scratch: Directory for databases.
        scale: What sizes are multiplied by.
        repeats: How many pairs of turns, None for each case's own number.
        address: Of a running Ray, or "" where no case needs one.
        full: Whether sizes are those that the aims are for, also where that takes long.
        postgresql: URL of a database for the cases that want one, or "".
    """

    scratch: Path
    scale: float = 1.0
    repeats: int | None = None
    address: str = ""
    full: bool = False
    postgresql: str = ""

    def database(self, name: str, *, postgresql: bool = False) -> str:
        """Return the URL of the database for what is called so."""
        return self.postgresql if postgresql else f"sqlite:///{self.scratch / name}.db"

    def lacks(self, case: Case) -> str:
        """Return what a case needs and is not there, for people, or ""."""
        if case.postgresql and not self.postgresql:
            return "there is no PostgreSQL: give the URL of a database with --postgresql"
        missing = next((package for side in case.sides if (package := side.missing())), "")
        return f'{missing} is not installed: pip install -e ".[bench-peers]"' if missing else ""


def measure(case: Case, order: Order) -> Measured:
    """Measure a case; one on Ray needs an address in the order."""
    size = case.scaled(order.scale, full=order.full)
    shared = {
        "RAYSCHED_HOME": str(order.scratch),
        "RAY_ADDRESS": order.address if case.on_ray else "",
    }
    with ExitStack() as stack:
        drivers = [
            stack.enter_context(
                driver(side, shared, order.database(case.name, postgresql=side.postgresql))
            )
            for side in case.sides
        ]
        turns: dict[str, list[Turn]] = {side.name: [] for side in case.sides}
        for _ in range(order.repeats or case.repeats):
            for each in drivers:
                tasks = each.side.tasks(size)
                turns[each.side.name].append(each.take_turn(tasks, case.task_runs(tasks)))
            # Who was second is first in the next pair, so that nobody gains by the place.
            drivers.reverse()
    return Measured(case, size, *(turns[side.name] for side in case.sides))


class Driver:
    """A side in its process."""

    def __init__(self, side: Side, process: ProcessPoolExecutor, database: str) -> None:
        self.side = side
        self._process = process
        self._database = database

    def take_turn(self, size: int, task_runs: int, *more: float) -> Turn:
        """Have so many tasks run, which make so many task runs.

        Args:
            size: Number of tasks.
            task_runs: What that makes.
            more: Arguments of the side's function, after its own.
        """
        side = replace(self.side, arguments=(*self.side.arguments, *more))
        return self._process.submit(_turn, side, size, task_runs, self._database).result()


@contextmanager
def driver(side: Side, shared: Mapping[str, str], database: str) -> Iterator[Driver]:
    """Give a side a process of its own, with these environment variables and this database."""
    # Spawned: a driver has nothing of ours in memory but what it imports for its turns.
    environment = {**shared, "RAYSCHED_DATABASE_URL": database, **side.environment}
    with ProcessPoolExecutor(
        1, get_context("spawn"), initializer=_set, initargs=(environment,)
    ) as process:
        yield Driver(side, process, database)
        process.submit(_cool_down, side).result()


@contextmanager
def local_ray() -> Iterator[str]:
    """Start Ray on this machine; return its address."""
    os.environ[WORKER_NICENESS] = "0"
    import ray

    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING
    )
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def _set(environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


def _cool_down(side: Side) -> None:
    module = import_module(side.module)
    if hasattr(module, "cool_down"):
        module.cool_down()


def _turn(side: Side, size: int, task_runs: int, database: str) -> Turn:
    module = import_module(side.module)
    if hasattr(module, "warm_up"):
        module.warm_up()
    if side.prepare:
        getattr(module, side.prepare)(*side.arguments, size)
    work = partial(getattr(module, side.turn), *side.arguments)
    before = kept_in(database)
    cpu, began = time.process_time(), time.perf_counter()
    done = work(size)
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    told = done if isinstance(done, Told) else Told(done, seconds)
    if told.total != sum(range(size)):
        raise RuntimeError(f"the results of {size} tasks add up to {told.total}")
    after = kept_in(database)
    return Turn(
        task_runs,
        told.seconds,
        used,
        _peak_memory(),
        after.bytes - before.bytes,
        after.rows - before.rows,
        told.figures,
    )


def _peak_memory() -> int:
    # Not ru_maxrss: it begins with what the process that forked this one has held.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
