import pytest

from cli.commands import Command


@pytest.mark.timeout(180)
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


def test_passwords_are_not_shown(raysched: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSCHED_DATABASE_URL", "postgresql://me:s3cret@127.0.0.1:1/runs")
    done = raysched("doctor", "--address", "127.0.0.1:1")
    assert done.code == 1
    assert "s3cret" not in done.out + done.err
