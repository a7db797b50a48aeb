"""Runs that were resumed, and what user code made."""

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from raysched.model.events import ClusterEvent, EventKind
from raysched.model.rows import (
    AttemptRow,
    Batch,
    Execution,
    FlowRunChange,
    FlowRunRow,
    GroupRow,
    PlaceRow,
    TaskRunColumns,
)
from raysched.model.states import StateType
from raysched.model.traces import attempt_span_id, flow_span_id, trace_id
from raysched.model.values import CrashKind, ErrorInfo, FailureClass
from raysched.telemetry.building.builder import Executions, Spans, TraceBuilder
from raysched.telemetry.reading import SpanView, read_spans
from telemetry.histories import START

RUN = "5" * 32
LOST = ErrorInfo("", "lost", "", FailureClass.INFRASTRUCTURE, CrashKind.DRIVER_LOST)
OPENED = FlowRunChange(StateType.RUNNING)
ENDED = FlowRunChange(StateType.COMPLETED, ended=START + 3000, attempts=2)


def columns(indices: list[int], started: list[int], attempts: list[int]) -> TaskRunColumns:
    size = len(indices)
    ended = [at + 100 for at in started]
    states = [StateType.COMPLETED] * size
    return TaskRunColumns(0, indices, states, attempts, started, ended, [None] * size, [0] * size)


def resumed(traced: int = 0) -> list[tuple[FlowRunRow, Batch]]:
    """Return a run as it is replayed: load[1] was lost with its driver, and ran once more."""
    row = FlowRunRow(
        RUN,
        "main",
        "calm-otter",
        StateType.RUNNING,
        started=START,
        executions=(Execution(START), Execution(START + 2000)),
        traced=traced,
    )
    lost = AttemptRow(0, 1, 1, StateType.CRASHED, START + 200, START + 400, LOST)
    again = AttemptRow(0, 1, 2, StateType.COMPLETED, START + 2100, START + 2200)
    told = columns([0, 1], [START + 100, START + 2100], [1, 2])
    return [
        (row, Batch(1, flow_run=OPENED)),
        (row, Batch(1, groups=[GroupRow(0, "load", 0, 2, mapped=True, created=START + 50)])),
        (row, Batch(1, task_runs=[told], attempts=[lost, again])),
        (row, Batch(1, flow_run=ENDED)),
    ]


def built(batches: list[tuple[FlowRunRow, Batch]], executions: Executions) -> list[SpanView]:
    builder = TraceBuilder(5000, executions)
    return read_spans([span for told in batches for span in builder.take(*told).spans])


def shown(spans: list[SpanView]) -> list[tuple[str, str, int, int]]:
    return sorted(
        (
            span.name,
            str(span.attributes.get("raysched.task.key", "")),
            span.start - START,
            span.end - START,
        )
        for span in spans
    )


def test_each_execution_has_a_trace_with_what_ran_in_its_time() -> None:
    spans = built(resumed(), Executions.ALL)
    first = [span for span in spans if span.id.trace_id == trace_id(RUN)]
    second = [span for span in spans if span.id.trace_id == trace_id(RUN, 2)]
    assert len(first) + len(second) == len(spans)
    assert shown(first) == [
        ("flow main", "", 0, 400),
        ("run load", "", 100, 200),
        ("run load", "", 200, 400),
        ("task load", "load[0]", 100, 200),
        ("task load", "load[1]", 200, 400),
    ]
    assert shown(second) == [
        ("flow main", "", 2000, 3000),
        ("run load", "", 2100, 2200),
        ("task load", "load[1]", 2100, 2200),
    ]
    flows = {span.id.trace_id: span for span in spans if span.name == "flow main"}
    before, after = flows[trace_id(RUN)], flows[trace_id(RUN, 2)]
    assert after.links == [before.id]
    assert before.attributes["raysched.flow.state"] == "CRASHED"
    assert (before.error, before.attributes["error.type"]) == ("driver lost", "CRASHED")
    assert after.error is None
    assert after.attributes["raysched.tasks.total"] == 1


def test_a_worker_for_each_task_run_may_be_one_of_many() -> None:
    worker = PlaceRow(70_000, "node", "worker", 4711, "host")
    row = FlowRunRow(RUN, "main", "calm-otter", StateType.RUNNING, started=START)
    told = columns([0], [START + 100], [1])
    told.places = [worker.id]
    spans = built(
        [
            (row, Batch(1, flow_run=OPENED, groups=[GroupRow(0, "load", 0, 1)])),
            (row, Batch(1, places=[worker], task_runs=[told])),
            (row, Batch(1, flow_run=ENDED)),
        ],
        Executions.LAST,
    )
    ran = next(span for span in spans if span.name == "run load")
    assert ran.attributes["process.pid"] == 4711


def test_what_was_delivered_is_not_told_again() -> None:
    for executions in (Executions.UNDELIVERED, Executions.LAST):
        spans = built(resumed(traced=1), executions)
        assert {span.id.trace_id for span in spans} == {trace_id(RUN, 2)}
    assert len(built(resumed(), Executions.UNDELIVERED)) == 5 + 3


def test_an_open_run_can_be_told_as_far_as_it_is_known() -> None:
    builder = TraceBuilder(5000)
    told: list[Spans] = [builder.take(*each) for each in resumed()[:-1]]
    assert not any(each.is_complete for each in told)
    last = builder.end(RUN)
    assert last.is_complete
    flows = [span for span in read_spans(last.spans) if span.name == "flow main"]
    assert [(span.end - START, span.error) for span in flows] == [(2200, None)]


def test_what_happened_to_the_cluster_is_on_the_flow_span() -> None:
    batches = resumed()
    event = ClusterEvent(EventKind.NODE_REMOVED, START + 2300, "it is gone", {"node_id": "n1"})
    batches.insert(3, (batches[0][0], Batch(1, events=[event])))
    flows = [span for span in built(batches, Executions.ALL) if span.name == "flow main"]
    events = {span.id.trace_id: span.events for span in flows}
    assert events[trace_id(RUN)] == []
    (told,) = events[trace_id(RUN, 2)]
    assert (told.name, told.at) == ("node removed", START + 2300)
    assert told.attributes == {"message": "it is gone", "raysched.node_id": "n1"}


def test_spans_of_user_code_go_below_the_chunk_that_stands_for_their_task_run() -> None:
    size = 2000
    row = FlowRunRow(RUN, "main", "x", StateType.RUNNING, started=START)
    builder = TraceBuilder(500)
    took = [1000 - index % 1000 for index in range(size)]
    told = TaskRunColumns(
        0,
        range(size),
        [StateType.COMPLETED] * size,
        [1] * size,
        [START + 10] * size,
        [START + 10 + each for each in took],
        [None] * size,
        [0] * size,
    )
    indices = (0, 1999)
    scopes = [
        ScopeSpans(
            spans=[Span(name="mine", parent_span_id=attempt_span_id(RUN, 1, "load", index, 1))]
        ).SerializeToString()
        for index in indices
    ]
    builder.take(row, Batch(1, flow_run=OPENED, groups=[GroupRow(0, "load", 0, size)]))
    assert not builder.take(row, Batch(1, task_runs=[told], spans=scopes)).scopes
    last = builder.take(row, Batch(1, flow_run=FlowRunChange(StateType.COMPLETED, ended=START)))
    known = {span.id.span_id: span.name for span in read_spans(last.spans)}
    mine = read_spans([], last.scopes)
    assert [known[span.parent] for span in mine] == ["run load", "chunk load"]
    assert flow_span_id(RUN) in known
