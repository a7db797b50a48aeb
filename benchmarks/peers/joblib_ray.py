"""joblib with Ray's backend, which batches by itself: `batch_size="auto"`."""

from functools import cache

from joblib import Parallel, delayed, parallel_config

from benchmarks.load import CORES, burn
from benchmarks.peers import bare_ray


def noop(number: int) -> int:
    return number


def busy(number: int, seconds: float) -> int:
    burn(seconds)
    return number


@cache
def parallel() -> Parallel:
    """Return the pool of this process; its actors live on from turn to turn."""
    from ray.util.joblib import register_ray

    register_ray()
    # Without a CPU of their own: idle actors would keep raysched's workers from theirs.
    with parallel_config(backend="ray", n_jobs=CORES, ray_remote_args={"num_cpus": 0}):
        pool = Parallel(batch_size="auto")
    pool.__enter__()
    return pool


def warm_up() -> None:
    bare_ray.warm_up()
    parallel()(delayed(noop)(number) for number in range(4 * CORES))


def many(size: int) -> int:
    return sum(parallel()(delayed(noop)(number) for number in range(size)))


def computing(seconds: float, size: int) -> int:
    return sum(parallel()(delayed(busy)(number, seconds) for number in range(size)))
