"""The Jaeger that `raysched jaeger` keeps running on this machine."""

from raysched.telemetry.jaeger.record import (
    KeptJaeger,
    began_at,
    endpoint,
    load,
    place,
    record,
    record_path,
    running,
)

__all__ = [
    "KeptJaeger",
    "began_at",
    "endpoint",
    "load",
    "place",
    "record",
    "record_path",
    "running",
]
