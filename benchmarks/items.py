"""What a worker does for its task runs: units that run in this process, without Ray or a driver."""

import time
from collections.abc import Iterator
from functools import cache

from benchmarks import ours
from benchmarks.case import Told
from raysched.graph.payload import dump_call
from raysched.model.ids import new_run_id
from raysched.model.traces import TraceParent, flow_span_id, trace_id
from raysched.results.envelope import decode
from raysched.settings import settings
from raysched.worker.context import WorkerContext, context_of
from raysched.worker.functions import LocalFunction
from raysched.worker.protocol import (
    RunHeader,
    Stage,
    Unit,
    decode_report,
    encode_header,
    encode_unit,
)
from raysched.worker.runner import Process, UnitRun

UNIT = 1_000
"""Items of a unit, as a long map of no-ops has them."""

HERE = Process(("node", "worker", 1, "host"))

EXTENSION = "raysched.telemetry.workers:user_spans"


def traced(size: int) -> Told:
    run = new_run_id()
    place = TraceParent(trace_id(run), flow_span_id(run))
    return _told(RunHeader(run, "run", "flow", traceparent=str(place), extension=EXTENSION), size)


def untraced(size: int) -> Told:
    return _told(RunHeader(new_run_id(), "run", "flow"), size)


def _told(header: RunHeader, size: int) -> Told:
    """Run units of one flow run; tell the CPU time of what runs them."""
    total, used = 0, 0.0
    began = time.perf_counter()
    for frame in _frames(header, size):
        cpu = time.process_time()
        report, _ = UnitRun([_context()], frame, [], HERE).run()
        used += time.process_time() - cpu
        values = decode_report(report).values
        total += sum(decode(value) for value in values if isinstance(value, bytes))
    return Told(total, time.perf_counter() - began, {"worker_cpu": used})


def _frames(header: RunHeader, size: int) -> Iterator[bytes]:
    encoded, shared = encode_header(header), dump_call((("number",), {}))[0]
    for first in range(0, size, UNIT):
        numbers = range(first, min(first + UNIT, size))
        stage = Stage(
            "noop",
            mapped=True,
            shared=shared,
            tags=(),
            numbers=numbers,
            attempts=[1] * len(numbers),
            columns=(numbers,),
        )
        yield encode_unit(Unit(1, encoded, (stage,)))


@cache
def _context() -> WorkerContext:
    return context_of(ours.noop.spec, settings(), LocalFunction)
