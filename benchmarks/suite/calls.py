"""Tasks called one by one."""

from dataclasses import replace

from benchmarks.case import Case
from benchmarks.metrics import RATE, Aim
from benchmarks.suite.sides import PRICE, SAMPLE, bare_ray, raysched

SUBMITS = Case(
    "submits",
    "{size} no-ops submitted one by one, results gathered",
    20_000,
    raysched("submits"),
    bare_ray("many", sample=SAMPLE),
    (Aim(RATE, 20), *PRICE),
)

CHAIN = Case(
    "chain",
    "chain of {size} submits, each with the one before",
    1_000,
    raysched("chain"),
    bare_ray("chain"),
    (Aim(RATE, 30), *PRICE),
)

CALLS = Case(
    "calls",
    "{size} no-ops called one after the other",
    1_000,
    raysched("calls"),
    bare_ray("calls"),
    (Aim(RATE, 0.75), *PRICE),
)

CALLS_NORMAL = replace(
    CALLS,
    name="calls-normal",
    work="{size} no-ops called one after the other, synchronous=NORMAL",
    ours=replace(CALLS.ours, environment={"RAYSCHED_SQLITE_SYNCHRONOUS": "NORMAL"}),
    aims=(Aim(RATE),),
)

CALLS_POSTGRESQL = replace(
    CALLS,
    name="calls-postgresql",
    work="{size} no-ops called one after the other, states in PostgreSQL",
    ours=replace(CALLS.ours, postgresql=True),
    aims=(Aim(RATE),),
)

CASES = (SUBMITS, CHAIN, CALLS, CALLS_NORMAL, CALLS_POSTGRESQL)
