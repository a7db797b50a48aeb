"""The states of task runs and flow runs.

Rules work on `StateType`; the free name and message beside it are for people. A column of states
is a `bytearray` of these codes, so the codes are part of the database format: never renumber one.
"""

from enum import IntEnum


class StateType(IntEnum):
    """What a run is doing, or how it ended. Codes below 16 are open, the others terminal."""

    SCHEDULED = 0
    PENDING = 1
    RUNNING = 2
    AWAITING_RETRY = 3
    PAUSED = 4
    CANCELLING = 5

    COMPLETED = 16
    CACHED = 17
    SKIPPED = 18
    FAILED = 19
    TIMED_OUT = 20
    CRASHED = 21
    UPSTREAM_FAILED = 22
    CANCELLED = 23

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing leaves this state."""
        return self >= FIRST_TERMINAL


FIRST_TERMINAL = 16

SUCCESSES = frozenset({StateType.COMPLETED, StateType.CACHED})
"""Terminal states that have a value."""

FAILURES = frozenset(
    {
        StateType.FAILED,
        StateType.TIMED_OUT,
        StateType.CRASHED,
        StateType.UPSTREAM_FAILED,
        StateType.CANCELLED,
    }
)
"""Terminal states that make `all_success` impossible and a flow run fail if unhandled."""

ROOT_FAILURES = FAILURES - {StateType.UPSTREAM_FAILED}
"""Failures that did not merely follow from another one."""

FAILED_ITSELF = ROOT_FAILURES - {StateType.CANCELLED}
"""Failures that nobody asked for."""
