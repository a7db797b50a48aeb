"""Starting and ending the Jaeger that is kept: a binary, or a container of Docker or Podman.

It listens on the loopback interface only. Whoever starts or ends it holds a lock, so that two at
once do not get in each other's way.
"""

import http.client
import os
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from raysched import private
from raysched.errors import TelemetryError
from raysched.telemetry.jaeger.program import (
    ENGINE_SECONDS,
    GRPC_PORT,
    HTTP_PORT,
    UI_PORT,
    Ports,
    Program,
    command_of,
    find_program,
    run_engine,
)
from raysched.telemetry.jaeger.record import KeptJaeger, began_at, load, place, record, record_path

START_SECONDS = 60.0
"""How long it may take to answer. It takes about a second where the machine is not busy."""

END_SECONDS = 10.0
"""How long it may take to end by itself, and to write what it keeps, before it is killed."""

POLL_SECONDS = 0.05

TOLD_LINES = 8
"""Lines of its own words that are told when it does not start."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """What `raysched jaeger` was told.

    Attributes:
        program: Path or name of a `jaeger` binary, or "" for one on PATH, else a container.
        ui_port: Port of the pages; None for the usual one, or a free one where that is taken.
        http_port: The same for OTLP over HTTP.
        grpc_port: The same for OTLP over gRPC.
        keep: Whether traces are kept in the home, and not only in memory.
        foreground: Whether it belongs to this terminal, and says there what it has to say.
    """

    program: str = ""
    ui_port: int | None = None
    http_port: int | None = None
    grpc_port: int | None = None
    keep: bool = False
    foreground: bool = False


def start(home: Path, options: StartOptions) -> tuple[KeptJaeger, "subprocess.Popen[bytes] | None"]:
    """Start a Jaeger, unless there is one; returns when it answers.

    Args:
        home: raysched's home.
        options: What it is started with.

    Returns:
        Its record, and its process; None if there was one already.

    Raises:
        TelemetryError: There is none to start, a port is taken, it does not start, one is there
            that these options do not describe, or the home cannot be written.
    """
    with private.locked(place(home), TelemetryError):
        found = load(home)
        if found is not None and found.is_alive():
            _refuse_other(found, options)
            return found, None
        if found is not None:
            _clear(home, found)
        program = find_program(options.program)
        ports = _choose_ports(options)
        return _start(home, program, ports, options)


def stop(home: Path) -> KeptJaeger | None:
    """End the Jaeger that is kept, and nothing else; return what was recorded, or None.

    Raises:
        TelemetryError: The record cannot be read, or the home cannot be written.
    """
    if load(home) is None:
        return None
    with private.locked(place(home), TelemetryError):
        found = load(home)
        if found is not None:
            _clear(home, found)
        return found


def answers(url: str, seconds: float) -> bool:
    """Return whether somebody answers HTTP requests there, whatever the answer is."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=seconds)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _refuse_other(found: KeptJaeger, options: StartOptions) -> None:
    asked = {"ui": options.ui_port, "http": options.http_port, "grpc": options.grpc_port}
    others = [
        f"its --{name}-port is {getattr(found, name).rpartition(':')[2]}"
        for name, port in asked.items()
        if port is not None and not getattr(found, name).endswith(f":{port}")
    ]
    if options.keep and not found.storage:
        others.append("it has its traces in memory only")
    if options.foreground:
        others.append(
            "it belongs to no terminal" if found.log else "it belongs to another terminal"
        )
    if others:
        raise TelemetryError(
            f"a Jaeger is up already, but {' and '.join(others)}. End it by `raysched jaeger "
            "--stop`, then start it so"
        )


def _choose_ports(options: StartOptions) -> Ports:
    return Ports(
        _choose("--ui-port", options.ui_port, UI_PORT),
        _choose("--http-port", options.http_port, HTTP_PORT),
        _choose("--grpc-port", options.grpc_port, GRPC_PORT),
    )


def _choose(option: str, asked: int | None, usual: int) -> int:
    """Return the port that was asked for, the usual one, or a free one where that is taken."""
    if _is_free(asked or usual):
        return asked or usual
    if asked is not None:
        raise TelemetryError(
            f"{option} {asked}: another program listens there; end it, or leave the option out to "
            "have a free port"
        )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of the last one there, which wait for their end, do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # All addresses: whoever listens on any of them is found.
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _start(
    home: Path, program: Program, ports: Ports, options: StartOptions
) -> tuple[KeptJaeger, "subprocess.Popen[bytes]"]:
    directory = place(home)
    storage = directory / "traces"
    if options.keep:
        storage.mkdir(exist_ok=True)
    container = f"raysched-jaeger-{os.getpid()}" if program.engine else ""
    command = command_of(program, ports, directory, container, keep=options.keep)
    log = directory / "jaeger.log"
    with log.open("wb") as file:
        output = None if options.foreground else file
        try:
            process = subprocess.Popen(  # noqa: S603 - the program that the user has chosen
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                # Ctrl-C in this terminal is not meant for it, unless it belongs there.
                start_new_session=not options.foreground,
            )
        except OSError as error:
            raise TelemetryError(f"{program} cannot be run: {error.strerror}") from error
    kept = KeptJaeger(
        program=str(program),
        pid=process.pid,
        began=began_at(process.pid),
        ui=f"http://localhost:{ports.ui}",
        http=f"http://127.0.0.1:{ports.http}",
        grpc=f"http://127.0.0.1:{ports.grpc}",
        storage=str(storage) if options.keep else "",
        log="" if options.foreground else str(log),
        created=time.time(),
        engine=program.path if program.engine else "",
        container=container,
    )
    try:
        _wait(process, kept, program)
        record(home, kept)
    except BaseException:
        _end(kept)
        process.wait()
        raise
    return kept, process


def _wait(process: "subprocess.Popen[bytes]", kept: KeptJaeger, program: Program) -> None:
    """Wait until it answers.

    Raises:
        TelemetryError: It ended, or does not answer.
    """
    waited_until = time.monotonic() + START_SECONDS
    while not (answers(kept.http, 1.0) and answers(kept.ui, 1.0)):
        if process.poll() is not None:
            said = _last_words(kept.log)
            raise TelemetryError(f"{program} ended as soon as it was started{said}")
        if time.monotonic() > waited_until:
            said = _last_words(kept.log)
            raise TelemetryError(f"{program} does not answer after {START_SECONDS:g} s{said}")
        time.sleep(POLL_SECONDS)


def _last_words(log: str) -> str:
    if not log:
        return ""
    lines = Path(log).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "; it says:" + "".join(f"\n  {line}" for line in lines[-TOLD_LINES:] or ["nothing"])


def _clear(home: Path, kept: KeptJaeger) -> None:
    """End what is left of it, and forget it; the traces that it keeps stay."""
    _end(kept)
    record_path(home).unlink(missing_ok=True)


def _end(kept: KeptJaeger) -> None:
    if kept.is_alive():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(kept.pid)
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(END_SECONDS)
    if kept.container:
        # Its client passes signals on, unless it was killed.
        with suppress(OSError, subprocess.TimeoutExpired):
            run_engine([kept.engine, "rm", "--force", kept.container], ENGINE_SECONDS)
