"""Parsl with its high-throughput executor on this machine, a worker for each core."""

import os
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import parsl
from parsl import python_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from benchmarks.load import CORES


@python_app  # type: ignore[untyped-decorator, unused-ignore]
def noop(number: int) -> int:
    return number


@python_app  # type: ignore[untyped-decorator, unused-ignore]
def nap(seconds: float) -> None:
    time.sleep(seconds)


@cache
def load() -> None:
    """Start the executor of this process."""
    # It looks for its own scripts there, also in a virtual environment that is not activated.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    executor = HighThroughputExecutor(
        max_workers_per_node=CORES,
        cpu_affinity="none",
        address="127.0.0.1",
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    directory = tempfile.mkdtemp(prefix="raysched-parsl-")
    parsl.load(Config([executor], run_dir=directory, usage_tracking=0, initialize_logging=False))


def warm_up() -> None:
    load()
    for future in [nap(0.1) for _ in range(4 * CORES)]:
        future.result()


def cool_down() -> None:
    # Its threads would keep the process from ending.
    parsl.dfk().cleanup()
    parsl.clear()


def many(size: int) -> int:
    futures = [noop(number) for number in range(size)]
    return sum(future.result() for future in futures)
