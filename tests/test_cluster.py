"""What cluster/ wires together fits together, as far as that can be seen without its containers."""

import json
import re
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from typer.main import get_command

from raysched.cli.app import app
from raysched.settings import Settings, settings
from raysched.telemetry.jaeger.program import IMAGE
from raysched.telemetry.metrics.aggregation import Aggregation
from raysched.telemetry.metrics.environment import export_interval
from raysched.telemetry.metrics.instruments import BOUNDARIES, INSTRUMENTS, Kind
from raysched.telemetry.metrics.prometheus import PrometheusCollector
from raysched.telemetry.ports import Signal
from raysched.telemetry.sending.environment import destination
from raysched.testing import inline

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
COMPOSE: dict[str, Any] = yaml.safe_load((CLUSTER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DASHBOARD: dict[str, Any] = json.loads((CLUSTER / "grafana-dashboard.json").read_text("utf-8"))
PAGES = [CLUSTER / "README.md", ROOT / "docs" / "cluster.md"]


def head() -> Mapping[str, str]:
    """The head's environment, with the defaults of what it takes from outside."""
    environment: dict[str, str] = SERVICES["head"]["environment"]
    return {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in environment.items()
    }


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_pinned_and_watched(name: str) -> None:
    service = SERVICES[name]
    if service["image"] != "raysched-cluster":
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?", service["image"])
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    for other, condition in service.get("depends_on", {}).items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]


def test_jaeger_is_the_one_of_the_command() -> None:
    assert SERVICES["jaeger"]["image"] == IMAGE


def test_urls_name_services() -> None:
    named = {urlsplit(url).hostname for url in head().values() if "://" in url}

    assert named - {"localhost"} == {"postgres", "jaeger", "prometheus"}
    assert named - {"localhost"} < set(SERVICES)
    assert head()["RAYSCHED_ADDRESS"].partition(":")[0] in SERVICES
    assert "--address=head:6379" in SERVICES["worker"]["command"]
    provisioned = yaml.safe_load((CLUSTER / "grafana" / "datasources.yaml").read_text("utf-8"))
    for source in provisioned["datasources"]:
        assert urlsplit(source["url"]).hostname in SERVICES


def test_what_people_open_is_published_on_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    published = {port.split(":")[1] for port in ports}
    shown = {
        urlsplit(url).port
        for page in PAGES
        for url in re.findall(r"<(http://localhost:\d+)>", page.read_text("utf-8"))
    }

    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert published == {str(port) for port in shown}
    assert str(urlsplit(head()["RAYSCHED_TRACE_URL"]).port) in published


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", mount).split(":")[0]
            if source.startswith("."):
                assert (CLUSTER / source).exists()
            else:
                assert source in COMPOSE["volumes"]
    for node in ("head", "worker"):
        assert f"results:{head()['RAYSCHED_RESULT_STORAGE']}" in SERVICES[node]["volumes"]
    dockerfile = (CLUSTER / "Dockerfile").read_text("utf-8")
    allowed = (CLUSTER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    for copied in re.findall(r"^COPY (.+) /src", dockerfile, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in allowed


def test_raysched_understands_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in head().items():
        monkeypatch.setenv(name, value)
        if name.startswith("RAYSCHED_"):
            assert name.removeprefix("RAYSCHED_").lower() in Settings.model_fields
    traces, metrics = destination(Signal.TRACES), destination(Signal.METRICS)

    assert traces is not None
    assert metrics is not None
    assert traces.url == "http://jaeger:4318/v1/traces"
    assert metrics.url == "http://prometheus:9090/api/v1/otlp/v1/metrics"
    assert destination(Signal.LOGS) is None
    provisioned = yaml.safe_load((CLUSTER / "grafana" / "datasources.yaml").read_text("utf-8"))
    assert provisioned["datasources"][0]["jsonData"]["timeInterval"] == f"{export_interval():g}s"


def exported() -> dict[str, set[str]]:
    """Names of samples that raysched exports, with their labels."""
    of_task = (("raysched.flow.name", "f"), ("raysched.task.name", "t"))
    ended = (("raysched.task.state", "FAILED"), ("error.type", "E"))
    attributes = {
        "raysched.tasks": (*of_task, *ended),
        "raysched.task.duration": (*of_task, *ended[:1]),
        "raysched.attempt.duration": (*of_task, *ended),
        "raysched.flow.duration": (of_task[0], ("raysched.flow.state", "FAILED"), ended[1]),
        "raysched.telemetry.dropped": (("raysched.telemetry.signal", "traces"),),
    }
    aggregation = Aggregation()
    for instrument in INSTRUMENTS:
        series = attributes.get(instrument.name, of_task)
        if instrument.kind is Kind.HISTOGRAM:
            aggregation.record(instrument, series, [1])
        else:
            aggregation.add(instrument, series, 1)
    found: dict[str, set[str]] = {}
    for family in PrometheusCollector(aggregation).collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def queries() -> list[str]:
    variables = [each["definition"] for each in DASHBOARD["templating"]["list"][1:]]
    return variables + [target["expr"] for each in panels() for target in each.get("targets", ())]


@pytest.mark.parametrize("query", queries())
def test_the_dashboard_asks_for_what_is_exported(query: str) -> None:
    known = exported()
    names = set(re.findall(r"\braysched_\w+", query))
    metrics = names & set(known)

    assert metrics
    labels = set().union(*(known[metric] for metric in metrics))
    assert names - metrics <= labels
    for asked in re.findall(r"(\w+)=~?\"", query) + re.findall(r"by \(([^)]*)\)", query):
        assert {label.strip() for label in asked.split(",")} <= labels
    assert query.count("(") == query.count(")")


def test_the_dashboard_shows_every_instrument() -> None:
    asked = " ".join(queries())

    for instrument in INSTRUMENTS:
        assert f"{instrument.name.replace('.', '_')}" in asked


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert titles == [
        "Throughput",
        "Failures and retries",
        "Durations",
        "Queue time",
        "Active",
        "Telemetry",
    ]
    source, *_ = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    sources = {
        target["datasource"]["uid"] for panel in panels() for target in panel.get("targets", ())
    }
    assert sources == {"${datasource}"}
    covered = [
        (panel["gridPos"]["y"] + y, panel["gridPos"]["x"] + x)
        for panel in panels()
        for y in range(panel["gridPos"]["h"])
        for x in range(panel["gridPos"]["w"])
    ]
    assert len(covered) == len(set(covered))
    assert max(x for _, x in covered) < 24


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_pages_exist(page: Path) -> None:
    lines = [
        line.removeprefix("$ ")
        for line in page.read_text("utf-8").splitlines()
        if line.startswith("$ ")
    ]
    compose = [line for line in lines if line.startswith("docker compose")]
    commands = get_command(app).commands  # type: ignore[attr-defined]

    assert compose
    for line in compose:
        assert line.startswith("docker compose -f cluster/compose.yaml ")
        verb, *rest = line.split()[4:]
        assert verb in {"up", "exec", "build", "down"}
        if verb == "exec":
            assert rest[:2] == ["head", "raysched"]
            assert rest[2] in commands
    flows = {word for line in compose for word in line.split() if word.startswith("/flows/")}
    assert "/flows/hello.py" in flows or page.name != "cluster.md"


def test_the_page_tells_the_buckets_and_instruments() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    told = re.search(r"6 hours:\s([\d., \n]+) s\.", text)

    assert told is not None
    assert [float(each) for each in told[1].split(",")] == list(BOUNDARIES)
    assert re.findall(r"^\| `(raysched\.[\w.]+)` \| (?:`?)([^`,]+)", text, re.MULTILINE)
    for instrument in INSTRUMENTS:
        assert f"| `{instrument.name}` | " in text
        assert instrument.unit in text


def test_the_first_flow_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    settings.cache_clear()
    with inline():
        machines = runpy.run_path(str(CLUSTER / "hello.py"))["hello"](3)
    settings.cache_clear()

    assert list(machines.values()) == [3]
