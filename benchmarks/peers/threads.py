"""Waits in a pool of threads in the driver, one for each task, like Prefect's task runner."""

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.load import WAIT_SECONDS


def wait(number: int) -> int:
    time.sleep(WAIT_SECONDS)
    return number


def waits(size: int) -> int:
    with ThreadPoolExecutor(size) as pool:
        return sum(pool.map(wait, range(size)))
