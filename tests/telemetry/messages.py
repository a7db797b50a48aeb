"""What a receiver of OTLP takes and gives, by signal."""

from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from raysched.telemetry.ports import Signal

REJECTED = 3
"""So many items of a request are rejected by `Answer.PARTIAL`."""

REQUESTS: dict[Signal, Any] = {
    Signal.TRACES: traces.ExportTraceServiceRequest,
    Signal.METRICS: metrics.ExportMetricsServiceRequest,
    Signal.LOGS: logs.ExportLogsServiceRequest,
}

PARTIAL: dict[Signal, Any] = {
    Signal.TRACES: traces.ExportTraceServiceResponse(
        partial_success=traces.ExportTracePartialSuccess(rejected_spans=REJECTED)
    ),
    Signal.METRICS: metrics.ExportMetricsServiceResponse(
        partial_success=metrics.ExportMetricsPartialSuccess(rejected_data_points=REJECTED)
    ),
    Signal.LOGS: logs.ExportLogsServiceResponse(
        partial_success=logs.ExportLogsPartialSuccess(rejected_log_records=REJECTED)
    ),
}

SERVICES = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}


def retry_info(seconds: float) -> tuple[tuple[str, bytes], ...]:
    """Return what tells a client of gRPC to try again after so long."""
    delay = Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=delay))
    status = Status(code=8, message="busy", details=[detail])
    return (("grpc-status-details-bin", status.SerializeToString()),)
