"""What is told of items whose process has to be ended, since they do not react."""

import logging
import threading
import time
from collections.abc import Sequence

from raysched.model.states import StateType
from raysched.worker.failures import add_evidence, add_stack
from raysched.worker.processes import started_processes
from raysched.worker.progress import Outcome
from raysched.worker.protocol import LogRecord
from raysched.worker.runner import LOGGER, UnitRun


def end_items(run: UnitRun, overdue: Sequence[int]) -> bool:
    """Take note of how items end that run code which cannot be interrupted.

    Args:
        run: Their unit.
        overdue: The items.

    Returns:
        Whether some do: otherwise all have ended by themselves meanwhile.
    """
    now, others = time.time_ns(), started_processes()
    some = False
    for position in overdue:
        started = run.progress.running.get(position, now)
        state, info = run.deadlines.verdict(position)
        if not run.overlaps:
            info = add_stack(info, threading.main_thread())
        message = info.message
        late = state is StateType.TIMED_OUT
        info = add_evidence(info, run.evidence(position, timed_out=late))
        if run.progress.end(Outcome(position, state, started, now, error=info)):
            some = True
            _log_end(run, position, message, others)
    return some


def _log_end(run: UnitRun, position: int, message: str, others: Sequence[str]) -> None:
    if others:
        message += f"; processes that it had started were ended with it: {', '.join(others)}"
    number, place = run.progress.unit.place(position)
    attempt, at = run.progress.unit.stages[number].attempts[place], time.time_ns()
    run.progress.log(LogRecord(position, attempt, at, logging.WARNING, LOGGER, message))
