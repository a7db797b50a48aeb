"""Spans of user code whose `run` span is not told: they go below the one that stands for it."""

from collections.abc import Iterable, Sequence

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from raysched.telemetry.building.parts import FOLDED, KEPT, Part


def adopt(scopes: Sequence[bytes], parts: Iterable[Part]) -> list[bytes]:
    """Return encoded `ScopeSpans` in which no span is below one that is not told.

    Args:
        scopes: As user code made them in workers.
        parts: Of their trace.
    """
    if not any(_is_short(part) for part in parts):
        return list(scopes)
    messages = [ScopeSpans.FromString(scope) for scope in scopes]
    wanted = {span.parent_span_id for message in messages for span in message.spans}
    instead: dict[bytes, bytes] = {}
    for part in parts:
        instead |= _stand_ins(part, wanted)
    for message in messages:
        for span in message.spans:
            span.parent_span_id = instead.get(span.parent_span_id, span.parent_span_id)
    return [message.SerializeToString() for message in messages]


def _is_short(part: Part) -> bool:
    return bool(part.blocks or part.suppressed)


def _stand_ins(part: Part, wanted: set[bytes]) -> dict[bytes, bytes]:
    """Return what is told instead of `run` spans of a part, by their ids."""
    nearest = part
    while not nearest.kept and nearest.parent is not None:
        nearest = nearest.parent
    found: dict[bytes, bytes] = {}
    for members in part.groups:
        for position in part.present(members):
            fate = part.fate(members, position)
            if fate == KEPT:
                continue
            for number in range(1, members.numbers[position] + 1):
                span_id = part.attempt_span(members, position, number)
                if span_id in wanted:
                    told = part.told_as(members, position) if fate == FOLDED else None
                    found[span_id] = told or nearest.span.span_id
    return found
