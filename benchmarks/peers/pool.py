"""`multiprocessing.Pool`: no states, no cluster, and little else than the work itself."""

from functools import cache
from multiprocessing import get_context
from multiprocessing.pool import Pool

from benchmarks.load import CORES, burn, mixed


def busy(number: int, seconds: float) -> int:
    burn(seconds)
    return number


@cache
def workers() -> Pool:
    """Return the pool of this process."""
    return get_context("forkserver").Pool(CORES)


def warm_up() -> None:
    workers().starmap(busy, [(number, 0.1) for number in range(4 * CORES)], chunksize=1)


def computing(seconds: float, size: int) -> int:
    """With chunks of 0.1 s, or one task each."""
    chunk = max(1, round(0.1 / seconds))
    return sum(workers().starmap(busy, [(n, seconds) for n in range(size)], chunksize=chunk))


def mixed_computing(size: int) -> int:
    return sum(workers().starmap(busy, enumerate(mixed(size)), chunksize=1))
