"""Many tasks at once that do nothing: what a scheduler costs."""

from dataclasses import replace

from benchmarks.case import Case, Side
from benchmarks.load import CLUSTER_SLOTS, on_cluster
from benchmarks.metrics import DRIVER_PEAK, FIRST, RATE, Aim, Of, efficiency
from benchmarks.suite.sides import (
    DASK,
    JOBLIB,
    PARSL,
    PRICE,
    PRICE_OF_A_MAP,
    SAMPLE,
    bare_ray,
    raysched,
)

MAP_1K = Case(
    "map-1k",
    "map of {size} no-ops, results gathered",
    1_000,
    raysched("many"),
    bare_ray("many"),
    (Aim(RATE, 5), *PRICE),
)

MAP_10K = replace(
    MAP_1K,
    name="map-10k",
    size=10_000,
    peer=bare_ray("many", sample=SAMPLE),
    aims=(Aim(RATE, 20), *PRICE),
)

MAP_100K = replace(MAP_10K, name="map-100k", size=100_000, aims=(Aim(RATE, 50), *PRICE_OF_A_MAP))

JOBLIB_100K = replace(MAP_100K, name="map-100k-joblib", peer=JOBLIB, aims=(Aim(RATE, 2),))

CHUNKS_100K = replace(
    MAP_100K,
    name="map-100k-chunks",
    peer=replace(bare_ray("chunks"), name="bare Ray, by hand 1,000 a call"),
    aims=(Aim(RATE, 0.3),),
)

DASK_100K = replace(MAP_100K, name="map-100k-dask", peer=DASK, aims=(Aim(RATE),))
PARSL_100K = replace(MAP_100K, name="map-100k-parsl", peer=PARSL, aims=(Aim(RATE),))

BUSY = Case(
    "map-busy",
    "map of {size} no-ops while the flow computes in pure Python",
    100_000,
    raysched("beside_computing"),
    bare_ray("beside_computing", sample=SAMPLE),
    (Aim(RATE, 20_000, Of.OURS), Aim(RATE, 15)),
)

BYTES = Case(
    "map-bytes",
    "map of {size} with 200-byte arguments and results",
    100_000,
    raysched("payloads"),
    bare_ray("payloads", sample=SAMPLE),
    (Aim(RATE, 30), *PRICE),
)

FIRST_RESULT = Case(
    "first-result",
    "time until the first result of a map of {size} with 200 bytes",
    100_000,
    raysched("first_payload"),
    # Not a sample: Ray has no result before all calls are made.
    bare_ray("first_payload"),
    (Aim(FIRST, 1.5),),
    quick=0.03,
)

STREAM = Case(
    "stream-1m",
    "map of {size} no-ops, only their sum kept",
    1_000_000,
    raysched("streamed"),
    Side("raysched, 30 % of it", "benchmarks.ours", "streamed", share=0.3),
    (Aim(DRIVER_PEAK, 400, Of.OURS), Aim(DRIVER_PEAK, 1.1), Aim(RATE, of=Of.OURS)),
    quick=0.1,
    # The most that a process has ever held says nothing about its second turn.
    repeats=1,
)

TREE = Case(
    "tree",
    "tree reduction of {size} leaves",
    4_096,
    raysched("tree"),
    bare_ray("tree"),
    (Aim(RATE, 5), *PRICE),
    task_runs=lambda leaves: 2 * leaves - 1,
)

CLUSTER = Case(
    "cluster-1000",
    "{size} tasks of 0.1 s on a simulated cluster of 1,000 cores, virtual time",
    1_000_000,
    Side("raysched", "benchmarks.simulated", "cluster"),
    None,
    (Aim(efficiency(f"{CLUSTER_SLOTS:,} busy slots", on_cluster), 95, Of.OURS), Aim(RATE)),
    on_ray=False,
    quick=0.2,
    repeats=1,
)

CASES = (
    MAP_1K,
    MAP_10K,
    MAP_100K,
    JOBLIB_100K,
    CHUNKS_100K,
    DASK_100K,
    PARSL_100K,
    BUSY,
    BYTES,
    FIRST_RESULT,
    STREAM,
    TREE,
    CLUSTER,
)
