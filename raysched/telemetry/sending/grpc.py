"""Requests to a collector by gRPC, encoded already: calls without generated code.

Source: OTLP specification, "OTLP/gRPC".
"""

from pathlib import Path

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from raysched.errors import SettingsError
from raysched.telemetry.ports import Refused, Signal, Unavailable
from raysched.telemetry.sending.answers import rejected, shown, without_frames
from raysched.telemetry.sending.environment import Destination

_METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

_RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}

_OPTIONS = (
    ("grpc.primary_user_agent", "raysched"),
    # While a connection is not tried again, calls fail at once: so not for two minutes, as usual.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Channels that are closed and opened again shall not find the last one's back-off.
    ("grpc.use_local_subchannel_pool", 1),
)


class GrpcTransport:
    """Calls `Export` of the service of one signal.

    Args:
        destination: Where to.

    Raises:
        SettingsError: A file of a certificate cannot be read.
    """

    def __init__(self, destination: Destination) -> None:
        self.url = destination.url
        self._destination = destination
        compression = grpc.Compression.Gzip if destination.gzip else grpc.Compression.NoCompression
        if destination.secure:
            credentials = grpc.ssl_channel_credentials(
                _read(destination.certificate),
                _read(destination.client_key),
                _read(destination.client_certificate),
            )
            self._channel = grpc.secure_channel(
                destination.endpoint, credentials, options=_OPTIONS, compression=compression
            )
        else:
            self._channel = grpc.insecure_channel(
                destination.endpoint, options=_OPTIONS, compression=compression
            )
        # Both ends speak bytes: requests are encoded, and answers are decoded, elsewhere.
        self._export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            _METHODS[destination.signal]
        )
        self._metadata = tuple(destination.headers.items())

    def send(self, request: bytes, seconds: float) -> int:
        """See `Transport.send`."""
        limit = min(seconds, self._destination.timeout)
        try:
            answer = self._export(request, timeout=limit, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _failure(error, self._destination.hint) from None
        except ValueError:
            # From a channel that was closed meanwhile, and for metadata that gRPC does not carry.
            raise Refused("the connection is closed, or a header cannot be sent") from None
        return rejected(self._destination.signal, answer)

    def close(self) -> None:
        """See `Transport.close`; ends the call on its way."""
        self._channel.close()


def _read(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        message = f"OTEL_EXPORTER_OTLP_*: {file}: {error.strerror}; let this user read it"
        raise SettingsError(message) from error


def _failure(error: grpc.RpcError, hint: str) -> Unavailable | Refused:
    # What a call raises is also the call, which has these; its base class does not say so.
    if not isinstance(error, grpc.Call):
        return Unavailable("the call failed")
    code = error.code()
    # Also where nobody has answered: then it is gRPC itself that says so.
    said = f"{code.name}: {shown(without_frames(error.details() or 'no details'))}"
    if code is grpc.StatusCode.UNAVAILABLE:
        said += hint
    wait = _retry_after(error)
    if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and wait is not None):
        return Unavailable(said, wait)
    return Refused(said, unsupported=code is grpc.StatusCode.UNIMPLEMENTED)


def _retry_after(call: grpc.Call) -> float | None:
    """Return the seconds that a `RetryInfo` in the details of a failure asks for."""
    for key, value in call.trailing_metadata() or ():
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        try:
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
        except DecodeError:
            return None
    return None
