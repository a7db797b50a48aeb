"""Seconds from Ray being connected until a task runs, in bare Ray on a Ray that runs already."""

import time

import ray

ray.init(log_to_driver=False)
connected = time.time()


@ray.remote
def begun() -> float:
    return time.time()


print(ray.get(begun.remote()) - connected)
