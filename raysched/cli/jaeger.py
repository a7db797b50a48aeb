"""`raysched jaeger`: the Jaeger that is kept running between runs."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from raysched.cli.output import console, duration, print_json, say
from raysched.cli.records import iso
from raysched.client.jaeger import KeptJaeger, end_jaeger, look_at_jaeger, start_jaeger

if TYPE_CHECKING:
    import subprocess

FAILURE = 1

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables that lead spans elsewhere."""


def start(
    ui_port: int | None,
    http_port: int | None,
    grpc_port: int | None,
    *,
    keep: bool,
    foreground: bool,
    as_json: bool,
) -> int:
    """Start a Jaeger, and tell where it is; return the exit code.

    Raises:
        TelemetryError: There is none to start, a port is taken, or it does not start.
    """
    with console(stderr=True).status("Starting Jaeger"):
        kept, process = start_jaeger(
            ui_port=ui_port,
            http_port=http_port,
            grpc_port=grpc_port,
            keep=keep,
            foreground=foreground,
        )
    attended = process if foreground else None
    tell = partial(_tell, kept, process, attended=attended is not None, as_json=as_json)
    if attended is not None:
        return _attend(attended, tell)
    tell()
    return 0


def _tell(
    kept: KeptJaeger,
    process: "subprocess.Popen[bytes] | None",
    *,
    attended: bool,
    as_json: bool,
) -> None:
    if as_json:
        print_json(jaeger_record(kept))
        return
    say(("✔ ", "green"), "Jaeger is up" if process else "Jaeger is up already")
    print_jaeger(kept)
    say()
    end = "Ctrl-C" if attended else "raysched jaeger --stop"
    say(f"Runs send their spans to it from now on; {end} ends it.")
    _warn_of_endpoints()


def stop(*, as_json: bool) -> int:
    """End the Jaeger that is kept, and tell so; return the exit code.

    Raises:
        TelemetryError: Its record cannot be read or removed.
    """
    seen = look_at_jaeger()
    was_up = seen is not None and seen.is_alive()
    with console(stderr=True).status("Ending Jaeger"):
        ended = end_jaeger()
    if as_json:
        print_json({"ended": ended is not None})
    elif ended is None:
        say("There is no Jaeger to end: none was started by raysched jaeger.")
    elif was_up:
        say(("✔ ", "green"), f"Ended the Jaeger at {ended.ui}")
    else:
        say(("✔ ", "green"), f"Cleared up the Jaeger at {ended.ui}: it had ended by itself")
    return 0


def print_jaeger(kept: KeptJaeger) -> None:
    """Print where a Jaeger is, and what it is."""
    rows = {
        "pages": kept.ui,
        "takes": f"OTLP at {kept.http} (HTTP) and {kept.grpc} (gRPC), from this machine only",
        "runs": f"{kept.program}, pid {kept.pid}",
        "up for": duration(datetime.now(UTC).timestamp() - kept.created),
        "traces": f"kept in {kept.storage}" if kept.storage else "in memory, until it ends",
        "log": kept.log,
    }
    for name, text in rows.items():
        if text:
            say((f"  {name:10}", "dim"), text)


def tell_status() -> None:
    """Print what there is to be seen of the Jaeger that is kept, if one was started.

    Raises:
        TelemetryError: Its record cannot be read.
    """
    seen = look_at_jaeger()
    if seen is None:
        return
    say()
    if seen.is_alive():
        say(("✔ ", "green"), "Jaeger is up")
        print_jaeger(seen)
    else:
        say(("✘ ", "bold red"), f"The Jaeger at {seen.ui} has ended by itself")
        say("raysched jaeger starts a fresh one.")


def _attend(process: "subprocess.Popen[bytes]", tell: Callable[[], None]) -> int:
    """Wait until a Jaeger of this terminal ends, by itself or by Ctrl-C; return the exit code."""
    try:
        tell()
        process.wait()
    except KeyboardInterrupt:
        # The terminal has told it, too.
        asked = True
    else:
        asked = False
    end_jaeger()
    return 0 if asked or process.returncode == 0 else FAILURE


def _warn_of_endpoints() -> None:
    for name in ENDPOINTS:
        if os.environ.get(name):
            say((f"{name} is set: spans go there, unless it is unset.", "yellow"))


def jaeger_record(kept: KeptJaeger | None) -> dict[str, Any] | None:
    """Return a Jaeger as JSON, or None where none was started."""
    if kept is None:
        return None
    return {
        "up": kept.is_alive(),
        "ui": kept.ui,
        "otlp_http": kept.http,
        "otlp_grpc": kept.grpc,
        "program": kept.program,
        "pid": kept.pid,
        "storage": kept.storage or None,
        "log": kept.log or None,
        "started": iso(datetime.fromtimestamp(kept.created, UTC)),
    }
