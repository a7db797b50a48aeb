"""Spans of many task runs of a group at once: those that completed at their first attempt.

They differ in ids, times and numbers only. Members whose numbers are equally long share a template,
and `map` packs them column by column, so that a span costs no Python code of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from raysched.model.states import StateType
from raysched.telemetry import otlp
from raysched.telemetry.building.encoding import (
    links_attributes,
    place_attributes,
    span_head,
    task_attributes,
    task_run_spans,
)
from raysched.telemetry.building.links import MAX_LINKS
from raysched.telemetry.building.needs import Needs
from raysched.telemetry.otlp import SpanTemplate, hole_of

_LINK_BYTES = 33
"""Length of a link: ids of trace and span, and flags."""

_NS_PER_MS = 1e6

_FEW = 8
"""Not worth a template."""

_DIGIT_ENDS = [10**digits for digits in range(1, 19)]
_VARINT_ENDS = [1 << bits for bits in range(7, 63, 7)]


def group_spans(needs: Needs, positions: Sequence[int]) -> list[bytes]:
    """Return the `task` and `run` spans of members of a group, which are in order."""
    members, part = needs.members, needs.part
    spans: list[bytes] = []
    for block in _blocks(positions, members.row.first):
        if len(block) >= _FEW and _are_alike(needs, block):
            spans += _alike_spans(needs, block)
            continue
        for position in block:
            task_run = part.task_run(members, position)
            if task_run is not None:
                spans += task_run_spans(needs, task_run)
    return spans


def _blocks(positions: Sequence[int], first: int) -> Iterator[range]:
    """Yield positions as ranges in which numbers are equally long, as text and as varint."""
    at = 0
    while at < len(positions):
        start = positions[at]
        end = min(
            next(end for end in _DIGIT_ENDS if end > first + start) - first,
            next(end for end in _VARINT_ENDS if end > start),
        )
        stop = at + min(end - start, len(positions) - at)
        if positions[stop - 1] - start != stop - 1 - at:
            stop = next(i for i in range(at + 1, stop) if positions[i] - start != i - at)
        yield range(start, start + stop - at)
        at = stop


def _are_alike(needs: Needs, block: range) -> bool:
    """Whether members completed at their first attempt, with a link for each edge."""
    members, part = needs.members, needs.part
    start, stop = block.start, block.stop
    started, ended = members.started[start:stop], members.ended[start:stop]
    return (
        not members.row.parent_key
        and not part.is_inside_task
        and members.states.count(StateType.COMPLETED, start, stop) == len(block)
        and members.numbers[start:stop].count(1) == len(block)
        and min(started) > 0
        and all(map(int.__le__, started, ended))
        and members.attempts.keys().isdisjoint(block)
        and members.names.keys().isdisjoint(block)
        and len(needs.common.to) + len(needs.single) <= MAX_LINKS
        and all(
            part.are_kept(parent, range(start + edge.index, stop + edge.index))
            for parent, edge in needs.single
        )
    )


def _alike_spans(needs: Needs, block: range) -> Iterator[bytes]:
    members, part = needs.members, needs.part
    ids = part.span_ids(members, block)
    starts, ends = (
        members.started[block.start : block.stop],
        members.ended[block.start : block.stop],
    )
    yield from _task_spans(needs, block, ids, (starts, ends))
    run_ids = part.span_ids(members, block, 1)
    places = members.places[block.start : block.stop]
    for place in sorted(set(places)):
        columns: Iterable[Sequence[Any]] = (ids, run_ids, starts, ends)
        if places.count(place) < len(block):
            there = [at for at, each in enumerate(places) if each == place]
            columns = [[column[at] for at in there] for column in columns]
        above, own, begun, ended = columns
        yield from _run_template(needs, place).spans(own, begun, ended, [above])


def _task_spans(
    needs: Needs, block: range, ids: Sequence[bytes], times: tuple[Sequence[int], Sequence[int]]
) -> Iterator[bytes]:
    """Return the `task` spans of a block."""
    part, row = needs.part, needs.members.row
    name = otlp.text(row.task) + b"["
    keys = [b"%d]" % number for number in range(row.first + block.start, row.first + block.stop)]
    size = len(name) + len(keys[0])
    holes = [(hole_of(9, "raysched.task.key", "s", size) + name, f"{len(keys[0])}s")]
    columns: list[Iterable[Any]] = [keys]
    if row.mapped:
        numbers = list(map(otlp.varint, block))
        size = len(numbers[0])
        holes.append((hole_of(9, "raysched.task.map_index", "v", size), f"{size}s"))
        columns.append(numbers)
    queued = _queued(needs, block, times[0])
    if queued is not None:
        holes.append((hole_of(9, "raysched.task.queue_ms", "d", 8), "d"))
        columns.append(queued)
    before_link = b"\x6a" + otlp.varint(_LINK_BYTES) + otlp.link_head(part.trace_id)
    for parent, edge in needs.single:
        holes.append((before_link, "8s"))
        needed = range(block.start + edge.index, block.stop + edge.index)
        columns.append(part.span_ids(parent, needed))
    head = span_head(part, f"task {row.task}", part.span.span_id)
    of = task_attributes(needs.members, StateType.COMPLETED, 1)
    of |= links_attributes(needs, needs.common)
    head += otlp.span_more(of, links=needs.common.encoded(part.trace_id))
    return SpanTemplate(head, holes).spans(ids, *times, columns)


def _queued(needs: Needs, block: range, starts: Sequence[int]) -> list[float] | None:
    """Return how long members waited for a worker (ms): what `Needs.queued` says of each."""
    if needs.unknown:
        return None
    ready: Iterable[int] = repeat(needs.ready, len(block))
    for parent, edge in needs.single:
        ends = parent.ended[block.start + edge.index : block.stop + edge.index]
        ready = map(max, ready, ends)
    if not needs.single and not needs.ready:
        return None
    return [max(0, at - since) / _NS_PER_MS for at, since in zip(starts, ready, strict=True)]


def _run_template(needs: Needs, place: int) -> SpanTemplate:
    """Return the template of `run` spans in one place; the hole is the id of the `task` span."""
    part = needs.part
    head = span_head(part, f"run {needs.members.row.task}", b"")
    of = {"raysched.attempt.number": 1} | place_attributes(part.run.places.get(place))
    return SpanTemplate(head + otlp.span_more(of), [(b"\x22\x08", "8s")])
