"""From what is known of runs to encoded spans, one by one: names, attributes, events and links."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raysched.model.rows import PlaceRow
from raysched.model.states import FAILURES, SUCCESSES, StateType
from raysched.model.traces import NO_SPAN
from raysched.model.values import CrashKind
from raysched.telemetry import otlp
from raysched.telemetry.building.members import Attempt, Members, TaskRun
from raysched.telemetry.building.needs import Links, Needs
from raysched.telemetry.building.parts import Interval, Part
from raysched.telemetry.failures import error_type
from raysched.telemetry.otlp import LOCAL_PARENT, SAMPLED, SpanId, Value

_FLAGS = SAMPLED | LOCAL_PARENT


def span_head(part: Part, name: str, above: bytes, flags: int = _FLAGS) -> bytes:
    """Return what spans of a part have in common (see `otlp.span_head`)."""
    return otlp.span_head(name, part.trace_id, above, flags, part.trace_state)


def task_attributes(members: Members, state: StateType, attempts: int) -> dict[str, Value]:
    """Return the attributes of a `task` span that many have in common."""
    return {
        "raysched.task.name": members.row.task,
        "raysched.task.state": state.name,
        "raysched.task.attempts": attempts,
        "raysched.task.cache_hit": state is StateType.CACHED,
    }


def place_attributes(place: PlaceRow | None) -> dict[str, Value]:
    """Return the attributes of a `run` span that say where it was."""
    if place is None:
        return {}
    known: dict[str, Value] = {
        "raysched.ray.node_id": place.node_id,
        "raysched.ray.worker_id": place.worker_id,
        "process.pid": place.pid,
        "host.name": place.host,
    }
    return {name: value for name, value in known.items() if value}


def links_attributes(needs: Needs, links: Links) -> dict[str, Value]:
    """Return what there is to say of links that a `task` span does not have."""
    told: dict[str, Value] = {}
    if links.omitted:
        told["raysched.links.omitted"] = links.omitted
    if needs.unknown:
        told["raysched.task.upstream"] = list(needs.unknown)
    return told


def task_run_spans(needs: Needs, task_run: TaskRun) -> list[bytes]:
    """Return the `task` span of a task run, and a `run` span for each of its attempts in it."""
    part, members, position = needs.part, needs.members, task_run.position
    above, within = NO_SPAN, None
    if members.row.parent_key or part.is_inside_task:
        above, within = part.above_of(members, task_run)
    own = _task_span(needs, task_run, above if within else part.span.span_id, within)
    task_span = part.task_span(members, position)
    time = _held(within, task_run.start, task_run.end)
    spans = [own]
    spans += (
        _attempt_span(part, members, position, task_span, each, time) for each in task_run.attempts
    )
    return spans


def _held(within: Interval | None, start: int, end: int) -> Interval:
    return Interval(start, max(start, end)) if within is None else within.hold(start, end)


def _task_span(needs: Needs, task_run: TaskRun, above: bytes, within: Interval | None) -> bytes:
    part, members, position = needs.part, needs.members, task_run.position
    state, attempts = task_run.state, task_run.attempts
    of = task_attributes(members, state, len(attempts))
    of["raysched.task.key"] = members.key(position)
    if members.row.mapped:
        of["raysched.task.map_index"] = position
    if attempts and (queued := needs.queued(position, task_run.start)) is not None:
        of["raysched.task.queue_ms"] = queued
    if position in members.names:
        of["raysched.task.run_name"] = members.names[position]
    links, status = needs.links(position), b""
    if state in FAILURES:
        links, status = _failure(part, members, task_run, of, links)
    elif position in members.reasons and state not in SUCCESSES:
        of["raysched.task.reason"] = members.reasons[position]
    of |= links_attributes(needs, links)
    start, end = _held(within, task_run.start, task_run.end)
    if start == end:
        # One that never ran. Jaeger takes a span without a duration for a mistake.
        start, end = _held(within, end - 1, end)
    return b"".join(
        (
            span_head(part, f"task {members.row.task}", above),
            otlp.span_own(part.task_span(members, position), start, end),
            otlp.span_more(of, links=links.encoded(part.trace_id), status=status),
        )
    )


def _failure(
    part: Part, members: Members, task_run: TaskRun, of: dict[str, Value], links: Links
) -> tuple[Links, bytes]:
    """Add to the attributes how a task run failed; return its links and its status."""
    position, last = task_run.position, task_run.attempts[-1] if task_run.attempts else None
    roots = members.roots.get(position, ())
    message = members.reasons.get(position, "")
    of["error.type"] = task_run.state.name
    if roots:
        of["raysched.task.roots"] = list(roots)
        found = [part.run.member(key) for key in roots]
        links = links.with_more(part.told_as(*place) for place in found if place is not None)
        message = message or f"it needs {', '.join(roots[:3])}, which did not succeed"
    elif last is not None and last.error:
        of["error.type"] = last.error
        message = last.message
    return links, otlp.error_status(message)


def _attempt_span(  # noqa: PLR0913, PLR0917 - of which task run, and where it is
    part: Part,
    members: Members,
    position: int,
    above: bytes,
    attempt: Attempt,
    within: Interval | None,
    links: Sequence[bytes] = (),
) -> bytes:
    of: dict[str, Value] = {"raysched.attempt.number": attempt.number}
    of |= place_attributes(part.run.places.get(attempt.place))
    start, end = _held(within, attempt.started, attempt.ended)
    events, status = [], b""
    if attempt.state in FAILURES:
        of["error.type"] = attempt.error or attempt.state.name
        status = otlp.error_status(attempt.message)
        if attempt.error:
            events.append(_exception(end, attempt))
    return b"".join(
        (
            span_head(part, f"run {members.row.task}", above),
            otlp.span_own(part.attempt_span(members, position, attempt.number), start, end),
            otlp.span_more(of, events, links, status),
        )
    )


def computed_again(part: Part, members: Members, position: int, attempt: Attempt) -> bytes:
    """Return the span of an attempt that was made for a lost value, after its task run's end."""
    task_span = SpanId(part.trace_id, part.task_span(members, position))
    within = part.interval if part.is_inside_task else None
    above, links = part.span.span_id, [otlp.link(task_span)]
    return _attempt_span(part, members, position, above, attempt, within, links)


def _exception(at: int, attempt: Attempt) -> bytes:
    """Return the event of a failure. Source: OpenTelemetry's conventions for exceptions."""
    known: dict[str, Value] = {
        "exception.type": attempt.error,
        "exception.message": attempt.message,
        "exception.stacktrace": attempt.traceback,
    }
    return otlp.event(at, "exception", {key: value for key, value in known.items() if value})


def flow_span_name(flow: str) -> str:
    """Return the name of the `flow` spans of a flow."""
    return f"flow {flow}"


def flow_attributes(
    flow: str, run_id: str, name: str, target: str, execution: int
) -> dict[str, Value]:
    """Return what a `flow` span tells that is known when it begins.

    Args:
        flow: Name of the flow.
        run_id: Flow run id.
        name: Name of the flow run, or "".
        target: Where the flow function is found (see `define.targets`); "" for a subflow, whose
            function is known by the flow's name only.
        execution: Number of the execution, from 1.
    """
    of: dict[str, Value] = {"raysched.flow.name": flow, "raysched.flow.run_id": run_id}
    if name:
        of["raysched.flow.run_name"] = name
    of["code.function.name"] = target.rpartition(":")[2] or flow
    if execution > 1:
        of["raysched.flow.execution"] = execution
    return of


def flow_span(part: Part, counts: "Counts") -> bytes:
    """Return the `flow` span of a part."""
    row, change = part.run.row, part.run.change
    target = "" if row.parent else row.target
    of = flow_attributes(row.flow, row.id, row.name, target, part.number)
    status = b""
    if not part.is_last:
        lost = any(part.run.execution_at(at) == part.number for at in part.run.lost)
        state = StateType.CRASHED if lost else None
        message, error = CrashKind.DRIVER_LOST.value, ""
    else:
        state = change.state if change is not None else row.state
        message = change.message if change is not None else row.message
        failure = change.error if change is not None else row.error
        error = error_type(failure)
        if change is not None and change.attempts > 1:
            of["raysched.flow.attempts"] = change.attempts
    if state is not None:
        of["raysched.flow.state"] = state.name
    if state in FAILURES:
        of["error.type"] = error or state.name
        status = otlp.error_status(message)
    of |= counts.attributes()
    # What the sampler says besides.
    of = {**part.execution.attributes, **of}
    above = part.above
    flags = _FLAGS if part.parent is not None or above == NO_SPAN else SAMPLED
    start, end = part.interval
    return b"".join(
        (
            span_head(part, flow_span_name(row.flow), above, flags),
            otlp.span_own(part.span.span_id, start, end),
            otlp.span_more(of, _happened(part), _before(part), status),
        )
    )


def _happened(part: Part) -> Iterator[bytes]:
    """Yield what happened to the cluster; each thing once in a trace."""
    if part.parent is not None:
        return
    for event in part.run.events:
        if part.run.execution_at(event.at) == part.number:
            of: dict[str, Value] = {"message": event.message}
            of |= {f"raysched.{name}": value for name, value in event.attributes.items()}
            yield otlp.event(event.at, str(event.kind), of)


def _before(part: Part) -> Iterator[bytes]:
    """Yield the link to the `flow` span of the execution before this one."""
    earlier = part.earlier
    if earlier is not None:
        yield otlp.link(earlier)


@dataclass(slots=True)
class Counts:
    """What a `flow` span says of numbers.

    Attributes:
        total: Task runs.
        failed: Those of them that failed.
        cached: Those of them with a result from the cache.
        folded: Spans that chunks stand for.
        suppressed: Spans that are not told at all.
        dropped: Spans of user code that were left out.
    """

    total: int = 0
    failed: int = 0
    cached: int = 0
    folded: int = 0
    suppressed: int = 0
    dropped: int = 0

    def attributes(self) -> dict[str, Value]:
        """Return them as attributes; those of spans only where there are any."""
        of: dict[str, Value] = {
            "raysched.tasks.total": self.total,
            "raysched.tasks.failed": self.failed,
            "raysched.tasks.cached": self.cached,
        }
        for name in ("folded", "suppressed", "dropped"):
            if number := getattr(self, name):
                of[f"raysched.spans.{name}"] = number
        return of
