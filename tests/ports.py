"""Ports for tests' own servers."""

import secrets
import socket
from contextlib import suppress

_PORTS = range(20_000, 32_000)
"""None of those that Linux gives to whoever asks for any, nor that Ray's workers listen on."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on, and that nobody is given by chance."""
    while True:
        # Not a seeded choice: test processes that run at once would all choose the same.
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
