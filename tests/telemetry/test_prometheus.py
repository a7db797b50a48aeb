"""Metrics in Prometheus' text format, as a scrape finds them."""

import logging
from collections.abc import Iterator
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from ports import free_port
from raysched.telemetry.metrics.aggregation import Aggregation
from raysched.telemetry.metrics.instruments import (
    ACTIVE,
    BOUNDARIES,
    DROPPED,
    FLOW_DURATION,
    INSTRUMENTS,
    OVERFLOW,
    RETRIES,
    TASK_DURATION,
    TASKS,
    Attributes,
    Kind,
)
from raysched.telemetry.metrics.prometheus import PrometheusServer
from telemetry.measures import SECOND

LOAD: Attributes = (("raysched.flow.name", "nightly"), ("raysched.task.name", "load"))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def aggregation() -> Aggregation:
    return Aggregation()


@pytest.fixture
def server(aggregation: Aggregation, port: int) -> Iterator[PrometheusServer]:
    running = PrometheusServer(aggregation, port)
    yield running
    running.close()


def scrape(port: int) -> dict[str, list[Sample]]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


@pytest.mark.usefixtures("server")
def test_names_are_those_of_opentelemetry(aggregation: Aggregation, port: int) -> None:
    for instrument in INSTRUMENTS:
        if instrument.kind is Kind.HISTOGRAM:
            aggregation.record(instrument, LOAD, [SECOND])
        else:
            aggregation.add(instrument, LOAD, 1)

    assert set(scrape(port)) == {
        *(
            f"raysched_{name}_duration_seconds_{part}"
            for name in ("task", "attempt", "task_queue", "flow")
            for part in ("bucket", "count", "sum")
        ),
        "raysched_tasks_total",
        "raysched_task_retries_total",
        "raysched_task_active",
        "raysched_telemetry_dropped_total",
    }


@pytest.mark.usefixtures("server")
def test_samples_are_the_sums(aggregation: Aggregation, port: int) -> None:
    failed = (*LOAD, ("raysched.task.state", "FAILED"), ("error.type", 'Odd"Error\n'))
    aggregation.add(TASKS, (*LOAD, ("raysched.task.state", "COMPLETED")), 7)
    aggregation.add(TASKS, failed, 2)
    aggregation.add(TASKS, OVERFLOW, 1)
    aggregation.add(ACTIVE, LOAD, -1)
    aggregation.record(TASK_DURATION, LOAD, [SECOND // 100, 3 * SECOND, 10**6 * SECOND])

    found = scrape(port)
    by_error = {
        sample.labels.get("error_type", ""): sample.value
        for sample in found["raysched_tasks_total"]
        if not sample.labels["otel_metric_overflow"]
    }
    assert by_error == {"": 7.0, 'Odd"Error\n': 2.0}
    (overflow,) = (s for s in found["raysched_tasks_total"] if s.labels["otel_metric_overflow"])
    assert overflow.value == 1.0
    assert [sample.value for sample in found["raysched_task_active"]] == [-1.0]
    buckets = found["raysched_task_duration_seconds_bucket"]
    upto = {float(sample.labels["le"]): sample.value for sample in buckets}
    assert list(upto) == [*BOUNDARIES, float("inf")]
    assert (upto[0.005], upto[0.01], upto[2.5], upto[5.0]) == (0.0, 1.0, 1.0, 2.0)
    assert (upto[BOUNDARIES[-1]], upto[float("inf")]) == (2.0, 3.0)
    (total,) = found["raysched_task_duration_seconds_sum"]
    assert total.value == pytest.approx(0.01 + 3 + 10**6)


@pytest.mark.usefixtures("server")
def test_a_second_program_goes_on_without_its_port(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "raysched.telemetry"):
        second = PrometheusServer(Aggregation(), port)
    second.close()

    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"RAYSCHED_METRICS_PORT={port}: address already in use")
    assert scrape(port) == {}


def test_the_port_is_free_afterwards(aggregation: Aggregation, port: int) -> None:
    PrometheusServer(aggregation, port).close()
    with pytest.raises(URLError):
        scrape(port)

    again = PrometheusServer(aggregation, port)
    aggregation.add(RETRIES, LOAD, 1)
    assert list(scrape(port)) == ["raysched_task_retries_total"]
    again.close()


@pytest.mark.usefixtures("server")
def test_names_of_people_harm_no_scrape(aggregation: Aggregation, port: int) -> None:
    odd: Attributes = (("raysched.flow.name", 'a "b"\\\n{é}'),)
    aggregation.record(FLOW_DURATION, odd, [1])
    aggregation.add(DROPPED, (("raysched.telemetry.signal", "traces"),), 1)

    (sample,) = scrape(port)["raysched_flow_duration_seconds_count"]
    assert sample.labels == {"raysched_flow_name": 'a "b"\\\n{é}'}
