"""Requests to a collector by HTTP.

Source: OTLP specification, "OTLP/HTTP".
"""

import gzip
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException

import requests
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from raysched.telemetry.ports import Refused, Unavailable
from raysched.telemetry.sending.answers import rejected, rejected_as_json, shown
from raysched.telemetry.sending.environment import Destination

PROTOBUF = "application/x-protobuf"

_RETRYABLE = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}

_UNSUPPORTED = {
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}

_MOST = 64 * 1024
"""So much of an answer is read (bytes); those of collectors have some hundred."""

_MOST_CAUSES = 16
"""Causes may go round in circles."""

_COMPRESSION_LEVEL = 1
"""Spans resemble each other: more effort saves little."""


class HttpTransport:
    """Posts requests of one signal.

    Args:
        destination: Where to.
    """

    def __init__(self, destination: Destination) -> None:
        self.url = destination.url
        self._destination = destination
        self._session = requests.Session()
        # Or else what ~/.netrc has for the host replaces the header that was asked for.
        self._session.auth = _as_it_is
        self._session.headers.update(
            {"User-Agent": "raysched", **destination.headers, "Content-Type": PROTOBUF}
        )
        if destination.gzip:
            self._session.headers["Content-Encoding"] = "gzip"
        # Where there is no key, it is in the file of the certificate.
        self._client: str | tuple[str, str] | None = None
        if certificate := destination.client_certificate:
            key = destination.client_key
            self._client = (str(certificate), str(key)) if key else str(certificate)

    def send(self, request: bytes, seconds: float) -> int:
        """See `Transport.send`."""
        destination = self._destination
        body = gzip.compress(request, _COMPRESSION_LEVEL) if destination.gzip else request
        limit = min(seconds, destination.timeout)
        deadline = time.monotonic() + limit
        try:
            with self._session.post(
                destination.endpoint,
                data=body,
                timeout=limit,
                allow_redirects=False,
                stream=True,
                # Said for each request: the session's goes behind REQUESTS_CA_BUNDLE.
                verify=str(destination.certificate) if destination.certificate else True,
                cert=self._client,
            ) as response:
                return self._read(response, _content(response, deadline))
        except requests.Timeout:
            raise Unavailable(f"it did not answer within {limit:g} s") from None
        except ValueError:
            raise Refused("no request can be made for its URL") from None
        # From the files of certificates, too.
        except OSError as error:
            raise Unavailable(f"{_cause(error)}{destination.hint}") from None

    def close(self) -> None:
        """See `Transport.close`."""
        self._session.close()

    def _read(self, response: requests.Response, content: bytes) -> int:
        code = response.status_code
        kind = response.headers.get("Content-Type", PROTOBUF).partition(";")[0].strip().lower()
        if response.ok and not response.is_redirect:
            if kind == "application/json" and content:
                return rejected_as_json(content)
            return rejected(self._destination.signal, content)
        said = f"it answered {code} {_phrase(code)}".strip()
        said += self._destination.path_hint if code in _UNSUPPORTED else ""
        if kind == PROTOBUF:
            with suppress(DecodeError):
                message = shown(Status.FromString(content).message)
                said += f": {message}" if message else ""
        if code in _RETRYABLE:
            raise Unavailable(said, _retry_after(response.headers.get("Retry-After", "")))
        raise Refused(said, unsupported=code in _UNSUPPORTED)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _content(response: requests.Response, deadline: float) -> bytes:
    """Return the body, or its beginning; a limit of requests' own holds for each piece only."""
    content = b""
    for piece in response.iter_content(4096):
        content += piece
        if time.monotonic() > deadline:
            raise requests.Timeout
        if len(content) > _MOST:
            break
    return content


def _phrase(code: int) -> str:
    # A reason phrase is free text of the server, and goes into a line for people.
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return ""


def _retry_after(value: str) -> float | None:
    """Return the seconds that a `Retry-After` asks for. Source: RFC 9110, section 10.2.3."""
    with suppress(ValueError):
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _cause(error: BaseException) -> str:
    """Return why a request failed, by its innermost cause.

    What requests and urllib3 say around it shows the URL, with keys in its query.
    """
    said = "the connection failed"
    seen: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if seen is None:
            break
        if isinstance(seen, OSError) and seen.strerror:
            said = shown(str(seen.strerror))
        elif isinstance(seen, HTTPException):
            said = "it does not speak HTTP, or broke off"
        inside = (getattr(seen, "reason", None), *seen.args, seen.__cause__, seen.__context__)
        seen = next((part for part in inside if isinstance(part, BaseException)), None)
    return said
