"""Units that cannot be sent to a worker: what is wrong with them is their outcome."""

import time

from raysched.model.states import StateType
from raysched.worker.failures import describe_error
from raysched.worker.progress import Outcome, UnitProgress, WorkerIdentity
from raysched.worker.protocol import decode_unit


def refuse(frame: bytes, identity: WorkerIdentity, error: Exception) -> bytes:
    """Return the report of a unit that cannot be sent to a worker: all its items FAILED."""
    progress = UnitProgress(decode_unit(frame), identity)
    info = describe_error(error, name=progress.unit.stages[0].task_name)
    now = time.time_ns()
    for position in progress.open_positions():
        progress.end(Outcome(position, StateType.FAILED, now, now, error=info))
    return progress.final()
