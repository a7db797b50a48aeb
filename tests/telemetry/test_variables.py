import subprocess
import sys
from pathlib import Path

import pytest

from raysched.telemetry.variables import misspelt, set_variables

pytestmark = pytest.mark.usefixtures("nothing_set")

PROGRAM = """
import sys
from raysched import flow

@flow
def below():
    return "opentelemetry" in sys.modules

@flow
def above():
    return below()

print(above(), above())
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program with four flow runs that says whether OpenTelemetry was imported."""
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAYSCHED_BACKEND", "inline")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return path


def run(program: Path) -> tuple[str, list[str]]:
    """Return what it prints, and the lines on standard error."""
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip(), done.stderr.splitlines()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPONT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_EXPORTER_OLTP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_EXPORT_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_OTLP_EXPORTER_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_EXPORTER_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("OTEL_EXPORTER_OTLP_TRACE_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ("OTEL_EXPORTER_OTLP_HEADER", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_TRACE_EXPORTER", "OTEL_TRACES_EXPORTER"),
        ("OTEL_TRACES_SAMPLER_ARGS", "OTEL_TRACES_SAMPLER_ARG"),
        ("OTEL_SERVICENAME", "OTEL_SERVICE_NAME"),
        ("OTEL_RESOURCE_ATTRIBUTE", "OTEL_RESOURCE_ATTRIBUTES"),
        ("OTEL_BSP_SCHEDUL_DELAY", "OTEL_BSP_SCHEDULE_DELAY"),
        ("RAYSCHED_TRACE_URLL", "RAYSCHED_TRACE_URL"),
        ("RAYSCHED_DATABSE_URL", "RAYSCHED_DATABASE_URL"),
        ("RAYSCHED_LOGLEVEL", "RAYSCHED_LOG_LEVEL"),
        ("RAYSCHED_RESULT_BYTES", "RAYSCHED_RESULT_MAX_BYTES"),
    ],
)
def test_misspelt_names(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setenv(name, "secret")
    assert misspelt() == {name: meant}


@pytest.mark.parametrize(
    "name",
    [
        # Known: ours, the specification's, the SDK's.
        "RAYSCHED_TRACE_URL",
        "RAYSCHED_FAULT_POINTS",
        "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_METRIC_EXPORT_TIMEOUT",
        "OTEL_EXPORTER_PROMETHEUS_PORT",
        "OTEL_PROPAGATORS",
        # Of other programs, languages and vendors.
        "OTEL_PYTHON_CONTEX",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST",
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        "OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT",
        "OTEL_EXPORTER_JAEGER_ENDPOINT",
        "OTEL_AWS_APPLICATION_SIGNALS_EXPORTER_ENDPOINT",
        "OTEL_SERVICE_NAMESPACE",
        "OTEL_RESOURCE_ATTRIBUTES_POD_UID",
        # What Kubernetes sets for services called so.
        "OTEL_METRICS_PORT",
        "OTEL_SERVICE_PORT",
        "OTEL_COLLECTOR_PORT_4317_TCP_ADDR",
        "RAYSCHED_PORT",
        "RAYSCHED_SERVICE_HOST",
    ],
)
def test_names_that_are_known_or_resemble_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    assert misspelt() == {}
    assert set_variables() == [name]


def test_names_of_opentelemetry_do_not_matter_where_it_is_disabled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPONT", "http://box:4318")
    assert misspelt() == {}


def test_a_program_says_once_what_nothing_reads(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPONT", "http://me:secret@box:4318")
    monkeypatch.setenv("RAYSCHED_TRACE_URLL", "https://box/?key=secret")
    _, (line,) = run(program)
    assert line.startswith("nothing reads ")
    assert "RAYSCHED_TRACE_URLL (is RAYSCHED_TRACE_URL meant?)" in line
    assert "OTEL_EXPORTER_OTLP_ENDPONT (is OTEL_EXPORTER_OTLP_ENDPOINT meant?)" in line
    assert "secret" not in line


def test_a_program_says_once_that_an_exporter_is_not_supported(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    _, (line,) = run(program)
    assert line.startswith("OTEL_TRACES_EXPORTER=console: raysched exports traces by otlp only")


def test_usual_variables_import_nothing(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "nightly")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "key=secret")
    assert run(program) == ("False False", [])
