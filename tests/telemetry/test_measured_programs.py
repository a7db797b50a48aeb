"""Programs, with nothing but variables of the environment, tell metrics and log records."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ports import free_port
from raysched.telemetry.ports import Signal
from raysched.telemetry.sending.environment import Protocol
from telemetry.receiver import WAIT_SECONDS, Receiver, receiving

FLOW = """
import os
from pathlib import Path
from urllib.request import urlopen

from raysched import flow, get_run_logger, task


@task
def parse(number: int) -> int:
    get_run_logger().warning("parsing %d", number)
    if number == 3 and not Path("mended").exists():
        Path("mended").touch()
        raise ValueError(number)
    return number


@task
def scrape(numbers: list[int]) -> int:
    with urlopen(f"http://127.0.0.1:{os.environ['RAYSCHED_METRICS_PORT']}/metrics") as answer:
        return answer.status


@flow
def adding() -> int:
    return sum(parse.map(range(5)).result())


@flow
def scraping() -> int:
    Path("mended").touch()
    return scrape.submit(parse.map(range(5))).result()
"""


OWN_PROVIDER = """
from pathlib import Path
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
set_meter_provider(MeterProvider([reader]))
Path("mended").touch()

import sums
from raysched.wiring import disconnect

sums.adding()
disconnect()
for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics:
    if metric.name == "raysched.tasks":
        print(metric.name, sum(point.value for point in metric.data.data_points))
"""


@pytest.fixture(params=list(Protocol))
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with receiving(request.param) as running:
        yield running


def program(
    directory: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python program beside the flows, inline and with these variables alone."""
    (directory / "sums.py").write_text(FLOW, encoding="utf-8")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAYSCHED_", "OTEL_"))
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=inherited
        | {
            "RAYSCHED_HOME": str(directory / "home"),
            "RAYSCHED_BACKEND": "inline",
            # All the time to deliver that a busy machine needs.
            "RAYSCHED_TELEMETRY_FLUSH_SECONDS": str(WAIT_SECONDS),
        }
        | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * WAIT_SECONDS,
    )


def told(receiver: Receiver, signal: Signal) -> list[Any]:
    return [each.message for each in receiver.received if each.signal is signal]


def ended(message: Any) -> Counter[str]:
    """Task runs that have ended by state, as a request tells them at last."""
    found: Counter[str] = Counter()
    of_scope = message.resource_metrics[-1].scope_metrics[0]
    for metric in of_scope.metrics:
        for point in metric.sum.data_points if metric.name == "raysched.tasks" else ():
            state = {pair.key: pair.value.string_value for pair in point.attributes}
            found[state["raysched.task.state"]] += point.as_int
    return found


def test_a_run_and_its_resume_are_told_once(receiver: Receiver, tmp_path: Path) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol.value,
    }
    failed = program(tmp_path, "-m", "raysched", "run", "sums.py:adding", **environment)
    (first,) = told(receiver, Signal.METRICS)
    assert ended(first) == {"COMPLETED": 4, "FAILED": 1}, failed.stderr

    resumed = program(tmp_path, "-m", "raysched", "resume", "last", **environment)
    _, second = told(receiver, Signal.METRICS)
    assert ended(second) == {"COMPLETED": 1}, resumed.stderr

    resources = [
        {pair.key: pair.value.string_value for pair in of_resource.resource.attributes}
        for message in (first, second)
        for of_resource in message.resource_metrics
    ]
    assert {resource["service.name"] for resource in resources} == {"raysched"}
    assert len({resource["service.instance.id"] for resource in resources}) == 2

    records = [
        record
        for message in told(receiver, Signal.LOGS)
        for of_resource in message.resource_logs
        for scope in of_resource.scope_logs
        for record in scope.log_records
        if record.body.string_value.startswith("parsing")
    ]
    spans = {(span.trace_id, span.span_id): span.name for span in receiver.spans()}
    assert [spans[record.trace_id, record.span_id] for record in records] == ["run parse"] * 6


def test_a_port_can_be_scraped_while_a_flow_runs(tmp_path: Path) -> None:
    port = str(free_port())
    done = program(tmp_path, "-c", "import sums; sums.scraping()", RAYSCHED_METRICS_PORT=port)

    assert done.returncode == 0, done.stderr


def test_a_meter_provider_of_the_program_is_used(tmp_path: Path) -> None:
    """And nobody else, whatever the environment names."""
    with receiving(Protocol.HTTP) as receiver:
        done = program(
            tmp_path, "-c", OWN_PROVIDER, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=receiver.endpoint
        )

    assert done.stdout.split() == ["raysched.tasks", "5"], done.stderr
    assert receiver.asked == 0
