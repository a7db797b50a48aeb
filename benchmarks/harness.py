"""Runs a case: two drivers beside one local Ray, each in a process of its own, turn by turn."""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks.case import Case, Measured, Side, Turn

WORKER_NICENESS = "RAY_worker_niceness"
"""Ray's workers run at nice 15 unless told: a busy machine then slows them alone down."""


@dataclass(frozen=True, slots=True)
class Order:
    """How cases are measured.

    Attributes:
        scratch: Directory for databases.
        scale: What sizes are multiplied by.
        repeats: How many pairs of turns, None for each case's own number.
        address: Of a running Ray, or "" for one of its own for each case.
    """

    scratch: Path
    scale: float = 1.0
    repeats: int | None = None
    address: str = ""


def measure(case: Case, order: Order) -> Measured:
    """Measure a case."""
    os.environ[WORKER_NICENESS] = "0"
    size = case.scaled(order.scale)
    database = order.scratch / f"{case.name}.db"
    with ExitStack() as stack:
        shared = {
            "RAYSCHED_HOME": str(order.scratch),
            "RAYSCHED_DATABASE_URL": f"sqlite:///{database}",
        }
        if case.on_ray:
            shared["RAY_ADDRESS"] = order.address or stack.enter_context(_local_ray())
        drivers = [
            _Driver(side, stack.enter_context(_process({**shared, **side.environment})), database)
            for side in case.sides
        ]
        for _ in range(order.repeats or case.repeats):
            for driver in drivers:
                driver.take_turn(size)
            # Who was second is first in the next pair, so that nobody gains by the place.
            drivers.reverse()
    turns = {driver.side.name: driver.turns for driver in drivers}
    return Measured(case, size, *(turns[side.name] for side in case.sides))


class _Driver:
    """A side in its process."""

    def __init__(self, side: Side, process: ProcessPoolExecutor, database: Path) -> None:
        self.side = side
        self.turns: list[Turn] = []
        self._process = process
        self._database = database

    def take_turn(self, size: int) -> None:
        side = self.side
        taking = self._process.submit(_turn, side.turn, side.warm_up, size, self._database)
        self.turns.append(taking.result())


@contextmanager
def _local_ray() -> Iterator[str]:
    import ray

    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING
    )
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def _process(environment: Mapping[str, str]) -> ProcessPoolExecutor:
    # Spawned: a driver has nothing of ours in memory but what it imports for its turns.
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=_set, initargs=(environment,))


def _set(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)


def _turn(
    work: Callable[[int], int], warm_up: Callable[[], object] | None, size: int, database: Path
) -> Turn:
    if warm_up is not None:
        warm_up()
    pages, cpu, began = _bytes_used(database), time.process_time(), time.perf_counter()
    total = work(size)
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    if total != sum(range(size)):
        raise RuntimeError(f"the results of {size} tasks add up to {total}")
    return Turn(size, seconds, used, _peak_memory(), _bytes_used(database) - pages)


def _bytes_used(database: Path) -> int:
    """Return the bytes of all pages in use, also of those that are still in the log."""
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        size, count, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "freelist_count")
        )
    return int(size * (count - free))


def _peak_memory() -> int:
    # Not ru_maxrss: it begins with what the process that forked this one has held.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
