"""What collectors answer, whatever carried it."""

import json
import re

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from raysched.telemetry.ports import Refused, Signal

SHOWN = 200
"""Most characters that are shown of what a collector says."""

_FRAMES = re.compile(
    r"\Afailed to connect to all addresses; last error: \w+: "
    r"(?:(?:ipv[46]|unix):\S+: )?(?:Failed to connect to remote host: )?"
    r"|\(TSI_\w+\): SSL_ERROR_SSL: error:\w+:SSL routines:OPENSSL_internal:"
)
"""What gRPC says around the cause: attempts, addresses, and the insides of its TLS library."""


def rejected(signal: Signal, answer: bytes) -> int:
    """Return how many items a collector has rejected of a request that it took.

    Args:
        signal: The signal of the request.
        answer: The encoded `Export…ServiceResponse`.

    Raises:
        Refused: The answer is none of OTLP, so nobody knows what became of the request.
    """
    try:
        match signal:
            case Signal.TRACES:
                traces = ExportTraceServiceResponse.FromString(answer)
                return traces.partial_success.rejected_spans
            case Signal.METRICS:
                metrics = ExportMetricsServiceResponse.FromString(answer)
                return metrics.partial_success.rejected_data_points
            case Signal.LOGS:
                logs = ExportLogsServiceResponse.FromString(answer)
                return logs.partial_success.rejected_log_records
    except DecodeError:
        raise Refused("it answered with something that is not OTLP: no collector") from None


def rejected_as_json(answer: bytes) -> int:
    """Return the same of an answer in JSON, which some collectors give to any request.

    Raises:
        Refused: It is none of OTLP.
    """
    try:
        partial = json.loads(answer).get("partialSuccess") or {}
        # The only number there; OTLP writes 64-bit ones as text.
        return sum(int(value) for key, value in partial.items() if key.startswith("rejected"))
    except (ValueError, AttributeError, TypeError):
        raise Refused("it answered with something that is not OTLP: no collector") from None


def shown(text: str) -> str:
    """Return what a collector says as one short line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


def without_frames(details: str) -> str:
    """Return what went wrong of what gRPC says when there is no connection."""
    if "Failed parsing HTTP/2" in details:
        return "it does not speak gRPC"
    return _FRAMES.sub("", details)
