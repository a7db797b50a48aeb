"""Where runs stand in traces: ids that whoever knows a run can derive, so that none is kept.

A flow run has a trace for each of its *executions*: the first, and one for each time that it was
resumed. The ids of its spans derive from the run, the execution, the task, the index and the
attempt: its driver, its workers and a process that reads the database later all name the same span.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b, shake_128
from typing import NamedTuple, Self, TypeAlias

SPAN_BYTES = 8
"""Length of a span id (bytes). Source: W3C Trace Context, parent-id."""

NO_SPAN = bytes(SPAN_BYTES)
"""The parent of a root span."""

_BLOCK = 256
"""Ids of so many task runs are derived at once."""

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")


Attributes: TypeAlias = Mapping[str, str | bool | int | float | Sequence[str]]
"""Attributes of a span, as JSON can say them."""


class TraceParent(NamedTuple):
    """A span that others are below of.

    Attributes:
        trace_id: Id of its trace, 16 bytes.
        span_id: Its own id, 8 bytes; `NO_SPAN` for the top of the trace.
        sampled: Whether the trace is exported.
        state: Its `tracestate`, which all that is below of it has, too; "" for none.
    """

    trace_id: bytes
    span_id: bytes = NO_SPAN
    sampled: bool = True
    state: str = ""

    def __str__(self) -> str:
        """Return its `traceparent`, which says all but the state."""
        flags = "01" if self.sampled else "00"
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{flags}"

    @classmethod
    def parse(cls, text: str, state: str = "") -> Self | None:
        """Return what a `traceparent` says, or None if it is none.

        Source: W3C Trace Context, version 00. The one that says `NO_SPAN` is our own: it names a
        trace that has no span yet.

        Args:
            text: The `traceparent`.
            state: The `tracestate` that goes with it.
        """
        found = _TRACEPARENT.match(text.strip().lower())
        if found is None or not int(found[1], 16):
            return None
        sampled = bool(int(found[3], 16) & 1)
        return cls(bytes.fromhex(found[1]), bytes.fromhex(found[2]), sampled, state)


class Standing(NamedTuple):
    """Where an execution of a flow run stands in traces, as it is kept.

    Attributes:
        traceparent: The span that its `flow` span is below of (see `TraceParent`), or "" if nothing
            is traced.
        tracestate: What goes with it, as W3C Trace Context writes it; "" for none.
        attributes: What the sampler adds to its `flow` span.
    """

    traceparent: str
    tracestate: str
    attributes: Attributes


NOWHERE = Standing("", "", {})
"""Where an execution stands that is in no trace."""


def trace_id(run_id: str, execution: int = 1) -> bytes:
    """Return the id of the trace that an execution of a flow run begins.

    Of the first it is the run's own id, which is 128 random bits; of others as random ones, since
    ratio samplers read the last 64.

    Args:
        run_id: Flow run id.
        execution: Number of the execution, from 1.
    """
    if execution == 1:
        return bytes.fromhex(run_id)
    return blake2b(f"{run_id}:{execution}".encode(), digest_size=16).digest()


def flow_span_id(run_id: str, execution: int = 1) -> bytes:
    """Return the id of the `flow` span of an execution of a flow run."""
    return blake2b(f"flow:{run_id}:{execution}".encode(), digest_size=SPAN_BYTES).digest()


def chunk_span_id(run_id: str, execution: int, task: str, first: int) -> bytes:
    """Return the id of the `chunk` span that begins with the task run `task[first]`."""
    text = f"chunk:{run_id}:{execution}:{task}:{first}"
    return blake2b(text.encode(), digest_size=SPAN_BYTES).digest()


def task_span_id(run_id: str, execution: int, task: str, index: int) -> bytes:
    """Return the id of the `task` span of the task run `task[index]`."""
    return attempt_span_id(run_id, execution, task, index, 0)


def attempt_span_id(run_id: str, execution: int, task: str, index: int, attempt: int) -> bytes:
    """Return the id of the `run` span of an attempt (from 1) of the task run `task[index]`."""
    block, place = divmod(index, _BLOCK)
    at = place * SPAN_BYTES
    return _ids(run_id, execution, task, attempt, block)[at : at + SPAN_BYTES]


def attempt_span_ids(
    run_id: str, execution: int, task: str, indices: range, attempt: int
) -> list[bytes]:
    """Return the ids of spans of adjacent task runs: see `attempt_span_id`.

    Attempt 0 stands for their `task` spans.
    """
    spans: list[bytes] = []
    for block in range(indices.start // _BLOCK, -(-indices.stop // _BLOCK)):
        first = block * _BLOCK
        ids = _ids(run_id, execution, task, attempt, block)
        start = max(0, indices.start - first) * SPAN_BYTES
        stop = min(_BLOCK, indices.stop - first) * SPAN_BYTES
        spans += (ids[at : at + SPAN_BYTES] for at in range(start, stop, SPAN_BYTES))
    return spans


@lru_cache(maxsize=64)
def _ids(run_id: str, execution: int, task: str, attempt: int, block: int) -> bytes:
    seed = f"{run_id}:{execution}:{attempt}:{block}:{task}"
    return shake_128(seed.encode()).digest(_BLOCK * SPAN_BYTES)
