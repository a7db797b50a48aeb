import os
from pathlib import Path

import pytest

from raysched.errors import SettingsError
from raysched.telemetry.ports import Signal
from raysched.telemetry.sending.environment import (
    Protocol,
    destination,
    is_disabled,
    resource,
    traces_resource,
    unsupported_exporters,
)

GENERAL = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


class Environment:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(f"OTEL_{name}", value)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    return Environment(monkeypatch)


@pytest.mark.parametrize("signal", list(Signal))
def test_without_an_endpoint_nothing_is_exported(signal: Signal) -> None:
    assert destination(signal) is None


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("given", ["http://box:4318", "http://box:4318/", " http://box:4318 "])
def test_the_general_endpoint_is_for_every_signal(
    environment: Environment, signal: Signal, given: str
) -> None:
    environment(EXPORTER_OTLP_ENDPOINT=given)
    found = destination(signal)
    assert found is not None
    assert found.endpoint == f"http://box:4318/v1/{signal}"
    assert (found.protocol, found.timeout, found.gzip) == (Protocol.HTTP, 10.0, False)


def test_the_general_endpoint_may_have_a_path(environment: Environment) -> None:
    environment(EXPORTER_OTLP_ENDPOINT="https://box/otlp/?tenant=1")
    found = destination(Signal.LOGS)
    assert found is not None
    assert found.endpoint == "https://box/otlp/v1/logs?tenant=1"
    assert found.url == "https://box/otlp/v1/logs"
    assert found.secure


@pytest.mark.parametrize("given", ["http://box/", "http://box/own/way", "http://box"])
def test_an_endpoint_of_one_signal_is_taken_as_it_is(environment: Environment, given: str) -> None:
    environment(EXPORTER_OTLP_TRACES_ENDPOINT=given)
    found = destination(Signal.TRACES)
    assert found is not None
    assert found.endpoint == given
    assert destination(Signal.METRICS) is None


def test_an_empty_variable_is_as_none(environment: Environment) -> None:
    environment(EXPORTER_OTLP_ENDPOINT="http://box:4318", EXPORTER_OTLP_TRACES_ENDPOINT=" ")
    found = destination(Signal.TRACES)
    assert found is not None
    assert found.endpoint == "http://box:4318/v1/traces"


def test_another_endpoint_where_the_environment_has_none(environment: Environment) -> None:
    found = destination(Signal.TRACES, "http://here:1")
    assert found is not None
    assert found.endpoint == "http://here:1/v1/traces"
    environment(EXPORTER_OTLP_ENDPOINT="http://there:2")
    found = destination(Signal.TRACES, "http://here:1")
    assert found is not None
    assert found.endpoint == "http://there:2/v1/traces"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("http://box:4318", "/v1/traces"),
        ("http://box:4318/v1/traces", "/v1/traces"),
        ("http://box:4318/v1/traces/", "/v1/traces/"),
        ("http://box:4318/otlp/v1/traces", "/otlp/v1/traces"),
        ("http://box:4318/otlp", "/otlp/v1/traces"),
    ],
)
def test_an_endpoint_that_a_person_names_may_have_the_path_of_the_signal(
    environment: Environment, given: str, path: str
) -> None:
    environment(EXPORTER_OTLP_ENDPOINT="http://elsewhere:4318/v1/traces")
    found = destination(Signal.TRACES, endpoint=given)
    assert found is not None
    assert found.endpoint == f"http://box:4318{path}"


@pytest.mark.parametrize(
    ("variable", "given", "url", "left_out"),
    [
        ("ENDPOINT", "http://box/v1/traces", "http://box/v1/traces/v1/traces", "/v1/traces"),
        ("ENDPOINT", "http://box/v1/logs/?k=v", "http://box/v1/logs/v1/traces", "/v1/logs"),
        ("ENDPOINT", "http://box", "http://box/v1/traces", ""),
        ("TRACES_ENDPOINT", "http://box/v1/traces", "http://box/v1/traces", ""),
        ("TRACES_ENDPOINT", "http://box/own/way", "http://box/own/way", ""),
    ],
)
def test_the_base_url_with_the_path_of_a_signal(
    environment: Environment, variable: str, given: str, url: str, left_out: str
) -> None:
    environment(**{f"EXPORTER_OTLP_{variable}": given})
    found = destination(Signal.TRACES)
    assert found is not None
    # The specification wants the path appended to whatever the base is.
    assert found.url == url
    assert (f"leave out {left_out}," in found.path_hint) is bool(left_out)
    assert ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in found.path_hint) is bool(left_out)


@pytest.mark.parametrize(
    ("given", "insecure", "target", "secure"),
    [
        ("http://box:4317", "", "box:4317", False),
        ("http://box:4317/ignored", "", "box:4317", False),
        ("https://box:4317", "true", "box:4317", True),
        ("https://box", "", "box:443", True),
        ("http://box", "", "box:80", False),
        ("http://[::1]:4317", "", "[::1]:4317", False),
        ("box:4317", "", "box:4317", True),
        ("box:4317", "false", "box:4317", True),
        ("box:4317", "True", "box:4317", False),
        ("unix:/run/collector", "true", "unix:/run/collector", False),
        ("dns:///box:4317", "true", "dns:///box:4317", False),
    ],
)
def test_targets_of_grpc(
    environment: Environment, given: str, insecure: str, target: str, *, secure: bool
) -> None:
    environment(
        EXPORTER_OTLP_ENDPOINT=given,
        EXPORTER_OTLP_PROTOCOL="grpc",
        EXPORTER_OTLP_INSECURE=insecure,
    )
    found = destination(Signal.METRICS)
    assert found is not None
    assert (found.protocol, found.endpoint) == (Protocol.GRPC, target)
    assert found.secure is secure


def test_what_is_said_for_a_signal_goes_first(environment: Environment, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    environment(
        EXPORTER_OTLP_ENDPOINT="http://box:4318",
        EXPORTER_OTLP_PROTOCOL="grpc",
        EXPORTER_OTLP_LOGS_PROTOCOL="http/protobuf",
        EXPORTER_OTLP_TIMEOUT="3000",
        EXPORTER_OTLP_LOGS_TIMEOUT="5000",
        EXPORTER_OTLP_COMPRESSION="gzip",
        EXPORTER_OTLP_LOGS_COMPRESSION="none",
        EXPORTER_OTLP_HEADERS="a=1",
        EXPORTER_OTLP_LOGS_HEADERS="b=2",
        EXPORTER_OTLP_LOGS_CERTIFICATE=str(file),
        EXPORTER_OTLP_CLIENT_CERTIFICATE=str(file),
        EXPORTER_OTLP_CLIENT_KEY=str(file),
    )
    logs, traces = destination(Signal.LOGS), destination(Signal.TRACES)
    assert logs is not None
    assert traces is not None
    assert (logs.protocol, traces.protocol) == (Protocol.HTTP, Protocol.GRPC)
    assert (logs.timeout, traces.timeout) == (5.0, 3.0)
    assert (logs.gzip, traces.gzip) == (False, True)
    assert (logs.headers, traces.headers) == ({"b": "2"}, {"a": "1"})
    assert (logs.certificate, traces.certificate) == (file, None)
    assert logs.client_key == logs.client_certificate == file


@pytest.mark.parametrize(
    ("given", "seconds"), [("10000", 10.0), ("250", 0.25), ("10", 10.0), ("0.5", 0.5)]
)
def test_timeouts_are_milliseconds_and_small_ones_seconds(
    environment: Environment, given: str, seconds: float
) -> None:
    environment(EXPORTER_OTLP_ENDPOINT="http://box:4318", EXPORTER_OTLP_TIMEOUT=given)
    found = destination(Signal.TRACES)
    assert found is not None
    assert found.timeout == seconds


@pytest.mark.parametrize(
    ("given", "headers"),
    [
        ("", {}),
        ("api-key=abc", {"api-key": "abc"}),
        (" Api-Key = abc , , x=y=z ", {"api-key": "abc", "x": "y=z"}),
        ("authorization=Basic%20bWU6%3D", {"authorization": "Basic bWU6="}),
        ("Authorization=Bearer not encoded", {"authorization": "Bearer not encoded"}),
        ("empty=", {"empty": ""}),
    ],
)
def test_headers(environment: Environment, given: str, headers: dict[str, str]) -> None:
    environment(EXPORTER_OTLP_ENDPOINT="http://box:4318", EXPORTER_OTLP_HEADERS=given)
    found = destination(Signal.TRACES)
    assert found is not None
    assert found.headers == headers


@pytest.mark.parametrize("protocol", list(Protocol))
def test_credentials_in_a_url_become_a_header(environment: Environment, protocol: Protocol) -> None:
    environment(
        EXPORTER_OTLP_ENDPOINT="http://me:pass%40word@box:4318", EXPORTER_OTLP_PROTOCOL=protocol
    )
    found = destination(Signal.TRACES)
    assert found is not None
    assert found.headers == {"authorization": "Basic bWU6cGFzc0B3b3Jk"}
    assert "pass" not in found.endpoint + found.url + repr(found)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ENDPOINT": "box:4318"}, "no URL with http://"),
        ({"ENDPOINT": "localhost"}, "no URL with http://"),
        ({"ENDPOINT": "ftp://box:4318"}, "no URL with http://"),
        ({"ENDPOINT": "http://"}, "no URL with http://"),
        ({"ENDPOINT": "http://box:port"}, "no URL"),
        ({"ENDPOINT": "http://box:99999"}, "no URL"),
        ({"ENDPOINT": "http://[box"}, "no URL"),
        ({"ENDPOINT": "box", "PROTOCOL": "grpc"}, "neither a URL nor host:port"),
        ({"ENDPOINT": "box:http", "PROTOCOL": "grpc"}, "no URL"),
        ({"PROTOCOL": "http/json"}, "not supported; set it to http/protobuf or grpc"),
        ({"PROTOCOL": "http"}, "no protocol of OTLP"),
        ({"TIMEOUT": "soon"}, "no time over 0"),
        ({"TIMEOUT": "0"}, "no time over 0"),
        ({"TIMEOUT": "-5"}, "no time over 0"),
        ({"TIMEOUT": "nan"}, "no time over 0"),
        ({"TIMEOUT": "inf"}, "no time over 0"),
        ({"COMPRESSION": "zstd"}, "set it to gzip or none"),
        ({"CERTIFICATE": "/no/such/file"}, "there is no file"),
        ({"CLIENT_KEY": __file__}, "without the certificate"),
        ({"HEADERS": "a=1,secret"}, "its part 2 is no header"),
        ({"HEADERS": "=secret"}, "its part 1 is no header"),
        ({"HEADERS": "a b=secret"}, "its part 1 is no header"),
        ({"HEADERS": "a=secret%0d%0aHost: other"}, "its part 1 is no header"),
        ({"HEADERS": "a=secret%c3%a9"}, "its part 1 is no header"),
    ],
)
@pytest.mark.parametrize("kind", ["", "TRACES_"])
def test_what_cannot_be_right(
    environment: Environment, variables: dict[str, str], said: str, kind: str
) -> None:
    environment(EXPORTER_OTLP_ENDPOINT="http://box:4318")
    environment(**{f"EXPORTER_OTLP_{kind}{name}": value for name, value in variables.items()})
    with pytest.raises(SettingsError, match=said) as caught:
        destination(Signal.TRACES)
    names = [f"OTEL_EXPORTER_OTLP_{kind}{name}:" for name in variables]
    assert str(caught.value).startswith(tuple(names))
    assert "secret" not in str(caught.value)


def test_a_wrong_endpoint_is_shown_without_credentials(environment: Environment) -> None:
    environment(EXPORTER_OTLP_ENDPOINT="https//me:secret@box?key=secret")
    with pytest.raises(SettingsError, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT: '.*box' is") as caught:
        destination(Signal.TRACES)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("exporter", "wanted", "told"),
    [
        ("", True, False),
        ("otlp", True, False),
        ("console, otlp", True, False),
        ("none", False, False),
        ("console", False, True),
        ("zipkin", False, True),
    ],
)
def test_other_exporters(
    environment: Environment, exporter: str, *, wanted: bool, told: bool
) -> None:
    environment(EXPORTER_OTLP_ENDPOINT="http://box:4318", TRACES_EXPORTER=exporter)
    assert (destination(Signal.TRACES) is not None) is wanted
    assert destination(Signal.METRICS) is not None
    said = [f"OTEL_TRACES_EXPORTER={exporter}: raysched exports traces by otlp only"]
    assert [line.partition(", so")[0] for line in unsupported_exporters()] == said * told
    environment(SDK_DISABLED="true")
    assert unsupported_exporters() == []


@pytest.mark.parametrize(
    ("value", "disabled"), [("true", True), ("TRUE", True), ("1", False), ("", False)]
)
def test_the_switch_for_all(environment: Environment, value: str, *, disabled: bool) -> None:
    environment(EXPORTER_OTLP_ENDPOINT="http://box:4318", SDK_DISABLED=value)
    assert is_disabled() is disabled
    assert (destination(Signal.TRACES) is None) is disabled
    assert (destination(Signal.TRACES, "http://here:1") is None) is disabled


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "raysched"),
        ({"SERVICE_NAME": "nightly"}, "nightly"),
        ({"RESOURCE_ATTRIBUTES": "service.name=etl,team=data%20one"}, "etl"),
        ({"SERVICE_NAME": "nightly", "RESOURCE_ATTRIBUTES": "service.name=etl"}, "nightly"),
    ],
)
def test_the_service(environment: Environment, variables: dict[str, str], name: str) -> None:
    environment(**variables)
    attributes = resource().attributes
    assert attributes["service.name"] == name
    assert attributes["telemetry.sdk.language"] == "python"
    assert attributes.get("team") == ("data one" if "team" in str(variables) else None)


def test_spans_do_not_tell_which_process_has_sent_them(environment: Environment) -> None:
    environment(RESOURCE_ATTRIBUTES="team=data")
    assert "service.instance.id" in resource().attributes
    assert traces_resource().attributes == {
        name: value
        for name, value in resource().attributes.items()
        if name != "service.instance.id"
    }
    environment(RESOURCE_ATTRIBUTES="service.instance.id=blue")
    assert traces_resource().attributes["service.instance.id"] == "blue"
