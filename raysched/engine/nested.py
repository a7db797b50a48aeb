"""Tasks and flows that a task calls itself: they run in its worker, under its attempt.

A small engine of their own runs them one after the other in the attempt's thread. What it would
commit is collected as plain data and travels home in the attempt's report: evidence of what
happened, not something that a resume could begin from.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from raysched.define.context import AttemptContext, Surroundings
from raysched.define.ports import FlowRunStart
from raysched.engine.engine import Engine
from raysched.engine.flow_run import OpenFlowRun
from raysched.engine.placing import NestedRows, plain
from raysched.engine.ports import Backend, Clock
from raysched.errors import InternalError, RunNotFound
from raysched.model.options import FlowSpec
from raysched.model.records import CacheAnswer, CacheClaim, CacheVerdict, Records, Takeover
from raysched.model.rows import Batch, Execution, FlowRunRow
from raysched.model.traces import NOWHERE, Standing, TraceParent, flow_span_id
from raysched.settings import Settings


class CollectingStore:
    """A store that keeps everything in memory, for an attempt's report."""

    def __init__(self) -> None:
        self.rows = NestedRows([], [])
        self._opened = False

    def open_run(self, row: FlowRunRow) -> int:
        """See `Store.open_run`; the first one is the flow run around the attempt, number 0."""
        if not self._opened:
            self._opened = True
            return 0
        self.rows.flow_runs.append(row)
        return len(self.rows.flow_runs)

    def take_over(
        self, run_id: str, execution: Callable[[Sequence[Execution]], Execution]
    ) -> Takeover:
        """See `Store.take_over`: nothing is ever resumed in an attempt."""
        del execution
        raise self._unknown(run_id)

    def records(self, run: int) -> Records:
        """See `Store.records`: there are none."""
        return Records(run, [])

    def number_of(self, run_id: str) -> int:
        """See `Store.number_of`."""
        raise self._unknown(run_id)

    def claim(self, run: int, claims: Sequence[CacheClaim], now: int = 0) -> Sequence[CacheAnswer]:
        """See `Store.claim`: no results are known here, so each is made."""
        del run, now
        return [CacheAnswer(CacheVerdict.MINE)] * len(claims)

    def commit(self, batch: Batch) -> None:
        """See `Store.commit`."""
        self.rows.batches.append(batch)

    def values(self, run: int, group: int, start: int, stop: int) -> dict[int, bytes]:
        """See `Store.values`."""
        return {
            index: value
            for batch in self.rows.batches
            if batch.run == run
            for columns in batch.task_runs
            if columns.group == group
            for index, value in zip(columns.indices, columns.values, strict=True)
            if start <= index < stop and value is not None
        }

    def requests(self, run: int, after: int) -> tuple[()]:
        """See `Store.requests`: who cancels asks the driver, which cancels the attempt."""
        del run, after
        return ()

    def close(self) -> None:
        """See `Store.close`."""

    def _unknown(self, run_id: str) -> RunNotFound:
        return RunNotFound(
            f"run {run_id!r}: an attempt of a task knows no earlier runs; resume or rerun it in "
            "the process that runs the flow"
        )


class AttemptTelemetry:
    """Lets what an attempt calls stand in the trace of its flow run.

    Spans of the flow functions that it calls are below the attempt, as its own are.

    Args:
        surroundings: Of the attempt.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self.extension = surroundings.extension
        self._surroundings = surroundings

    def __call__(self, run: FlowRunRow, batch: Batch) -> None:
        """See `Observer`: what is committed here is told when it has come home."""

    def begin(self, start: FlowRunStart, earlier: Sequence[Execution]) -> Standing:
        """See `Telemetry.begin`: here, there are only subflows."""
        del start, earlier
        return NOWHERE

    def place(self, row: FlowRunRow) -> TraceParent | None:
        """See `Telemetry.place`."""
        around = self._surroundings
        flow = TraceParent.parse(around.traceparent, around.tracestate)
        if flow is None or row.id == around.flow_run_id:
            return flow
        return flow._replace(span_id=flow_span_id(row.id, len(row.executions)))

    def around(self, row: FlowRunRow) -> AbstractContextManager[None]:
        """See `Telemetry.around`."""
        del row
        return nullcontext()

    def close(self) -> None:
        """See `Telemetry.close`."""


def open_nested(
    attempt: AttemptContext, backend: Backend, settings: Settings, clock: Clock
) -> OpenFlowRun:
    """See `define.ports.open_nested`.

    Args:
        attempt: The attempt.
        backend: A pumped backend of its own.
        settings: Settings.
        clock: Where the time comes from.
    """
    store, around = CollectingStore(), attempt.surroundings
    attempt.evidence = partial(plain, store.rows)
    start = FlowRunStart(
        run_id=around.flow_run_id,
        name=around.flow_run_name,
        spec=FlowSpec(around.flow_name, fn=_no_function),
        parameters={},
        tags=around.flow_run_tags,
        within=(around.execution, *attempt.as_within),
    )
    telemetry = AttemptTelemetry(around) if around.traceparent else None
    engine = Engine(backend, store, settings, clock, telemetry=telemetry, takes_requests=False)
    return engine.open_run(start)


class NestedEngine:
    """The engine of flows that an attempt calls."""

    def __init__(self, attempt: AttemptContext) -> None:
        self._attempt = attempt

    def open_run(self, start: FlowRunStart) -> OpenFlowRun:
        """See `define.ports.Engine.open_run`."""
        nested = self._attempt.nested_port()
        if not isinstance(nested, OpenFlowRun):
            message = f"the attempt of {self._attempt.task_run_key} has a foreign port"
            raise InternalError(message)
        return nested.host.open_run(start)


def _no_function() -> None:
    """Stand for the flow function, which runs elsewhere."""
