"""The choice of what carries requests."""

from raysched.telemetry.environment import Destination, Protocol
from raysched.telemetry.ports import Transport


def open_transport(destination: Destination) -> Transport:
    """Return what carries requests to a destination; connects with the first of them.

    Raises:
        SettingsError: A file of a certificate cannot be read.
    """
    if destination.protocol is Protocol.GRPC:
        from raysched.telemetry.grpc import GrpcTransport

        return GrpcTransport(destination)
    from raysched.telemetry.http import HttpTransport

    return HttpTransport(destination)
