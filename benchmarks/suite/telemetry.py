"""What it costs to be told what happened: traces and metrics."""

from dataclasses import replace

from benchmarks.case import Case, Side
from benchmarks.metrics import (
    DELIVERED,
    DRIVER_CPU,
    MISSING,
    RATE,
    SPANS,
    STALL,
    TWICE,
    WIRE,
    WORKER_CPU,
    Aim,
    Of,
)

MODULE = "benchmarks.traced"

ALL_SPANS = {"RAYSCHED_TRACE_MAX_SPANS": "0"}

UNTRACED = Side("raysched, not traced", MODULE, "watched_map", prepare="alone")

TRACED = Case(
    "traced-100k",
    "map of {size} no-ops, traced, its task runs folded",
    100_000,
    Side("raysched", MODULE, "traced_map", prepare="traces"),
    UNTRACED,
    (Aim(RATE, 0.8), Aim(DELIVERED), Aim(STALL), Aim(DRIVER_CPU), Aim(SPANS)),
    repeats=5,
)

TRACED_ALL = replace(
    TRACED,
    name="traced-100k-all",
    work="map of {size} no-ops, traced, a span for each task run and attempt",
    ours=replace(TRACED.ours, environment=ALL_SPANS),
    aims=(
        Aim(RATE, 0.5),
        Aim(DELIVERED),
        Aim(MISSING, 0, Of.OURS),
        Aim(TWICE, 0, Of.OURS),
        Aim(STALL),
        Aim(DRIVER_CPU),
        Aim(WIRE),
    ),
)

TRACED_GZIP = replace(
    TRACED_ALL,
    name="traced-100k-gzip",
    work="the same of {size}, compressed",
    ours=replace(
        TRACED.ours,
        environment={**ALL_SPANS, "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"},
    ),
)

TRACED_CALLS = replace(
    TRACED,
    name="traced-calls",
    work="{size} no-ops called one after the other, traced",
    size=2_000,
    ours=replace(TRACED.ours, turn="traced_calls"),
    peer=replace(UNTRACED, turn="watched_calls"),
    aims=(Aim(RATE), Aim(DRIVER_CPU)),
)

MEASURED = replace(
    TRACED,
    name="measured-100k",
    work="map of {size} no-ops, with metrics",
    ours=Side("raysched", MODULE, "watched_map", prepare="metrics"),
    peer=replace(UNTRACED, name="raysched, without metrics"),
    aims=(Aim(RATE), Aim(STALL), Aim(DRIVER_CPU)),
)

PROPAGATION = Case(
    "traced-items",
    "{size} no-ops in units of 1,000, in one process without Ray: the traced run's worker",
    100_000,
    Side("raysched", "benchmarks.items", "traced"),
    Side("raysched, not traced", "benchmarks.items", "untraced"),
    (Aim(WORKER_CPU, 5, Of.DIFFERENCE),),
    on_ray=False,
    repeats=5,
)

CASES = (TRACED, TRACED_ALL, TRACED_GZIP, TRACED_CALLS, MEASURED, PROPAGATION)
