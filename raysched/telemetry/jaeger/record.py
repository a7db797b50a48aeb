"""The Jaeger that `raysched jaeger` keeps running on this machine: its record.

Looking it up is cheap, since every program with a flow does so: it imports nothing of OpenTelemetry
and, where no Jaeger was started, costs the look for one file.
"""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from raysched import private
from raysched.errors import TelemetryError

_STATE_FIELD, _START_FIELD = 0, 19
"""Of /proc/pid/stat, counted from behind the name: fields 3, `state`, and 22, `starttime`. Source:
proc_pid_stat(5)."""


@dataclass(frozen=True, slots=True)
class KeptJaeger:
    """The record of a Jaeger that is kept.

    Attributes:
        program: What runs: path of the binary, or the container's image with its engine.
        pid: Process id of the binary, or of the engine's client that the container ends with.
        began: When that process began (clock ticks since the machine was started), which tells it
            apart from a later one with the same id.
        ui: URL of the pages: `http://localhost:16686`.
        http: Where it takes OTLP over HTTP: `http://127.0.0.1:4318`.
        grpc: Where it takes OTLP over gRPC: `http://127.0.0.1:4317`.
        storage: Directory of its traces, or "" where they are in memory only.
        log: Path of what it says, or "" where that goes to a terminal.
        created: When it was started (seconds since the epoch).
        engine: `docker` or `podman`, or "" for a binary.
        container: Name of the container, or "".
    """

    program: str
    pid: int
    began: int
    ui: str
    http: str
    grpc: str
    storage: str
    log: str
    created: float
    engine: str = ""
    container: str = ""

    def is_alive(self) -> bool:
        """Whether its process is there."""
        return began_at(self.pid) == self.began

    def trace_url(self, trace_id: str) -> str:
        """Return where people look at a trace."""
        return f"{self.ui}/trace/{trace_id}"


def endpoint(home: Path) -> str:
    """Return where the Jaeger that is kept takes OTLP over HTTP, or "" if none runs.

    Args:
        home: raysched's home.
    """
    kept = running(home)
    return "" if kept is None else kept.http


def running(home: Path) -> KeptJaeger | None:
    """Return the Jaeger that is kept, if it runs. A record that cannot be read counts as none."""
    try:
        kept = load(home)
    except TelemetryError:
        return None
    return kept if kept is not None and kept.is_alive() else None


def place(home: Path) -> Path:
    """Return the directory of this machine's Jaeger under raysched's home."""
    return home / "jaeger" / platform.node()


def record_path(home: Path) -> Path:
    """Return the path of the record."""
    return place(home) / "kept.json"


def load(home: Path) -> KeptJaeger | None:
    """Return what is recorded, whether or not it still runs, or None.

    Raises:
        TelemetryError: There is a record that cannot be read.
    """
    path = record_path(home)
    try:
        return KeptJaeger(**json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, TypeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a record of this version"
        raise TelemetryError(
            f"the record of the Jaeger that `raysched jaeger` keeps, {path}, cannot be read: {why}."
            " Remove it, or set RAYSCHED_HOME to a directory of your own"
        ) from error


def record(home: Path, kept: KeptJaeger) -> None:
    """Write the record, whole or not at all, so that only this user can read it."""
    private.write(record_path(home), json.dumps(asdict(kept), indent=2))


def began_at(pid: int) -> int:
    """Return when a process began (clock ticks since the start of the machine), 0 if it ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = stat.rpartition(b")")[2].split()
    return 0 if fields[_STATE_FIELD] == b"Z" else int(fields[_START_FIELD])
