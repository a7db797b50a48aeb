"""Tasks that keep a core busy, in all systems alike, and the least time that they need."""

import os
import random
import time

CORES = os.cpu_count() or 1
WAIT_SECONDS = 0.1
"""How long a task waits that does nothing else (seconds)."""
LONG_SECONDS, SHORT_SECONDS = 1.0, 0.001
SHORT_A_LONG = 250
"""How many short tasks there are to a long one."""

CLUSTER_SLOTS, CLUSTER_TASK_SECONDS = 1000, 0.1
"""The cluster that is simulated, and how long a task takes there (seconds)."""


def burn(seconds: float) -> None:
    """Use so much CPU time of a core (seconds), however long that takes."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def evenly(seconds: float, size: int) -> float:
    """Return the least time for `size` tasks of so many seconds each (seconds)."""
    return lower_bound([seconds] * size)


def mixed(size: int) -> list[float]:
    """Return durations of short and long tasks in random order, always the same (seconds)."""
    long = max(1, size // (SHORT_A_LONG + 1))
    durations = [LONG_SECONDS] * long + [SHORT_SECONDS] * (size - long)
    random.Random(size).shuffle(durations)  # noqa: S311 - an order, not a secret
    return durations


def lower_bound(durations: list[float]) -> float:
    """Return the time that no schedule on this machine can beat (seconds)."""
    longest = max(durations)
    return max(sum(durations) / CORES, longest)


def on_cluster(size: int) -> float:
    """Return the least time for so many tasks on the simulated cluster (seconds)."""
    return size * CLUSTER_TASK_SECONDS / CLUSTER_SLOTS


def payload(number: int) -> bytes:
    """Return 200 bytes that stand for a number."""
    return number.to_bytes(200, "little")


def number_of(data: bytes) -> int:
    """Return the number that 200 bytes stand for."""
    return int.from_bytes(data, "little")


def compute() -> int:
    """Compute in pure Python for about a millisecond, without giving up the GIL by oneself."""
    return sum(number * number for number in range(20_000))
