import pytest

from cli.commands import Command


def test_all_is_well(raysched: Command) -> None:
    done = raysched("doctor", "--json")
    report = done.json()
    checks = {check["name"]: check for check in report["checks"]}
    assert (done.code, report["ok"]) == (0, True), report
    assert {"Python", "raysched", "libraries", "settings", "database", "disk", "Ray"} <= set(checks)
    assert checks["Ray"]["detail"].startswith("Ray ")
    assert "can be written" in checks["database"]["detail"]
    assert all(check["ok"] for check in checks.values())


def test_what_is_broken_comes_with_advice(
    raysched: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCHED_DATABASE_URL", "sqlite:////proc/nowhere/raysched.db")
    done = raysched("doctor", "--address", "127.0.0.1:1")
    assert (done.code, done.err) == (1, "")
    broken = [line for line in done.out.splitlines() if line.startswith("✘")]
    assert [line.split()[1] for line in broken] == ["database", "Ray"]
    assert "set RAYSCHED_HOME to a directory" in done.out
    assert "raysched run --backend inline works without Ray" in done.out


def test_settings_that_are_wrong_are_named(
    raysched: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCHED_LOG_LEVEL", "LOUD")
    done = raysched("doctor")
    assert done.code == 1
    assert "RAYSCHED_LOG_LEVEL" in done.out
    runs = raysched("runs")
    assert (runs.code, runs.out) == (2, "")
    assert runs.err.startswith("error: RAYSCHED_LOG_LEVEL")


def test_variables_that_nothing_reads_are_told(
    raysched: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPONT", "http://me:s3cret@box:4318/?key=s3cret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "key=s3cret")
    monkeypatch.setenv("OTEL_AWS_APPLICATION_SIGNALS_ENABLED", "true")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("RAYSCHED_DATABSE_URL", "postgresql://me:s3cret@box/runs")
    done = raysched("doctor", "--address", "127.0.0.1:1", "--json")
    assert done.code == 1
    assert "s3cret" not in done.out + done.err
    checks = done.json()["checks"]
    (listed,) = [check["detail"] for check in checks if check["detail"].startswith("set: ")]
    assert listed == (
        "set: OTEL_AWS_APPLICATION_SIGNALS_ENABLED, OTEL_EXPORTER_OTLP_ENDPONT, "
        "OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_EXPORTER, RAYSCHED_DATABSE_URL, RAYSCHED_HOME"
    )
    assert [
        (check["detail"], check["advice"]) for check in checks if "reads" in check["detail"]
    ] == [
        ("nothing reads RAYSCHED_DATABSE_URL", "is RAYSCHED_DATABASE_URL meant?"),
        ("nothing reads OTEL_EXPORTER_OTLP_ENDPONT", "is OTEL_EXPORTER_OTLP_ENDPOINT meant?"),
    ]
    telemetry = [check["detail"] for check in checks if check["name"] == "telemetry"]
    assert telemetry[0].startswith("OTEL_TRACES_EXPORTER=console: ")
    assert telemetry[1:] == ["off: OTEL_TRACES_EXPORTER says so"]


def test_passwords_are_not_shown(raysched: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSCHED_DATABASE_URL", "postgresql://me:s3cret@127.0.0.1:1/runs")
    done = raysched("doctor", "--address", "127.0.0.1:1")
    assert done.code == 1
    assert "s3cret" not in done.out + done.err
