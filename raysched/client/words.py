"""What rows say, in the words of Python: datetimes, states."""

import getpass
import re
import socket
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

from raysched.errors import UsageError
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo

OWN_FAILURES = (StateType.FAILED, StateType.TIMED_OUT, StateType.CRASHED)
"""States of task runs that failed themselves: the roots of whatever only followed."""

_ENDED_FROM_OUTSIDE = (StateType.CRASHED, StateType.TIMED_OUT, StateType.CANCELLED)
"""States of attempts whose end a worker may not have told."""

_UNNAMED = frozenset({"builtins", "__main__", "raysched.errors"})
"""Modules that people need not be told with the name of an exception's class."""

_KEY = re.compile(r"(?P<task>.+)\[(?P<index>\d+)\]")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc(ns: int) -> datetime | None:
    """Return nanoseconds since the epoch as a moment in UTC, 0 as None."""
    # In whole microseconds: a float has not enough digits for the last one.
    return _EPOCH + timedelta(microseconds=ns // 1000) if ns else None


def seconds_between(started: int, ended: int, state: StateType) -> float | None:
    """Return how long an attempt took (seconds), None where that is not known, or it is open.

    One whose worker broke, or was ended, before it had told of a start has its end for one.

    Args:
        started: When it began (ns since the epoch), 0 if that is not known.
        ended: When it ended, or its loss was seen, 0 while it is open.
        state: How it ended.
    """
    if not started or not ended or (started == ended and state in _ENDED_FROM_OUTSIDE):
        return None
    return (ended - started) / 10**9


def nanoseconds(when: datetime) -> int:
    """Return a moment, in local time if it has no time zone, as nanoseconds since the epoch."""
    return (when.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1) * 1000


def state_types(states: Iterable[StateType | str]) -> Collection[StateType] | None:
    """Return states, given themselves or by name, as a set; None for no states.

    Raises:
        UsageError: There is no state of that name.
    """
    types = set()
    for each in states:
        if isinstance(each, str) and each.upper() not in StateType.__members__:
            raise UsageError(
                f"there is no state {each!r}; there are {', '.join(StateType.__members__)}"
            )
        types.add(StateType[each.upper()] if isinstance(each, str) else each)
    return types or None


def split_key(key: str) -> tuple[str, int] | None:
    """Return task and index of a task run's key such as `parse[17]`, None for anything else."""
    match = _KEY.fullmatch(key)
    return (match["task"], int(match["index"])) if match else None


def who() -> str:
    """Return who asks for something, for people: `me@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number without a name.
        user = "someone"
    return f"{user}@{socket.gethostname()}"


def error_type(error: ErrorInfo) -> str:
    """Return the exception's class as tracebacks name it: `KeyError`, `shop.NotSold`."""
    module, _, name = error.type.rpartition(".")
    return name if module in _UNNAMED else error.type


def describe_error(error: ErrorInfo) -> str:
    """Return class and message of an exception in one line of a traceback: `KeyError: 'amount'`."""
    return ": ".join(filter(None, (error_type(error), error.message)))
