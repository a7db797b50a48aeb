"""Where the flow runs of an engine stand in traces."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from raysched.define.ports import FlowRunStart
from raysched.engine.ports import Clock, Observer, Telemetry
from raysched.model.rows import Execution, FlowRunRow
from raysched.model.traces import NOWHERE
from raysched.worker.protocol import RunHeader

logger = logging.getLogger("raysched.engine")

T = TypeVar("T")


class Tracing:
    """What an engine asks of its telemetry. What that raises is logged, and harms no flow run.

    Args:
        telemetry: The telemetry, or None.
        clock: Where the time comes from.
    """

    def __init__(self, telemetry: Telemetry | None, clock: Clock) -> None:
        self._telemetry = telemetry
        self._clock = clock

    def execution(self, start: FlowRunStart, earlier: Sequence[Execution] = ()) -> Execution:
        """Return the execution that begins.

        Args:
            start: What is being opened.
            earlier: The executions that the flow run has had.
        """
        telemetry, standing = self._telemetry, NOWHERE
        if telemetry is not None and start.parent is None:
            standing = _asked(lambda: telemetry.begin(start, earlier), standing)
        return Execution(self._clock.now(), *standing)

    def header(self, header: RunHeader, start: FlowRunStart, row: FlowRunRow) -> RunHeader:
        """Return a header that also tells where its flow run stands."""
        telemetry = self._telemetry
        if telemetry is None:
            return header
        place = _asked(lambda: telemetry.place(row), None)
        if place is None:
            return header
        header = header._replace(
            traceparent=str(place),
            tracestate=place.state,
            execution=len(row.executions),
            extension=telemetry.extension,
        )
        if start.within is None:
            return header
        execution, task, index, attempt = start.within
        return header._replace(execution=execution, within=(task, index, attempt))

    @contextmanager
    def around(self, row: FlowRunRow) -> Iterator[None]:
        """Let spans that are made in the block be below the flow span of an open flow run."""
        with ExitStack() as stack:
            telemetry = self._telemetry
            if telemetry is not None:
                _asked(lambda: stack.enter_context(telemetry.around(row)), None)
            yield

    def close(self) -> None:
        """See `Telemetry.close`."""
        if self._telemetry is not None:
            _asked(self._telemetry.close, None)


def _asked(question: Callable[[], T], otherwise: T) -> T:
    try:
        return question()
    except Exception:
        logger.exception("telemetry raised")
        return otherwise


def observing(observers: Sequence[Observer], telemetry: Telemetry | None) -> Sequence[Observer]:
    """Return who looks at committed batches: telemetry last."""
    return observers if telemetry is None else (*observers, telemetry)
