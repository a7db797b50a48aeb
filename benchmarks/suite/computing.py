"""Tasks that take a while: what is lost beside their own time."""

from dataclasses import replace
from functools import partial

from benchmarks.case import Case, Side
from benchmarks.load import WAIT_SECONDS, evenly, lower_bound, mixed
from benchmarks.metrics import DURATION, RATE, Aim, Of, efficiency
from benchmarks.suite.sides import pool, raysched

CPU_10MS = Case(
    "cpu-10ms",
    "{size} tasks of 10 ms CPU",
    2_000,
    raysched("computing", 0.01),
    pool("computing", 0.01),
    (
        Aim(efficiency("sum / cores", partial(evenly, 0.01)), 97, Of.OURS),
        Aim(RATE, 0.97),
    ),
    quick=0.25,
)

CPU_1MS = replace(
    CPU_10MS,
    name="cpu-1ms",
    work="{size} tasks of 1 ms CPU",
    size=20_000,
    ours=raysched("computing", 0.001),
    peer=pool("computing", 0.001),
    aims=(
        Aim(efficiency("sum / cores", partial(evenly, 0.001)), 93, Of.OURS),
        Aim(RATE, 0.93),
    ),
)

MIXED = Case(
    "cpu-mixed",
    "{size} tasks in random order, 1 ms or, one of 251, 1 s CPU",
    5_020,
    raysched("mixed_computing"),
    pool("mixed_computing"),
    (
        Aim(
            efficiency("the lower bound", lambda size: lower_bound(mixed(size))),
            93,
            Of.OURS,
        ),
        Aim(RATE),
    ),
    quick=0.2,
)

ASYNC_WAITS = Case(
    "waits-async",
    "{size} waits of 0.1 s, async def",
    1_000,
    raysched("async_waits"),
    Side("a thread each", "benchmarks.peers.threads", "waits"),
    (Aim(efficiency("0.1 s", lambda _: WAIT_SECONDS), 90, Of.OURS), Aim(DURATION)),
)

THREAD_WAITS = replace(
    ASYNC_WAITS,
    name="waits-threads",
    work="{size} waits of 0.1 s, max_concurrency",
    ours=raysched("thread_waits"),
)

CASES = (CPU_10MS, CPU_1MS, MIXED, ASYNC_WAITS, THREAD_WAITS)
