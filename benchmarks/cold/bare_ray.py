"""One task in bare Ray, as a script of its own."""

import ray

ray.init(address="local", include_dashboard=False)


@ray.remote
def noop(number: int) -> int:
    return number


print(ray.get(noop.remote(0)))
