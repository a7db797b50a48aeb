"""dask.distributed on a cluster of its own on this machine, a process for each core."""

from functools import cache, partial

from distributed import Client, LocalCluster

from benchmarks.load import CORES, burn


def noop(number: int) -> int:
    return number


def busy(number: int, seconds: float) -> int:
    burn(seconds)
    return number


@cache
def client() -> Client:
    """Return the cluster of this process."""
    return Client(LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address=None))


def warm_up() -> None:
    client().gather(client().map(partial(busy, seconds=0.1), range(4 * CORES), pure=False))


def cool_down() -> None:
    # In this order, or its workers tell of a scheduler that has gone.
    cluster = client().cluster
    client().close()
    cluster.close()


def many(size: int) -> int:
    # Not pure: each turn is work to be done, not a result to be remembered.
    return sum(client().gather(client().map(noop, range(size), pure=False)))


def computing(seconds: float, size: int) -> int:
    futures = client().map(partial(busy, seconds=seconds), range(size), pure=False)
    return sum(client().gather(futures))
