"""The cases, with what each aims at."""

from dataclasses import replace

from benchmarks import bare_ray, ours, threads
from benchmarks.case import (
    DATABASE,
    DRIVER_CPU,
    DRIVER_PEAK,
    DURATION,
    RATE,
    Aim,
    Case,
    Side,
    efficiency,
)
from benchmarks.cold import start

RAYSCHED = "raysched"
BARE_RAY = "bare Ray"

DRIVER = (Aim(DRIVER_CPU), Aim(DRIVER_PEAK), Aim(DATABASE))
"""What it costs beside time."""

SUBMITS = Case(
    "submits",
    "{size} no-ops submitted one by one, results gathered",
    5_000,
    Side(RAYSCHED, ours.submits, ours.warm_up),
    Side(BARE_RAY, bare_ray.many, bare_ray.warm_up),
    (Aim(RATE, 0.8), *DRIVER),
)

MAP_1K = Case(
    "map-1k",
    "map of {size} no-ops, results gathered",
    1_000,
    Side(RAYSCHED, ours.many, ours.warm_up),
    Side(BARE_RAY, bare_ray.many, bare_ray.warm_up),
    (Aim(RATE, 0.8), *DRIVER),
)

MAP_100K = replace(MAP_1K, name="map-100k", size=100_000, repeats=3)

CALLS = Case(
    "calls",
    "{size} no-ops called one after the other",
    1_000,
    Side(RAYSCHED, ours.calls, ours.warm_up),
    Side(BARE_RAY, bare_ray.calls, bare_ray.warm_up),
    (Aim(RATE, 0.75), *DRIVER),
)

CALLS_NORMAL = replace(
    CALLS,
    name="calls-normal",
    work="{size} no-ops called one after the other, synchronous=NORMAL",
    ours=replace(CALLS.ours, environment={"RAYSCHED_SQLITE_SYNCHRONOUS": "NORMAL"}),
    aims=(Aim(RATE),),
)

ASYNC_WAITS = Case(
    "waits-async",
    "{size} waits of 0.1 s, async def",
    ours.WAITS,
    Side(RAYSCHED, ours.async_waits, ours.warm_up),
    Side("a thread each", threads.waits),
    (Aim(DURATION, 1.5), Aim(efficiency(ours.WAIT_SECONDS))),
)

THREAD_WAITS = replace(
    ASYNC_WAITS,
    name="waits-threads",
    work="{size} waits of 0.1 s, max_concurrency",
    ours=Side(RAYSCHED, ours.thread_waits, ours.warm_up),
)

COLD = Case(
    "cold",
    "script with a flow of one task",
    1,
    Side(RAYSCHED, start.ours),
    Side(BARE_RAY, start.bare_ray),
    (Aim(DURATION, 1.05),),
    on_ray=False,
)

COLD_INLINE = replace(
    COLD,
    name="cold-inline",
    work="script with a flow of one task, inline",
    ours=Side(RAYSCHED, start.ours, environment={"RAYSCHED_BACKEND": "inline"}),
    peer=None,
    aims=(Aim(DURATION, 0.5, of_ratio=False),),
)

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        SUBMITS,
        MAP_1K,
        replace(MAP_1K, name="map-10k", size=10_000),
        MAP_100K,
        CALLS,
        CALLS_NORMAL,
        ASYNC_WAITS,
        THREAD_WAITS,
        COLD,
        COLD_INLINE,
    )
}
