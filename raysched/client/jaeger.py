"""The Jaeger that is kept running on this machine, for the command line and scripts."""

from typing import TYPE_CHECKING

from raysched.settings import settings
from raysched.telemetry import jaeger
from raysched.telemetry.jaeger.record import KeptJaeger

if TYPE_CHECKING:
    import subprocess

__all__ = ["KeptJaeger", "end_jaeger", "look_at_jaeger", "start_jaeger"]


def start_jaeger(
    *,
    ui_port: int | None = None,
    http_port: int | None = None,
    grpc_port: int | None = None,
    keep: bool = False,
    foreground: bool = False,
) -> "tuple[KeptJaeger, subprocess.Popen[bytes] | None]":
    """Start a Jaeger that is kept until `end_jaeger`; runs send their spans to it by themselves.

    Args:
        ui_port: Port of its pages; by default 16686, or a free one where that is taken.
        http_port: Port of OTLP over HTTP; by default 4318, or a free one.
        grpc_port: Port of OTLP over gRPC; by default 4317, or a free one.
        keep: Whether traces are kept in the home for 30 days, and not only in memory.
        foreground: Whether it belongs to this terminal, and says there what it has to say.

    Returns:
        Its record, and its process; None if there was one already.

    Raises:
        TelemetryError: There is none to start, a port is taken, it does not start, or the home
            cannot be written.
    """
    from raysched.telemetry.jaeger import server as jaeger_server

    options = jaeger_server.StartOptions(
        settings().jaeger, ui_port, http_port, grpc_port, keep=keep, foreground=foreground
    )
    return jaeger_server.start(settings().home, options)


def look_at_jaeger() -> KeptJaeger | None:
    """Return what is recorded of the Jaeger that is kept, whether or not it still runs, or None.

    Raises:
        TelemetryError: Its record cannot be read.
    """
    return jaeger.load(settings().home)


def end_jaeger() -> KeptJaeger | None:
    """End the Jaeger that is kept, and nothing else; return what was recorded of it, or None.

    Raises:
        TelemetryError: Its record cannot be read, or the home cannot be written.
    """
    from raysched.telemetry.jaeger import server as jaeger_server

    return jaeger_server.stop(settings().home)
