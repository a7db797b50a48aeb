"""Log records arrive with the spans in which they were made."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raysched import flow, get_run_logger, task
from raysched.model.rows import (
    ENGINE_LOGGER,
    Batch,
    Execution,
    FlowRunChange,
    FlowRunRow,
    GroupRow,
    LogRow,
)
from raysched.model.states import StateType
from raysched.model.traces import TraceParent, attempt_span_id, flow_span_id, task_span_id
from raysched.settings import settings
from raysched.telemetry.logs import Logs, severity
from raysched.telemetry.ports import Signal
from raysched.telemetry.sending.environment import Protocol
from raysched.telemetry.sending.transports import open_transport
from raysched.wiring import Configuration, configure
from telemetry.measures import NOON, SECOND
from telemetry.receiver import WAIT_SECONDS, Answer, Receiver, receiving

FIRST, SECOND_TRACE = TraceParent(b"1" * 16), TraceParent(b"2" * 16, b"x" * 8, sampled=False)
RESUMED = NOON + 100 * SECOND
RUN = FlowRunRow(
    "a" * 32,
    "nightly",
    "quiet-owl",
    StateType.RUNNING,
    started=NOON,
    executions=(Execution(NOON, str(FIRST)), Execution(RESUMED, str(SECOND_TRACE))),
)
LOAD = GroupRow(3, "load", 10, 5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Protocol.HTTP) as running:
        yield running


@pytest.fixture
def logs(receiver: Receiver) -> Iterator[Logs]:
    made = Logs(open_transport(receiver.destination(Signal.LOGS)), b"")
    yield made
    made.close()


def received(receiver: Receiver) -> list[tuple[str, Any]]:
    """All records that arrived, each with the name of its scope."""
    return [
        (scope.scope.name, record)
        for each in receiver.received
        for of_resource in each.message.resource_logs
        for scope in of_resource.scope_logs
        for record in scope.log_records
    ]


def attributes(record: Any) -> dict[str, str | int]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in record.attributes
    }


def exported(logs: Logs, receiver: Receiver, *rows: LogRow) -> list[Any]:
    """Export records of the flow run, and return them as they arrive."""
    logs.take(RUN, Batch(1, groups=[LOAD], logs=list(rows)))
    logs.flush(WAIT_SECONDS)
    return [record for _, record in received(receiver)]


def test_a_record_of_an_attempt_has_its_span(logs: Logs, receiver: Receiver) -> None:
    row = LogRow(3, 2, 4, NOON + SECOND, logging.WARNING, "shop.prices", "no price")
    (record,) = exported(logs, receiver, row)

    assert record.trace_id == FIRST.trace_id
    assert record.span_id == attempt_span_id(RUN.id, 1, "load", 12, 4)
    assert record.flags == 1
    assert record.time_unix_nano == NOON + SECOND
    assert (record.severity_number, record.severity_text) == (13, "WARNING")
    assert record.body.string_value == "no price"
    assert attributes(record) == {
        "raysched.flow.name": "nightly",
        "raysched.flow.run_id": RUN.id,
        "raysched.task.name": "load",
        "raysched.task.key": "load[12]",
        "raysched.attempt.number": 4,
    }
    assert [scope for scope, _ in received(receiver)] == ["shop.prices"]


def test_a_record_of_the_flow_has_the_span_of_its_execution(logs: Logs, receiver: Receiver) -> None:
    """Also of one that is not sampled, which its flags say."""
    rows = [LogRow(-1, 0, 1, at, logging.INFO, "flow", "x") for at in (NOON + 1, RESUMED + 1)]
    first, second = exported(logs, receiver, *rows)

    assert (first.trace_id, first.span_id) == (FIRST.trace_id, flow_span_id(RUN.id, 1))
    assert (second.trace_id, second.span_id) == (SECOND_TRACE.trace_id, flow_span_id(RUN.id, 2))
    assert (first.flags, second.flags) == (1, 0)


def test_what_is_said_of_a_task_run_that_may_never_begin(logs: Logs, receiver: Receiver) -> None:
    (record,) = exported(
        logs, receiver, LogRow(3, 0, 1, NOON + 1, logging.INFO, ENGINE_LOGGER, "waits")
    )

    assert record.span_id == task_span_id(RUN.id, 1, "load", 10)


def test_a_subflow_is_in_the_trace_of_its_parent(logs: Logs, receiver: Receiver) -> None:
    inner = FlowRunRow(
        "b" * 32,
        "inner",
        "inner",
        StateType.RUNNING,
        started=RESUMED + 5,
        parent=RUN.id,
        executions=(Execution(RESUMED + 5),),
    )
    logs.take(RUN, Batch(1))
    logs.take(inner, Batch(2, logs=[LogRow(-1, 0, 1, RESUMED + 9, logging.INFO, "flow", "x")]))
    logs.flush(WAIT_SECONDS)

    ((_, record),) = received(receiver)
    assert (record.trace_id, record.span_id) == (SECOND_TRACE.trace_id, flow_span_id(inner.id, 1))


def test_task_runs_of_a_run_that_goes_on_are_known(receiver: Receiver) -> None:
    def replay(run_id: str) -> Iterator[tuple[FlowRunRow, Batch]]:
        assert run_id == RUN.id
        yield RUN, Batch(1, groups=[LOAD])

    transport = open_transport(receiver.destination(Signal.LOGS))
    logs = Logs(transport, b"", replay)
    logs.take(RUN, Batch(1, logs=[LogRow(3, 2, 4, RESUMED + 1, logging.INFO, "x", "x")]))
    logs.flush(WAIT_SECONDS)
    logs.close()

    ((_, record),) = received(receiver)
    assert attributes(record)["raysched.task.key"] == "load[12]"
    assert record.span_id == attempt_span_id(RUN.id, 2, "load", 12, 4)


@pytest.mark.parametrize("parent", ["", "c" * 32])
def test_without_a_trace_there_are_no_ids(logs: Logs, receiver: Receiver, parent: str) -> None:
    row = FlowRunRow("b" * 32, "x", "x", StateType.RUNNING, started=NOON, parent=parent)
    logs.take(row, Batch(1, logs=[LogRow(-1, 0, 1, NOON + 1, logging.INFO, "flow", "x")]))
    logs.flush(WAIT_SECONDS)

    ((_, record),) = received(receiver)
    assert (record.trace_id, record.span_id, record.flags) == (b"", b"", 0)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        *((-5, 1), (0, 1), (1, 2), (5, 4), (10, 5), (15, 8), (20, 9), (21, 10), (25, 12)),
        *((30, 13), (40, 17), (50, 21), (53, 24), (10_000, 24)),
    ],
)
def test_severities_are_those_of_the_data_model(level: int, expected: int) -> None:
    assert severity(level) == expected


def test_odd_text_is_no_obstacle(logs: Logs, receiver: Receiver) -> None:
    (record,) = exported(
        logs, receiver, LogRow(-1, 0, 1, NOON + 1, logging.INFO, "flow\ud800", "half \ud800")
    )

    assert record.body.string_value == "half ?"


def test_what_a_collector_does_not_take_is_counted(logs: Logs, receiver: Receiver) -> None:
    receiver.answer = Answer.REFUSED
    exported(logs, receiver, LogRow(-1, 0, 1, NOON + 1, logging.INFO, "flow", "x"))

    unsent = logs.unsent()
    assert unsent is not None
    assert unsent.what == "1 log record"
    assert unsent.reason.startswith(receiver.endpoint)


def test_an_ended_run_is_forgotten(logs: Logs, receiver: Receiver) -> None:
    end = FlowRunChange(StateType.COMPLETED, ended=RESUMED + SECOND)
    last = LogRow(-1, 0, 1, RESUMED + 1, logging.INFO, "flow", "bye")
    logs.take(RUN, Batch(1, groups=[LOAD], logs=[last], flow_run=end))
    logs.take(RUN, Batch(1, logs=[LogRow(3, 0, 1, RESUMED + 2, logging.INFO, "flow", "late")]))
    logs.flush(WAIT_SECONDS)

    by, late = (record for _, record in received(receiver))
    assert by.trace_id == late.trace_id == SECOND_TRACE.trace_id
    assert "raysched.task.key" not in attributes(late)


def test_what_flows_and_tasks_log_arrives(
    logs: Logs, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    settings.cache_clear()

    def observer(run: FlowRunRow, batch: Batch) -> None:
        logs.take(run, batch)

    @task
    def parse(number: int) -> int:
        get_run_logger().error("parsing %d", number)
        return number

    @flow
    def adding() -> int:
        get_run_logger().warning("adding")
        return sum(parse.map([1, 2]).result())

    before = configure(Configuration(backend="inline", observers=[observer]))
    try:
        adding()
    finally:
        configure(before)
        settings.cache_clear()
    logs.flush(WAIT_SECONDS)

    told = {
        (record.body.string_value, attributes(record).get("raysched.task.key"))
        for _, record in received(receiver)
    }
    assert told == {("adding", None), ("parsing 1", "parse[0]"), ("parsing 2", "parse[1]")}
