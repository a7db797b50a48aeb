"""What collectors did not take, in as few lines as there are reasons."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from raysched.telemetry.ports import Signal

_SIGNALS = tuple(Signal)

_SILENT = re.compile(r"it has not answered yet|it did not answer within|DEADLINE_EXCEEDED")
"""Reasons that say no more than that there was no answer in the time that was left."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """What was not delivered of a signal.

    Attributes:
        signal: The signal.
        what: How much of it, for people: `12 log records`.
        reason: Where to, and why not: `http://box:4318/v1/logs: Connection refused`.
        later: What sends spans later, for people, or "": nothing else is kept.
    """

    signal: Signal
    what: str
    reason: str
    later: str = ""


def unsent_lines(parts: Iterable[Unsent]) -> list[str]:
    """Return what to say of it: a line for each place and cause.

    Args:
        parts: What was not delivered.
    """
    groups: dict[tuple[str, str], list[Unsent]] = {}
    # Where one has got no answer in its time, others that have asked there may know why.
    for part in sorted(parts, key=lambda part: (_is_silent(part), _SIGNALS.index(part.signal))):
        place, cause = _place_and_cause(part)
        key = place, cause
        if _is_silent(part):
            key = next((known for known in groups if known[0] == place), key)
        groups.setdefault(key, []).append(part)
    return [_line(*key, group) for key, group in groups.items()]


def _is_silent(part: Unsent) -> bool:
    return _SILENT.search(part.reason) is not None


def _place_and_cause(part: Unsent) -> tuple[str, str]:
    """Return where a collector is, without the path of the signal, and what it lacks."""
    place, _, cause = part.reason.partition(": ")
    return place.removesuffix(f"/v1/{part.signal}"), cause


def _line(place: str, cause: str, group: list[Unsent]) -> str:
    if len(group) == 1:
        (part,) = group
        later = f". Send them later by {part.later}" if part.later else ""
        return f"not sent: {part.what}: {part.reason}{later}"
    group.sort(key=lambda part: _SIGNALS.index(part.signal))
    what = "; ".join(part.what for part in group)
    later = "".join(f". Send the spans later by {part.later}" for part in group if part.later)
    return f"not sent: {what}: {place}: {cause}{later}"
