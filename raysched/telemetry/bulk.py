"""Spans of many task runs of a group at once: those that completed at their first attempt.

They differ in ids, times and numbers only. Members whose numbers are equally long share a template,
and `map` packs them column by column: 100,000 spans take no Python code each but their ids.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from raysched.model.states import StateType
from raysched.telemetry import otlp
from raysched.telemetry.encoding import (
    FLAGS,
    links_attributes,
    place_attributes,
    task_attributes,
    task_run_spans,
)
from raysched.telemetry.links import MAX_LINKS
from raysched.telemetry.needs import Needs
from raysched.telemetry.otlp import SpanTemplate, hole_of

_LINK_BYTES = 33
"""Length of a link: ids of trace and span, and flags."""

_VARINT_ENDS = (1 << 7, 1 << 14, 1 << 21, 1 << 28)


def group_spans(needs: Needs, positions: Iterable[int]) -> list[bytes]:
    """Return the spans of members of a group: `task` and `run` spans."""
    members, part = needs.members, needs.part
    alike = (
        not members.row.parent_key
        and not part.is_inside_task
        and len(needs.common.to) + len(needs.single) <= MAX_LINKS
    )
    spans: list[bytes] = []
    many: list[int] = []
    for position in positions:
        if alike and members.is_uneventful(position) and _is_like_others(needs, position):
            many.append(position)
        elif (task_run := part.task_run(members, position)) is not None:
            spans += task_run_spans(needs, task_run)
    for chosen in _equally_long(many, members.row.first):
        spans += _task_spans(needs, chosen)
        by_place: dict[int, list[int]] = {}
        for position in chosen:
            by_place.setdefault(members.places[position], []).append(position)
        for place, there in by_place.items():
            spans += _run_spans(needs, place, there)
    return spans


def _is_like_others(needs: Needs, position: int) -> bool:
    """Whether a member has no name of its own, and a link for each edge."""
    if position in needs.members.names:
        return False
    for parent, edge in needs.single:
        at = position + edge.index
        if at >= parent.row.size or not needs.part.fate(parent, at):
            return False
    return True


def _equally_long(positions: Sequence[int], first: int) -> Iterator[list[int]]:
    """Yield the positions in parts whose numbers are equally long, as text and as varint."""
    by_length: dict[tuple[int, int], list[int]] = {}
    for position in positions:
        digits = len(str(first + position))
        length = sum(position >= end for end in _VARINT_ENDS)
        by_length.setdefault((digits, length), []).append(position)
    yield from by_length.values()


def _task_spans(needs: Needs, positions: list[int]) -> Iterator[bytes]:
    """Yield `task` spans of members that are alike, with numbers that are equally long."""
    part, members = needs.part, needs.members
    row = members.row
    keys = [b"%d]" % (row.first + position) for position in positions]
    name = otlp.text(row.task) + b"["
    before_key = hole_of(9, "raysched.task.key", "s", len(name) + len(keys[0])) + name
    holes: list[tuple[bytes, str]] = [(before_key, f"{len(keys[0])}s")]
    columns: list[Iterable[Any]] = [keys]
    if row.mapped:
        numbers = [otlp.varint(position) for position in positions]
        size = len(numbers[0])
        holes.append((hole_of(9, "raysched.task.map_index", "v", size), f"{size}s"))
        columns.append(numbers)
    started, ended = members.started, members.ended
    queued = [needs.queued(position, started[position]) for position in positions]
    if queued[0] is not None:
        holes.append((hole_of(9, "raysched.task.queue_ms", "d", 8), "d"))
        columns.append(queued)
    before_link = b"\x6a" + otlp.varint(_LINK_BYTES) + otlp.link_head(part.trace_id)
    for parent, edge in needs.single:
        holes.append((before_link, "8s"))
        columns.append([part.told_as(parent, position + edge.index) for position in positions])
    head = otlp.span_head(f"task {row.task}", part.trace_id, part.span.span_id, FLAGS)
    of = task_attributes(members, StateType.COMPLETED, 1) | links_attributes(needs, needs.common)
    head += otlp.span_more(of, links=needs.common.encoded(part.trace_id))
    ids = [part.task_span(members, position) for position in positions]
    template = SpanTemplate(head, holes)
    yield from template.spans(
        ids, [started[i] for i in positions], [ended[i] for i in positions], columns
    )


def _run_spans(needs: Needs, place: int, positions: list[int]) -> Iterator[bytes]:
    """Yield `run` spans of members that are alike and ran in one place."""
    part, members = needs.part, needs.members
    head = otlp.span_head(f"run {members.row.task}", part.trace_id, b"", FLAGS)
    of = {"raysched.attempt.number": 1} | place_attributes(part.run.places.get(place))
    template = SpanTemplate(head + otlp.span_more(of), [(b"\x22\x08", "8s")])
    yield from template.spans(
        [part.attempt_span(members, position, 1) for position in positions],
        [members.started[i] for i in positions],
        [members.ended[i] for i in positions],
        [[part.task_span(members, position) for position in positions]],
    )
