import re
import subprocess
import sys
from pathlib import Path

import pytest

from ports import free_port
from raysched.telemetry.ports import Signal
from raysched.telemetry.unsent import Unsent, unsent_lines

PROGRAM = """
from raysched import flow, get_run_logger, task

@task
def load(number):
    return number

@flow
def nightly():
    get_run_logger().info("begins")
    return load.map(range(3)).result()

nightly()
"""

SPANS = "7 spans of run 0123abcd"
ALL_OF_IT = f"{SPANS}; metrics; 2 log records"
COMMAND = "`raysched trace 0123abcd --send`"


def traces(reason: str, place: str = "http://box:4318/v1/traces") -> Unsent:
    return Unsent(Signal.TRACES, SPANS, f"{place}: {reason}", COMMAND)


def metrics(reason: str, place: str = "http://box:4318/v1/metrics") -> Unsent:
    return Unsent(Signal.METRICS, "metrics", f"{place}: {reason}")


def logs(reason: str, place: str = "http://box:4318/v1/logs") -> Unsent:
    return Unsent(Signal.LOGS, "2 log records", f"{place}: {reason}")


REFUSED = "Connection refused"
WAITING = "it has not answered yet"


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ([], []),
        (
            [traces(REFUSED)],
            [f"{SPANS}: http://box:4318/v1/traces: {REFUSED}. Send them later by {COMMAND}"],
        ),
        ([logs(REFUSED)], [f"2 log records: http://box:4318/v1/logs: {REFUSED}"]),
        (
            [logs(REFUSED), traces(REFUSED), metrics(REFUSED)],
            [f"{ALL_OF_IT}: http://box:4318: {REFUSED}. Send the spans later by {COMMAND}"],
        ),
        (
            [metrics("UNAVAILABLE: no", "box:4317"), logs("UNAVAILABLE: no", "box:4317")],
            ["metrics; 2 log records: box:4317: UNAVAILABLE: no"],
        ),
        # Who has got no answer in time is told with who knows why.
        (
            [metrics("it did not answer within 0.4 s"), logs(WAITING), traces(REFUSED)],
            [f"{ALL_OF_IT}: http://box:4318: {REFUSED}. Send the spans later by {COMMAND}"],
        ),
        (
            [metrics(REFUSED), logs("it answered 401 Unauthorized")],
            [
                f"metrics: http://box:4318/v1/metrics: {REFUSED}",
                "2 log records: http://box:4318/v1/logs: it answered 401 Unauthorized",
            ],
        ),
        (
            [metrics(WAITING, "http://other:4318/v1/metrics"), logs(REFUSED)],
            [
                f"2 log records: http://box:4318/v1/logs: {REFUSED}",
                f"metrics: http://other:4318/v1/metrics: {WAITING}",
            ],
        ),
    ],
)
def test_a_line_for_each_place_and_cause(parts: list[Unsent], lines: list[str]) -> None:
    assert unsent_lines(parts) == [f"not sent: {line}" for line in lines]


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what a program says of telemetry."""
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAYSCHED_BACKEND", "inline")
    # Each signal has its part of that: enough to ask once, also where the machine is busy.
    monkeypatch.setenv("RAYSCHED_TELEMETRY_FLUSH_SECONDS", "6")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, check=True, timeout=120
    )
    return [line for line in done.stderr.splitlines() if "sent" in line or "deliver" in line]


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_collector_that_is_down_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    port = free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    (line,) = run(tmp_path, monkeypatch)
    assert re.match(r"not sent: 7 spans of run \w{8}; metrics; 1 log record: ", line)
    assert f"127.0.0.1:{port}: " in line
    assert "--send" in line
    assert "ipv4:" not in line


@pytest.mark.usefixtures("nothing_set")
def test_two_collectors_that_are_down_cost_a_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for signal in ("TRACES", "METRICS"):
        endpoint = f"http://127.0.0.1:{free_port()}/v1/{signal.lower()}"
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", endpoint)
    spans, metrics = sorted(run(tmp_path, monkeypatch))
    assert spans.startswith("not sent: 7 spans of run ")
    assert metrics.startswith("not sent: metrics: http://127.0.0.1:")
