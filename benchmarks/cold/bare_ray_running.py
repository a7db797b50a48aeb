"""One task in bare Ray on a cluster that runs already, as a script of its own."""

import ray

ray.init()


@ray.remote
def noop(number: int) -> int:
    return number


print(ray.get(noop.remote(0)))
