"""Units that run here, in this process, with what they report."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from raysched.graph.payload import dump_call
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.settings import Settings
from raysched.worker.context import WorkerContext, context_of
from raysched.worker.functions import LocalFunction
from raysched.worker.protocol import (
    LogRecord,
    Report,
    RunHeader,
    SlotValue,
    Stage,
    Unit,
    decode_report,
    encode_header,
    encode_unit,
)
from raysched.worker.runner import Process, UnitRun

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raysched.model.values import ErrorInfo

Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments, by position and by name."""

HERE = Process(("node", "worker", 1, "host"))

HEADER = encode_header(RunHeader("r" * 32, "run", "flow"))


@dataclass
class Ended:
    """How one item ended."""

    state: StateType
    value: Any
    info: ErrorInfo | None
    logs: list[LogRecord]

    @property
    def error(self) -> ErrorInfo:
        """What is known about its failure."""
        assert self.info is not None
        return self.info


def new_context(spec: TaskSpec, mask: str = "") -> WorkerContext:
    """Return the context of a task."""
    return context_of(spec, Settings(mask=mask), LocalFunction)


def new_run(
    context: WorkerContext,
    calls: Sequence[Call],
    slots: Sequence[tuple[SlotValue, ...]] = (),
) -> UnitRun:
    """Return a unit of these calls."""
    payloads = [dump_call(call)[0] for call in calls]
    size = len(calls)
    stage = Stage(
        context.task_name,
        mapped=False,
        shared=b"",
        tags=(),
        numbers=range(size),
        attempts=[1] * size,
        payloads=payloads,
        slots=slots,
    )
    return UnitRun([context], encode_unit(Unit(1, HEADER, (stage,))), [], HERE)


def ended(report: Report) -> list[Ended]:
    """Return how items ended, in their order."""
    columns = zip(report.positions, report.states, report.values, strict=True)
    return [
        Ended(
            StateType(state),
            pickle.loads(value) if isinstance(value, bytes) else None,
            report.errors.get(position),
            [log for log in report.logs if log.position == position],
        )
        for position, state, value in sorted(columns, key=lambda column: column[0])
    ]


def outcomes(run: UnitRun) -> list[Ended]:
    """Run a unit; return how its items ended."""
    return ended(decode_report(run.run()[0]))


def outcome(
    function: Callable[..., Any],
    *args: Any,
    slots: tuple[SlotValue, ...] = (),
    mask: str = "",
    options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Ended:
    """Call a function as a task; return how it ended."""
    spec = TaskSpec("work", function, **(options or {}))
    calls = [(args, kwargs)]
    (found,) = outcomes(new_run(new_context(spec, mask), calls, [slots] if slots else ()))
    return found
