"""joblib with Ray's backend, which batches by itself: `batch_size="auto"`."""

from joblib import Parallel, delayed, parallel_config
from ray.util.joblib import register_ray

from benchmarks.load import CORES, burn
from benchmarks.peers import bare_ray


def noop(number: int) -> int:
    return number


def busy(number: int, seconds: float) -> int:
    burn(seconds)
    return number


_pools: list[Parallel] = []


def warm_up() -> None:
    """Start a pool: an old one would know the tasks, and have batches of tens of thousands."""
    bare_ray.warm_up()
    cool_down()
    register_ray()
    # Without a CPU of their own: idle actors would keep raysched's workers from theirs.
    with parallel_config(backend="ray", n_jobs=CORES, ray_remote_args={"num_cpus": 0}):
        pool = Parallel(batch_size="auto")
    _pools.append(pool.__enter__())
    pool(delayed(busy)(number, 0.1) for number in range(4 * CORES))


def cool_down() -> None:
    while _pools:
        _pools.pop().__exit__(None, None, None)


def many(size: int) -> int:
    return sum(_pools[0](delayed(noop)(number) for number in range(size)))


def computing(seconds: float, size: int) -> int:
    return sum(_pools[0](delayed(busy)(number, seconds) for number in range(size)))
