"""The same work in bare Ray, as one writes it there: one call a task."""

import logging
import os
import time

import ray

SLOTS = os.cpu_count() or 1


@ray.remote
def noop(number: int) -> int:
    return number


@ray.remote
def nap(seconds: float) -> None:
    time.sleep(seconds)


def warm_up() -> None:
    if not ray.is_initialized():
        # The cluster of RAY_ADDRESS.
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    # Long enough that each slot gets a worker.
    ray.get([nap.remote(0.3) for _ in range(2 * SLOTS)])


def many(size: int) -> int:
    """Also what a loop of submits is compared with: Ray has one way for both."""
    return sum(ray.get([noop.remote(number) for number in range(size)]))


def calls(size: int) -> int:
    return sum(ray.get(noop.remote(number)) for number in range(size))
