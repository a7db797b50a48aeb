"""The choice of what carries requests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from raysched.telemetry.ports import Transport
from raysched.telemetry.sending.environment import Destination, Protocol

_VERBOSITY = "GRPC_VERBOSITY"


def open_transport(destination: Destination) -> Transport:
    """Return what carries requests to a destination; connects with the first of them.

    Raises:
        SettingsError: A file of a certificate cannot be read.
    """
    if destination.protocol is Protocol.GRPC:
        with _quiet_grpc():
            from raysched.telemetry.sending.grpc import GrpcTransport

        return GrpcTransport(destination)
    from raysched.telemetry.sending.http import HttpTransport

    return HttpTransport(destination)


@contextmanager
def _quiet_grpc() -> Iterator[None]:
    """Let gRPC, if it is loaded here, not print each lost connection on standard error.

    It reads the variable when it is loaded. What the user has set there holds.
    """
    if _VERBOSITY in os.environ:
        yield
        return
    os.environ[_VERBOSITY] = "ERROR"
    try:
        yield
    finally:
        os.environ.pop(_VERBOSITY, None)
