"""Metrics by OTLP: each request tells all, and a collector that is away costs little."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from raysched.errors import SettingsError
from raysched.model.rows import Batch, FlowRunRow, GroupRow
from raysched.model.states import StateType
from raysched.telemetry.metrics.aggregation import Aggregation
from raysched.telemetry.metrics.consumer import MeterRecorder, Metrics
from raysched.telemetry.metrics.environment import Temporality, export_interval, temporality
from raysched.telemetry.metrics.export import (
    MetricsExport,
)
from raysched.telemetry.metrics.instruments import (
    ACTIVE,
    BOUNDARIES,
    DROPPED,
    TASK_DURATION,
    TASKS,
    Attributes,
)
from raysched.telemetry.ports import Signal
from raysched.telemetry.sending.environment import Protocol
from raysched.telemetry.sending.transports import open_transport
from telemetry.measures import NOON, SECOND, columns, durations, sums
from telemetry.receiver import WAIT_SECONDS, Answer, Receiver, receiving

NEVER_AGAIN = 3600.0
"""An interval after which a test is long over (seconds)."""


@pytest.fixture(params=list(Protocol))
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with receiving(request.param) as running:
        yield running


Exporting = Callable[..., MetricsExport]


@pytest.fixture
def exporting(receiver: Receiver) -> Iterator[Exporting]:
    """Makes exports to the receiver."""
    exports: list[MetricsExport] = []

    def export(
        aggregation: Aggregation,
        interval: float = NEVER_AGAIN,
        temporality: Temporality = Temporality.CUMULATIVE,
    ) -> MetricsExport:
        transport = open_transport(receiver.destination(Signal.METRICS))
        exports.append(MetricsExport(aggregation, transport, b"", interval, temporality))
        return exports[-1]

    yield export
    for each in exports:
        each.close()


def points(receiver: Receiver) -> list[dict[str, Any]]:
    """Of each request the last data point of each metric, by its name."""
    return [of_request[-1] for of_request in all_points(receiver)]


def all_points(receiver: Receiver) -> list[list[dict[str, Any]]]:
    """Of each request the first data point of each metric in each of its parts, by its name."""
    return [
        [
            {
                metric.name: (getattr(metric, metric.WhichOneof("data"))).data_points[0]
                for of_scope in of_resource.scope_metrics
                for metric in of_scope.metrics
            }
            for of_resource in each.message.resource_metrics
        ]
        for each in receiver.received
    ]


LOADED: Attributes = (("raysched.task.name", "load"),)


def test_the_last_request_tells_all(receiver: Receiver, exporting: Exporting) -> None:
    aggregation = Aggregation()
    export = exporting(aggregation)
    aggregation.add(TASKS, LOADED, 2)
    aggregation.record(TASK_DURATION, LOADED, [SECOND, 3 * SECOND])
    export.flush(WAIT_SECONDS)
    aggregation.add(TASKS, LOADED, 3)
    export.flush(WAIT_SECONDS)

    first, last = points(receiver)
    assert (first["raysched.tasks"].as_int, last["raysched.tasks"].as_int) == (2, 5)
    assert (
        first["raysched.tasks"].start_time_unix_nano == last["raysched.tasks"].start_time_unix_nano
    )
    histogram = last["raysched.task.duration"]
    assert (histogram.count, histogram.sum, histogram.min, histogram.max) == (2, 4.0, 1.0, 3.0)
    assert tuple(histogram.explicit_bounds) == BOUNDARIES
    assert sum(histogram.bucket_counts) == 2
    (attribute,) = histogram.attributes
    assert (attribute.key, attribute.value.string_value) == LOADED[0]


def test_new_series_began_at_nothing(receiver: Receiver, exporting: Exporting) -> None:
    """Or the only request of a short program would tell no increase."""
    aggregation = Aggregation()
    export = exporting(aggregation)
    aggregation.add(TASKS, LOADED, 2)
    aggregation.add(ACTIVE, LOADED, 1)
    export.flush(WAIT_SECONDS)
    aggregation.add(TASKS, LOADED, 2)
    aggregation.record(TASK_DURATION, LOADED, [SECOND])
    export.flush(WAIT_SECONDS)

    (zeros, first), (more_zeros, second) = all_points(receiver)
    assert (set(zeros), set(more_zeros)) == ({"raysched.tasks"}, {"raysched.task.duration"})
    zero, told = zeros["raysched.tasks"], first["raysched.tasks"]
    assert (zero.as_int, told.as_int) == (0, 2)
    assert zero.start_time_unix_nano < zero.time_unix_nano < told.time_unix_nano
    nothing = more_zeros["raysched.task.duration"]
    assert (nothing.count, nothing.sum, sum(nothing.bucket_counts)) == (0, 0.0, 0)
    assert nothing.time_unix_nano == told.time_unix_nano
    assert second["raysched.task.duration"].start_time_unix_nano == told.start_time_unix_nano


def test_deltas_add_up_whatever_was_not_delivered(receiver: Receiver, exporting: Exporting) -> None:
    aggregation = Aggregation()
    export = exporting(aggregation, temporality=Temporality.DELTA)
    for number in range(1, 5):
        aggregation.add(TASKS, LOADED, number)
        aggregation.add(ACTIVE, LOADED, 1)
        aggregation.record(TASK_DURATION, LOADED, [number * SECOND])
        receiver.answer = Answer.AWAY if number == 2 else Answer.OK
        export.flush(0.05 if number == 2 else WAIT_SECONDS)

    told = points(receiver)
    assert [each["raysched.tasks"].as_int for each in told] == [1, 5, 4]
    assert [each["raysched.task.duration"].sum for each in told] == [1.0, 5.0, 4.0]
    # Up-down counters tell what is, never what has changed.
    assert [each["raysched.task.active"].as_int for each in told] == [1, 3, 4]
    ends = [each["raysched.tasks"].time_unix_nano for each in told]
    assert [each["raysched.tasks"].start_time_unix_nano for each in told][1:] == ends[:-1]


def test_it_is_sent_now_and_then(receiver: Receiver, exporting: Exporting) -> None:
    aggregation = Aggregation()
    aggregation.add(TASKS, LOADED, 1)
    exporting(aggregation, interval=0.01)

    receiver.wait(lambda: len(receiver.received) > 2)


@pytest.mark.parametrize("answer", [Answer.NEVER, Answer.AWAY])
def test_the_end_waits_for_a_bounded_time(
    receiver: Receiver, exporting: Exporting, answer: Answer
) -> None:
    aggregation = Aggregation()
    aggregation.add(TASKS, LOADED, 1)
    receiver.answer = answer
    export = exporting(aggregation)

    export.flush(0.2)

    assert export.reason().startswith(f"{receiver.destination(Signal.METRICS).url}: ")
    receiver.answer = Answer.OK
    export.flush(WAIT_SECONDS)
    assert export.reason() == ""


def test_a_long_program_says_once_that_its_collector_is_away(
    receiver: Receiver, exporting: Exporting, caplog: pytest.LogCaptureFixture
) -> None:
    aggregation = Aggregation()
    aggregation.add(TASKS, LOADED, 1)
    receiver.answer = Answer.AWAY

    with caplog.at_level(logging.WARNING, "raysched.telemetry"):
        exporting(aggregation, interval=0.01)
        receiver.wait(lambda: receiver.asked > 3)

    (said,) = [record.getMessage() for record in caplog.records]
    url = receiver.destination(Signal.METRICS).url
    assert said.startswith(f"metrics were not delivered to {url}: ")


def test_a_collector_of_traces_alone_is_left_alone(
    receiver: Receiver, exporting: Exporting, caplog: pytest.LogCaptureFixture
) -> None:
    aggregation = Aggregation()
    aggregation.add(TASKS, LOADED, 1)
    receiver.answer = Answer.UNSUPPORTED
    export = exporting(aggregation)

    with caplog.at_level(logging.WARNING, "raysched.telemetry"):
        export.flush(WAIT_SECONDS)
        export.flush(WAIT_SECONDS)

    assert receiver.asked == 1
    assert not caplog.records


def test_rejected_points_are_counted(receiver: Receiver, exporting: Exporting) -> None:
    aggregation = Aggregation()
    aggregation.add(TASKS, LOADED, 1)
    receiver.answer = Answer.PARTIAL

    exporting(aggregation).flush(WAIT_SECONDS)

    assert sums(aggregation, DROPPED) == {"metrics": 3}


def test_nothing_measured_is_nothing_sent(receiver: Receiver, exporting: Exporting) -> None:
    exporting(Aggregation()).flush(WAIT_SECONDS)

    assert receiver.asked == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "weekly"),
    ],
)
def test_impossible_variables_are_told(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=f"{name}: '{value}'"):
        _ = export_interval(), temporality()


def test_a_provider_of_the_program_gets_the_same() -> None:
    reader = InMemoryMetricReader()
    recorder = MeterRecorder(MeterProvider([reader], shutdown_on_exit=False))
    aggregation = Aggregation()
    metrics = Metrics([aggregation, recorder])
    done = columns(range(3), [StateType.COMPLETED] * 3, [NOON] * 3, [NOON + SECOND * 2] * 3)
    row = FlowRunRow("a" * 32, "nightly", "nightly", StateType.RUNNING, started=NOON)
    metrics.take(row, Batch(1, groups=[GroupRow(0, "load", 0, 3)], task_runs=[done]))

    data = reader.get_metrics_data()
    assert data is not None
    found: dict[str, Any] = {
        metric.name: (metric.unit, metric.description, next(iter(metric.data.data_points)))
        for of_resource in data.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
    }
    unit, description, point = found["raysched.task.duration"]
    assert (unit, description) == (TASK_DURATION.unit, TASK_DURATION.description)
    (kept,) = durations(aggregation, TASK_DURATION).values()
    assert tuple(point.explicit_bounds) == BOUNDARIES
    assert list(point.bucket_counts) == kept.buckets
    assert point.sum == kept.total / SECOND
    assert found["raysched.tasks"][2].value == 3
    assert dict(point.attributes) == {
        "raysched.flow.name": "nightly",
        "raysched.task.name": "load",
        "raysched.task.state": "COMPLETED",
    }
