"""What a driver exports, opened in one place: traces, metrics and log records."""

import logging
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from typing import cast

from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler

from raysched.define.ports import FlowRunStart
from raysched.errors import StoreError
from raysched.model.rows import Batch, Execution, FlowRunRow
from raysched.model.traces import NOWHERE, Standing
from raysched.settings import Settings
from raysched.telemetry import otlp
from raysched.telemetry.history import History, Retelling
from raysched.telemetry.logs import open_logs
from raysched.telemetry.metrics.consumer import open_metrics
from raysched.telemetry.ports import Consumer, Signal, SpanSink
from raysched.telemetry.progress import Progress
from raysched.telemetry.provider import driver_spans
from raysched.telemetry.provider_sink import ProviderSink
from raysched.telemetry.sampling import sampler_of_environment, stand
from raysched.telemetry.sending import environment
from raysched.telemetry.sending.pipeline import Pipeline
from raysched.telemetry.sending.spans import SpanSender, encoder
from raysched.telemetry.sending.transports import open_transport
from raysched.telemetry.traces import Traces
from raysched.telemetry.unsent import Unsent, unsent_lines
from raysched.telemetry.wanted import program_tracer, traces_destination

logger = logging.getLogger("raysched.telemetry")

NAMED = 3
"""How many runs a line names."""


class Exports:
    """Everything that is exported of the flow runs of this process.

    Args:
        settings: Settings of this process.
        history: What is kept of runs; closed with this.

    Raises:
        SettingsError: An `OTEL_*` variable has an impossible value.
    """

    def __init__(self, settings: Settings, history: History) -> None:
        self._settings = settings
        self._history = history
        self._sink: SpanSink | None = None
        self._sampler: Sampler | None = None
        self._dropped = 0
        self._retelling: Retelling | None = None
        self._progress = Progress(self._mark)
        resource = otlp.resource(cast("otlp.Attributes", environment.resource().attributes))
        self._metrics = open_metrics(settings, resource, history.replay)
        self._logs = open_logs(resource, history.replay)
        self._open_sink()
        consumers: list[Consumer] = []
        if self._sink is not None:
            traces = Traces(
                settings.trace_max_spans,
                self._sink,
                self._progress,
                history.replay,
                self._were_dropped,
            )
            consumers.append(traces)
            if isinstance(self._sink, SpanSender):
                driver_spans.attach(traces.own.put, self._sampler)
            self._retelling = Retelling(
                history, settings.trace_max_spans, self._sink, self._progress
            )
        consumers += [each for each in (self._metrics, self._logs) if each is not None]
        self._pipeline = Pipeline(consumers, logs=self._logs is not None)

    def stand(self, start: FlowRunStart, earlier: Sequence[Execution]) -> Standing:
        """Return where an execution of a flow run stands; see `Telemetry.begin`."""
        if self._sampler is not None:
            return stand(self._sampler, start, earlier)
        # Log records tell it, even where nobody wants the spans.
        return stand(ALWAYS_OFF, start, earlier) if self._logs is not None else NOWHERE

    def put(self, row: FlowRunRow, batch: Batch) -> None:
        """Tell a committed batch, sooner or later."""
        self._pipeline.put(row, batch)
        if self._retelling is not None:
            self._retelling.begin()

    def settle(self) -> None:
        """Hand over, within a bounded time, what a program may flush or shut down by itself."""
        if isinstance(self._sink, ProviderSink):
            self._pipeline.settle(self._settings.telemetry_flush_seconds)

    def close(self) -> None:
        """Deliver what is left, for a bounded time, and say what was not."""
        driver_spans.detach()
        if self._retelling is not None:
            self._retelling.stop()
        self._pipeline.close(self._settings.telemetry_flush_seconds)
        self._say()
        self._history.close()

    def _open_sink(self) -> None:
        tracer = program_tracer(version("raysched"))
        if tracer is not None:
            self._sink = ProviderSink(tracer, self._progress.delivered)
            self._sampler = tracer.sampler
            return
        target = traces_destination(self._settings)
        if target is not None:
            self._sink = SpanSender(open_transport(target), encoder(), self._progress.delivered)
            self._sampler = sampler_of_environment()

    def _mark(self, run_id: str, executions: int) -> None:
        try:
            self._history.delivered(run_id, executions)
        except StoreError as error:
            # At worst the spans are sent once more.
            logger.debug("run %s was not marked as traced: %s", run_id, error)

    def _were_dropped(self, number: int) -> None:
        self._dropped += number
        if self._metrics is not None:
            self._metrics.dropped(Signal.TRACES, number)

    def _say(self) -> None:
        others = (self._metrics, self._logs)
        parts = [self._unsent_spans(), *(each.unsent() for each in others if each is not None)]
        for line in unsent_lines(part for part in parts if part is not None):
            logger.warning("%s", line)
        if self._dropped:
            logger.warning("%d spans of user code were dropped: too many at once", self._dropped)

    def _unsent_spans(self) -> Unsent | None:
        if self._sink is None:
            return None
        unsent, behind = self._sink.unsent(), self._pipeline.behind()
        others = self._retelling.runs if self._retelling is not None else set()
        runs = sorted({*unsent, *behind} - others - {""})
        if runs:
            parts = [_unsent_of(run, unsent, behind) for run in runs[:NAMED]]
            more = f" and of {len(runs) - NAMED} more" if len(runs) > NAMED else ""
            reason = self._sink.reason() or "there was no time left for them"
            commands = ", ".join(f"`raysched trace {run[:8]} --send`" for run in runs[:NAMED])
            return Unsent(Signal.TRACES, f"{'; '.join(parts)}{more}", reason, commands)
        if unsent:
            number = sum(unsent.values())
            what = f"{number} {_spans(number)} that belong to no run"
            return Unsent(Signal.TRACES, what, self._sink.reason())
        return None


def _unsent_of(run: str, unsent: Mapping[str, int], behind: Collection[str]) -> str:
    number = unsent.get(run)
    if not number:
        return f"the trace of run {run[:8]}"
    at_least = "at least " if run in behind else ""
    return f"{at_least}{number} {_spans(number)} of run {run[:8]}"


def _spans(number: int) -> str:
    return "span" if number == 1 else "spans"
