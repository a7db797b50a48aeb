"""Whole processes from nothing to their end."""

from dataclasses import replace

from benchmarks.case import Case, Side
from benchmarks.metrics import DURATION, Aim, Of

MODULE = "benchmarks.cold.start"

COLD = Case(
    "cold",
    "script with a flow of one task, which starts Ray",
    1,
    Side("raysched", MODULE, "ours"),
    Side("bare Ray", MODULE, "bare_ray"),
    (Aim(DURATION, 1.05),),
    on_ray=False,
)

RUNNING = Case(
    "cold-running",
    "the same script where Ray runs already",
    1,
    Side("raysched", MODULE, "ours"),
    Side("bare Ray", MODULE, "bare_ray_running"),
    (Aim(DURATION, 0.3, Of.DIFFERENCE),),
)

INLINE = replace(
    COLD,
    name="cold-inline",
    work="the same script, inline",
    ours=Side("raysched", MODULE, "ours", environment={"RAYSCHED_BACKEND": "inline"}),
    peer=None,
    aims=(Aim(DURATION, 0.5, Of.OURS),),
)

IMPORT = replace(
    COLD,
    name="cold-import",
    work="import raysched",
    ours=Side("raysched", MODULE, "importing"),
    peer=Side("Python alone", MODULE, "nothing"),
    aims=(Aim(DURATION, 0.15, Of.DIFFERENCE),),
    repeats=5,
)

CASES = (COLD, RUNNING, INLINE, IMPORT)
