"""What is kept, and what is not done twice."""

from dataclasses import replace

from benchmarks.case import Case, Side
from benchmarks.metrics import DURATION, FIRST_NEW, LOST, RATE, REPEATED, Aim, Of
from benchmarks.suite.sides import SPACE, otherwise, raysched

RESUMING = "benchmarks.resuming"

RESUME = Case(
    "resume-100k",
    "map of {size} no-ops, resumed after its driver was killed at the half",
    100_000,
    Side("raysched", RESUMING, "resumed_map"),
    Side("bare Ray, a new task", RESUMING, "first_task"),
    (Aim(FIRST_NEW, 3, Of.OURS), Aim(REPEATED, 0, Of.OURS), Aim(LOST)),
)

RESUME_INLINE = replace(
    RESUME,
    name="resume-inline",
    work="the same, inline, of {size}",
    ours=replace(RESUME.ours, environment={"RAYSCHED_BACKEND": "inline"}),
    peer=None,
    on_ray=False,
)

RESUME_SUBMITS = replace(
    RESUME,
    name="resume-submits",
    work="{size} no-ops submitted one by one, resumed after the driver was killed at the half",
    size=10_000,
    ours=replace(RESUME.ours, turn="resumed_submits"),
)

RESUME_CALLS = replace(
    RESUME,
    name="resume-calls",
    work="{size} no-ops called one by one, resumed after the driver was killed at the half",
    size=2_000,
    ours=replace(RESUME.ours, turn="resumed_calls"),
)

HITS_10K = Case(
    "cache-hits-10k",
    "map of {size} cached results",
    10_000,
    raysched("hits", prepare="fill_cache"),
    otherwise("run", "uncached"),
    (Aim(RATE, 10_000, Of.OURS), *SPACE),
)

HITS_100K = replace(HITS_10K, name="cache-hits-100k", size=100_000)

MISSES_10K = Case(
    "cache-misses-10k",
    "map of {size} no-ops with a cache that has none of them",
    10_000,
    raysched("misses"),
    otherwise("not cached", "uncached"),
    (Aim(DURATION, 1.5), *SPACE),
)

MISSES_100K = replace(MISSES_10K, name="cache-misses-100k", size=100_000)

KEPT = Case(
    "kept-100k",
    "map of {size} no-ops, results kept",
    100_000,
    raysched("many"),
    otherwise("persist_result=False", "unkept"),
    (Aim(DURATION, 1.3), *SPACE),
)

KEPT_LARGE = Case(
    "kept-1mb",
    "map to {size} results of 1 MB, kept",
    200,
    raysched("large_results"),
    otherwise("persist_result=False", "large_results_unkept"),
    (Aim(DURATION),),
)

POSTGRESQL = Case(
    "map-100k-postgresql",
    "map of {size} no-ops, states in PostgreSQL",
    100_000,
    raysched("many", postgresql=True),
    otherwise("SQLite", "many"),
    (Aim(RATE, 0.5), *SPACE),
)

HITS_POSTGRESQL = replace(
    HITS_100K,
    name="cache-hits-postgresql",
    work="map of {size} cached results, states in PostgreSQL",
    ours=replace(HITS_100K.ours, postgresql=True),
)

MAP_FULL = Case(
    "map-100k-full",
    "map of {size} no-ops, synchronous=FULL",
    100_000,
    raysched("many"),
    otherwise("synchronous=NORMAL", "many", RAYSCHED_SQLITE_SYNCHRONOUS="NORMAL"),
    (Aim(RATE),),
)

CALLS_FULL = replace(
    MAP_FULL,
    name="calls-full",
    work="{size} no-ops called one after the other, synchronous=FULL",
    size=1_000,
    ours=raysched("calls"),
    peer=otherwise("synchronous=NORMAL", "calls", RAYSCHED_SQLITE_SYNCHRONOUS="NORMAL"),
)

CASES = (
    RESUME,
    RESUME_INLINE,
    RESUME_SUBMITS,
    RESUME_CALLS,
    HITS_10K,
    HITS_100K,
    HITS_POSTGRESQL,
    MISSES_10K,
    MISSES_100K,
    KEPT,
    KEPT_LARGE,
    POSTGRESQL,
    MAP_FULL,
    CALLS_FULL,
)
