"""The sides, and what several cases aim at."""

from benchmarks.case import Side
from benchmarks.metrics import DATABASE, DRIVER_CPU, DRIVER_PEAK, ROWS, Aim, Of

SAMPLE = 3000
"""Tasks of a turn of a peer that needs the same time for each task, however many there are."""

PRICE = (Aim(DRIVER_CPU), Aim(DRIVER_PEAK), Aim(DATABASE))
"""What it costs beside time."""

SPACE = (Aim(ROWS), Aim(DATABASE))
"""What a task run leaves in the database."""

PRICE_OF_A_MAP = (
    Aim(DRIVER_CPU, 5, Of.OURS),
    Aim(DATABASE, 100, Of.OURS),
    Aim(ROWS),
    Aim(DRIVER_PEAK),
)


def raysched(turn: str, *arguments: float, prepare: str = "", postgresql: bool = False) -> Side:
    return Side("raysched", "benchmarks.ours", turn, arguments, prepare, postgresql)


def otherwise(how: str, turn: str, **environment: str) -> Side:
    """Return raysched as its own peer."""
    return Side(f"raysched, {how}", "benchmarks.ours", turn, environment=environment)


def bare_ray(turn: str, *, sample: int | None = None) -> Side:
    return Side("bare Ray", "benchmarks.peers.bare_ray", turn, sample=sample)


def pool(turn: str, *arguments: float) -> Side:
    return Side("multiprocessing.Pool", "benchmarks.peers.pool", turn, arguments)


JOBLIB = Side("joblib on Ray", "benchmarks.peers.joblib_ray", "many", needs=("joblib",))
DASK = Side(
    "dask.distributed",
    "benchmarks.peers.dask_distributed",
    "many",
    sample=SAMPLE,
    needs=("distributed",),
)
PARSL = Side("Parsl HTEX", "benchmarks.peers.parsl_htex", "many", sample=SAMPLE, needs=("parsl",))
