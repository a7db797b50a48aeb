"""A first flow for the cluster: says on which machines its task runs ran."""  # noqa: INP001

import socket
import time
from collections import Counter

from raysched import flow, get_run_logger, task


@task(retries=1)
def where(number: int) -> str:
    """Take a moment, and return the name of the machine."""
    time.sleep(0.05)
    get_run_logger().debug("task run %d", number)
    return socket.gethostname()


@task
def count(machines: list[str]) -> dict[str, int]:
    """Return how often each machine is named."""
    return dict(Counter(machines))


@flow
def hello(task_runs: int = 200) -> dict[str, int]:
    """Run tasks on all machines, and return how many ran on each."""
    return count.submit(where.map(range(task_runs))).result()
