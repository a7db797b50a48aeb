"""The arguments of task runs that failed: where they came from, and kept to be run again alone."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace

from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.rows import InputRow
from raysched.model.values import ErrorInfo, Input
from raysched.tracker.messages import Arguments, RecordAttempt

MAX_BYTES = 1024**2
"""Larger arguments of a failed task run are not kept (bytes)."""

MAX_SOURCES = 20
"""Most task runs that are named as the source of one argument."""


def input_rows(group: Group, index: int, arguments: Arguments) -> Iterator[InputRow]:
    """Yield what has to be kept so that a failed member can be run again alone."""
    payload = pickle.dumps(arguments.row) if arguments.row else arguments.payload
    if len(payload) + len(arguments.shared) > MAX_BYTES:
        return
    slots = [
        (edge.kind.value, *_kept_at(edge.parent, needed), edge.allow_failure)
        for edge in group.slots_of(index)
        for needed in (needed_members(edge, index),)
    ]
    kept_in, place = group.place(index)
    yield InputRow(kept_in, place, payload, json.dumps(slots, separators=(",", ":")))
    if arguments.shared:
        yield InputRow(kept_in, -1, arguments.shared)


def _kept_at(group: Group, members: range) -> tuple[int, int, int]:
    """Return under which group members are kept, and from which position to which.

    What goes on in the rows of an earlier execution was adjacent there, too, or is told by its
    first.
    """
    if not members:
        return group.id, members.start, members.stop
    kept_in, first = group.place(members[0])
    return kept_in, first, first + len(members)


def with_sources(group: Group, index: int, error: ErrorInfo | None) -> ErrorInfo | None:
    """Return an error whose inputs tell the task runs that they came from, not slots."""
    inputs = error.evidence.get("inputs") if error is not None else None
    if error is None or not any(each.get("slots") for each in inputs or ()):
        return error
    edges = list(group.slots_of(index))
    told: list[Input] = []
    for each in inputs or ():
        slots = each.get("slots", ())
        plain = each.copy()
        plain.pop("slots", None)
        sources = [
            edges[slot].parent.key(member)
            for slot in slots
            for member in needed_members(edges[slot], index)[:MAX_SOURCES]
        ]
        if sources:
            plain["sources"] = sources[:MAX_SOURCES]
        told.append(plain)
    return replace(error, evidence={**error.evidence, "inputs": told})


def with_asked(command: RecordAttempt, error: ErrorInfo | None) -> ErrorInfo | None:
    """Return an error that tells what its attempt asked Ray for, where attempts differ in that."""
    spec = command.group.spec
    if error is None or not (spec.ray_by_attempt or spec.retry.on_oom):
        return error
    asked = {name: repr(value) for name, value in (command.variant or spec).ray.items()}
    return replace(error, evidence={**error.evidence, "asked": asked})


def needed_members(edge: Edge, index: int) -> range:
    """Return the members of its parent that an edge which carries values leads a member to."""
    if edge.kind is EdgeKind.ONE_TO_ONE:
        return range(index + edge.index, index + edge.index + 1)
    return range(edge.index, edge.stop if edge.kind is EdgeKind.GATHER else edge.index + 1)
