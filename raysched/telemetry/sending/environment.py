"""Where traces, metrics and logs go: the only reader of `OTEL_*` environment variables.

Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter" and "Environment Variable
Specification". Imports nothing of OpenTelemetry until a resource is asked for.
"""

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from raysched.errors import SettingsError
from raysched.telemetry.ports import Signal

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

SERVICE = "raysched"
"""`service.name` where nothing else names the service."""

TIMEOUT_SECONDS = 10.0
"""How long one request may take where nothing else is said (seconds)."""

_SECONDS_UP_TO = 100
"""Timeouts below this are read as seconds.

The specification counts milliseconds, Python's SDK seconds: `10` and `10000` both mean 10 s.
"""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
"""Name of a header. Source: RFC 9110, section 5.6.2."""

_PRINTABLE = re.compile(r"[\x20-\x7e]*\Z")
"""What HTTP/2 and gRPC carry as the value of a header."""


class Protocol(StrEnum):
    """How requests travel, as `OTEL_EXPORTER_OTLP_PROTOCOL` calls it."""

    HTTP = "http/protobuf"
    GRPC = "grpc"


_USUAL_PORTS = {Protocol.HTTP: "4318", Protocol.GRPC: "4317"}

_OTHERS_PORT = re.compile(r":(?P<port>4317|4318)(/|\Z)")

_DOUBLED_PATH = re.compile(rf"(?P<given>/v1/(?:{'|'.join(Signal)}))/v1/\w+\Z")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where requests of one signal go, and how.

    Attributes:
        signal: The signal.
        protocol: How they travel.
        endpoint: For HTTP the URL that requests are posted to, for gRPC the target:
            `collector:4317`. Without credentials.
        secure: Whether the connection is encrypted.
        headers: What goes with each request, names in lower case; may hold credentials.
        timeout: How long one request may take (seconds).
        gzip: Whether requests are compressed.
        certificate: File of the certificates to trust instead of the system's, or None.
        client_key: File of the client's private key, or None.
        client_certificate: File of the client's certificates, or None.
    """

    signal: Signal
    protocol: Protocol
    endpoint: str
    secure: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = TIMEOUT_SECONDS
    gzip: bool = False
    certificate: Path | None = None
    client_key: Path | None = None
    client_certificate: Path | None = None

    @property
    def url(self) -> str:
        """Where to, for people: without what may be a key in the query."""
        return self.endpoint.partition("?")[0]

    @property
    def hint(self) -> str:
        """What may be wrong where nothing answers as it should, or ""."""
        other = _OTHERS_PORT.search(self.url)
        if other is None or other["port"] == _USUAL_PORTS[self.protocol]:
            return ""
        protocol = Protocol.GRPC if self.protocol is Protocol.HTTP else Protocol.HTTP
        name = f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}"
        return f"; {other['port']} is mostly the port of {name}"

    @property
    def path_hint(self) -> str:
        """What may be wrong where there is nothing at its path, or ""."""
        doubled = _DOUBLED_PATH.search(self.url)
        if doubled is None:
            return ""
        return (
            f": OTEL_EXPORTER_OTLP_ENDPOINT is a base URL; leave out {doubled['given']}, or set "
            f"OTEL_EXPORTER_OTLP_{self.signal.upper()}_ENDPOINT"
        )


def is_disabled() -> bool:
    """Whether `OTEL_SDK_DISABLED` says that nothing is exported."""
    return _Variables(Signal.TRACES).flag("OTEL_SDK_DISABLED")


def is_off(signal: Signal) -> bool:
    """Whether the environment says that a signal is not exported, wherever it would go."""
    return is_disabled() or not _is_wanted(signal)


def destination(signal: Signal, fallback: str = "", *, endpoint: str = "") -> Destination | None:
    """Return where a signal goes, or None if it is not exported.

    A signal is not exported either where its variable names only exporters that are not supported
    (see `unsupported_exporters`).

    Args:
        signal: The signal.
        fallback: The general endpoint where the environment has none; "" for none.
        endpoint: A general endpoint that goes before those of the environment; one that ends with
            the path of the signal, `/v1/traces`, is taken as it is.

    Raises:
        SettingsError: A variable has an impossible value, or one that is not supported.
    """
    if is_off(signal):
        return None
    variables = _Variables(signal)
    name, given = variables.first("ENDPOINT")
    general = variables.general("ENDPOINT")
    if endpoint or not given:
        name, given = general, endpoint or fallback
    if not given:
        return None
    protocol = variables.protocol()
    said_by = "--endpoint" if endpoint else name
    if protocol is Protocol.HTTP:
        url = _http_url(said_by, given)
        path = url.path.rstrip("/")
        if name == general and not (endpoint and path.endswith(f"/v1/{signal}")):
            url = url._replace(path=f"{path}/v1/{signal}")
        secure = url.scheme == "https"
    else:
        url = _grpc_url(said_by, given)
        secure = url.scheme == "https" or (not url.scheme and not variables.insecure())
    key, certificate = variables.file("CLIENT_KEY"), variables.file("CLIENT_CERTIFICATE")
    if key and not certificate:
        _fail(
            variables.first("CLIENT_KEY")[0],
            "is set without the certificate of that key",
            f"set {variables.general('CLIENT_CERTIFICATE')} too",
        )
    return Destination(
        signal,
        protocol,
        _without_credentials(url) if protocol is Protocol.HTTP else _target(url),
        secure,
        {**_credentials(url), **variables.headers()},
        variables.timeout(),
        variables.gzip(),
        variables.file("CERTIFICATE"),
        key,
        certificate,
    )


def unsupported_exporters() -> list[str]:
    """Return a line for each signal that is not exported as only others than `otlp` are named."""
    if is_disabled():
        return []
    return [
        f"{name}={os.environ[name]}: raysched exports {signal} by otlp only, so none are exported; "
        "add otlp to them, or say none"
        for signal in Signal
        if not _is_wanted(signal)
        and _exporters(name := f"OTEL_{signal.upper()}_EXPORTER") != {"none"}
    ]


def resource() -> "Resource":
    """Return what the environment says about this service, by the detectors of the SDK.

    `service.name` is `raysched` unless `OTEL_SERVICE_NAME`, or `OTEL_RESOURCE_ATTRIBUTES`, has one.
    """
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    found = Resource.create()
    # What the SDK calls a service that nothing names.
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return found.merge(Resource({SERVICE_NAME: SERVICE}))
    return found


def traces_resource() -> "Resource":
    """Return the same for spans: without the random `service.instance.id` of this process.

    A run is told by whichever process is there: its driver, one that resumes it, one that sends it
    later. What they send of a span has to be the same, or backends take it for two.
    """
    from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, OTELResourceDetector, Resource

    found, named = resource(), OTELResourceDetector().detect().attributes
    kept = {
        name: value
        for name, value in found.attributes.items()
        if name != SERVICE_INSTANCE_ID or name in named
    }
    return Resource(kept, found.schema_url)


class _Variables:
    """The variables of one signal; each goes before its general one, and "" counts as unset."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal

    def general(self, option: str) -> str:
        """Return the name of the variable of all signals."""
        return f"OTEL_EXPORTER_OTLP_{option}"

    def first(self, option: str) -> tuple[str, str]:
        """Return the name and the value of the variable that counts; "" if none is set."""
        own = f"OTEL_EXPORTER_OTLP_{self._signal.upper()}_{option}"
        for name in (own, self.general(option)):
            if value := os.environ.get(name, "").strip():
                return name, value
        return self.general(option), ""

    def flag(self, name: str) -> bool:
        """Return the value of a boolean variable; everything but `true` is false."""
        return os.environ.get(name, "").strip().lower() == "true"

    def insecure(self) -> bool:
        return self.flag(self.first("INSECURE")[0])

    def protocol(self) -> Protocol:
        name, value = self.first("PROTOCOL")
        if not value:
            return Protocol.HTTP
        if value not in list(Protocol):
            wrong = "is not supported" if value == "http/json" else "is no protocol of OTLP"
            _fail(name, f"{value!r} {wrong}", "set it to http/protobuf or grpc")
        return Protocol(value)

    def timeout(self) -> float:
        name, value = self.first("TIMEOUT")
        if not value:
            return TIMEOUT_SECONDS
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        # Also false for nan.
        if not 0 < number < float("inf"):
            _fail(name, f"{value!r} is no time over 0", "give milliseconds, for example 10000")
        return number if number < _SECONDS_UP_TO else number / 1000

    def gzip(self) -> bool:
        name, value = self.first("COMPRESSION")
        if value not in {"", "none", "gzip"}:
            _fail(name, f"{value!r} is not supported", "set it to gzip or none")
        return value == "gzip"

    def file(self, option: str) -> Path | None:
        name, value = self.first(option)
        if not value:
            return None
        if not Path(value).is_file():
            _fail(name, f"there is no file {value!r}", "give the path of a PEM file, or unset it")
        return Path(value)

    def headers(self) -> dict[str, str]:
        """Return the headers; messages about them never show a value.

        Python's SDK has a parser for this, but it logs what it cannot read, credentials and all.
        """
        name, value = self.first("HEADERS")
        headers = {}
        for position, item in enumerate(value.split(","), 1):
            if not item.strip():
                continue
            key, equals, content = (part.strip() for part in item.partition("="))
            key, content = unquote(key).lower(), unquote(content).strip()
            if not equals or not _TOKEN.match(key) or not _PRINTABLE.match(content):
                _fail(
                    name,
                    f"its part {position} is no header",
                    "write `name=value,name=value`, values percent-encoded",
                )
            headers[key] = content
        return headers


def _is_wanted(signal: Signal) -> bool:
    named = _exporters(f"OTEL_{signal.upper()}_EXPORTER")
    return not named or "otlp" in named


def _exporters(name: str) -> set[str]:
    return {part.strip() for part in os.environ.get(name, "").split(",")} - {""}


def _http_url(name: str, value: str) -> SplitResult:
    url = _split(name, value)
    if url.scheme not in {"http", "https"} or not url.hostname:
        _fail(
            name,
            f"{_shown(value)!r} is no URL with http:// or https:// and a host",
            "write, for example, http://localhost:4318",
        )
    return url


def _grpc_url(name: str, value: str) -> SplitResult:
    """Return what a target says; without http:// or https:// it has no scheme, but a location.

    Any target that gRPC knows is fine (`collector:4317`, `dns:///collector:4317`, `unix:/socket`).
    """
    if re.match(r"https?://", value, re.IGNORECASE):
        return _http_url(name, value)
    if "://" in value or value.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
        return SplitResult("", value, "", "", "")
    url = _split(name, f"//{value}")
    if url.port is None:
        _fail(
            name,
            f"{_shown(value)!r} is neither a URL nor host:port",
            "write, for example, http://localhost:4317",
        )
    return url


def _split(name: str, value: str) -> SplitResult:
    try:
        url = urlsplit(value)
        _ = url.port
    except ValueError as error:
        # The message of a wrong port shows the port alone.
        _fail(name, f"{_shown(value)!r} is no URL ({error})", "correct it")
    return url


def _without_credentials(url: SplitResult) -> str:
    return urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2]))


def _target(url: SplitResult) -> str:
    target = url.netloc.rpartition("@")[2]
    if url.scheme and url.port is None:
        # The port of the scheme: gRPC itself takes 443 where none is given.
        return f"{target.rstrip(':')}:{443 if url.scheme == 'https' else 80}"
    return target


def _credentials(url: SplitResult) -> dict[str, str]:
    """Return the header for `user:password@` in a URL."""
    user, at, _ = url.netloc.rpartition("@")
    if not at:
        return {}
    return {"authorization": f"Basic {base64.b64encode(unquote(user).encode()).decode()}"}


def _shown(value: str) -> str:
    """Return an endpoint without what may be credentials."""
    return re.sub(r"[^/@]*@", "…@", value.partition("?")[0])


def _fail(name: str, wrong: str, remedy: str) -> NoReturn:
    raise SettingsError(f"{name}: {wrong}; {remedy}")
