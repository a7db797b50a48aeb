"""What stories of task runs are told with."""

from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, FailureClass
from raysched.tracker import Run
from raysched.tracker.messages import TimePassed, UnitEnded
from tracker.book import SECOND
from tracker.graphs import add
from tracker.ledger import Ledger

STATE_OF = {
    FailureClass.USER: StateType.FAILED,
    FailureClass.TIMEOUT: StateType.TIMED_OUT,
    FailureClass.INFRASTRUCTURE: StateType.CRASHED,
    FailureClass.CANCELLED: StateType.CANCELLED,
}


def ledger_of(*tasks: TaskSpec, slots: int | None = 2, max_parallel: int | None = None) -> Ledger:
    """A run with one call of each task, planned."""
    ledger = Ledger(Run("run", max_parallel), slots=slots)
    for task in tasks:
        add(ledger.builder, task)
    ledger.plan()
    return ledger


def fail_with(ledger: Ledger, unit: int, error: ErrorInfo, position: int = 0) -> None:
    """Have the attempt at a position of a unit fail with this error."""
    times = [ledger.now]
    state = bytes([STATE_OF[error.failure_class]])
    ledger.tell(UnitEnded(unit, [position], state, times, times, [None], {position: error}))


def wait(ledger: Ledger, seconds: float) -> None:
    """Let the time pass, and wake the tracker as often as it has asked for."""
    end = ledger.now + int(seconds * SECOND)
    while ledger.wakes and min(ledger.wakes) <= end:
        ledger.wake()
    ledger.now = end
    ledger.tell(TimePassed(end))
