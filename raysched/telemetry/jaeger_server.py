"""Starting and ending the Jaeger that is kept: a binary, or a container of Docker or Podman.

It listens on the loopback interface only. Whoever starts or ends it holds a lock, so that two at
once do not get in each other's way.
"""

import fcntl
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from raysched.errors import TelemetryError
from raysched.telemetry.jaeger import KeptJaeger, began_at, load, place, record, record_path

UI_PORT, HTTP_PORT, GRPC_PORT = 16686, 4318, 4317
"""Ports of the pages, of OTLP over HTTP and over gRPC. Source: Jaeger's documentation, APIs."""

IMAGE = "cr.jaegertracing.io/jaegertracing/jaeger:2.13.0"
"""The container image, of Jaeger 2."""

ENGINES = ("docker", "podman")

START_SECONDS = 60.0
"""How long it may take to answer. It takes about a second where the machine is not busy."""

END_SECONDS = 10.0
"""How long it may take to end by itself, and to write what it keeps, before it is killed."""

ENGINE_SECONDS = 10.0
"""How long a container engine may take to answer."""

POLL_SECONDS = 0.05

TOLD_LINES = 8
"""Lines of its own words that are told when it does not start."""

MOST_TRACES = 100_000
"""Traces in memory, as in Jaeger's own default; the oldest make room for new ones."""

KEPT_FOR = "720h"
"""How long traces in a directory are kept: 30 days, as Go writes it."""

HOW_TO_GET_ONE = """\
there is no Jaeger on this machine to start. Get one:
  a binary     from https://www.jaegertracing.io/download/, on PATH, or named by RAYSCHED_JAEGER
  a container  with Docker or Podman running, `raysched jaeger` starts one by itself
Any other collector does as well: OTEL_EXPORTER_OTLP_ENDPOINT=http://host:4318 sends spans there"""


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


@dataclass(frozen=True, slots=True)
class _Program:
    """What is started: the path of a binary, or an engine's with the image that it runs."""

    path: str
    engine: str = ""

    def __str__(self) -> str:
        return f"{IMAGE} by {self.engine}" if self.engine else self.path


@dataclass(frozen=True, slots=True)
class _Ports:
    ui: int
    http: int
    grpc: int


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
    with _locked(home):
        found = load(home)
        if found is not None and found.is_alive():
            _refuse_other(found, options)
            return found, None
        if found is not None:
            _clear(home, found)
        program = _find_program(options.program)
        ports = _choose_ports(options)
        return _start(home, program, ports, options)


def stop(home: Path) -> KeptJaeger | None:
    """End the Jaeger that is kept, and nothing else; return what was recorded, or None.

    Raises:
        TelemetryError: The record cannot be read, or the home cannot be written.
    """
    if load(home) is None:
        return None
    with _locked(home):
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


def _find_program(named: str) -> _Program:
    if named:
        path = shutil.which(named)
        if path is None:
            raise TelemetryError(
                f"RAYSCHED_JAEGER: {named} is no program that can be run; unset it to look for "
                "`jaeger` on PATH, or for Docker or Podman"
            )
        return _Program(path)
    binary = shutil.which("jaeger")
    if binary is not None:
        return _Program(binary)
    silent = []
    for engine in ENGINES:
        path = shutil.which(engine)
        if path is not None and _engine_answers(path):
            return _Program(path, engine)
        if path is not None:
            silent.append(engine)
    remark = f"\n({' and '.join(silent)}: installed, but no engine answers)" if silent else ""
    raise TelemetryError(f"{HOW_TO_GET_ONE}{remark}")


def _engine_answers(path: str) -> bool:
    with suppress(OSError, subprocess.TimeoutExpired):
        # Unlike `version`, both have to ask the engine for this.
        return _run([path, "ps", "--quiet"], ENGINE_SECONDS).returncode == 0
    return False


def _run(command: Sequence[str], seconds: float | None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - a container engine, with names of ours
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
    )


def _choose_ports(options: StartOptions) -> _Ports:
    return _Ports(
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


def _fetch(engine: str) -> None:
    """Fetch the image, unless it is there."""
    if _run([engine, "image", "inspect", IMAGE], ENGINE_SECONDS).returncode == 0:
        return
    done = _run([engine, "pull", "--quiet", IMAGE], None)
    if done.returncode:
        raise TelemetryError(f"{IMAGE} cannot be fetched: {done.stdout.strip()}")


def _start(
    home: Path, program: _Program, ports: _Ports, options: StartOptions
) -> tuple[KeptJaeger, "subprocess.Popen[bytes]"]:
    directory = place(home)
    storage = directory / "traces"
    if options.keep:
        storage.mkdir(exist_ok=True)
    container = f"raysched-jaeger-{os.getpid()}" if program.engine else ""
    command = _command(program, ports, directory, container, keep=options.keep)
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


def _command(
    program: _Program, ports: _Ports, directory: Path, container: str, *, keep: bool
) -> list[str]:
    storage = directory / "traces"
    if not program.engine:
        return [program.path, f"--config=yaml:{_config('127.0.0.1', ports, keep and storage)}"]
    _fetch(program.path)
    inside = _Ports(UI_PORT, HTTP_PORT, GRPC_PORT)
    published = [(ports.ui, inside.ui), (ports.http, inside.http), (ports.grpc, inside.grpc)]
    config = _config("0.0.0.0", inside, keep and Path("/traces"))  # noqa: S104 - in the container
    return [
        *(program.path, "run", "--rm", "--name", container),
        *(f"--publish=127.0.0.1:{outer}:{inner}" for outer, inner in published),
        # The files that it keeps are this user's.
        f"--user={os.getuid()}:{os.getgid()}",
        *(["--userns=keep-id"] if program.engine == "podman" else []),
        *([f"--volume={storage}:/traces"] if keep else []),
        *(IMAGE, f"--config=yaml:{config}"),
    ]


def _config(host: str, ports: _Ports, kept_in: Path | Literal[False]) -> str:
    """Return a configuration of Jaeger 2, as JSON, which is YAML.

    Nothing listens but the pages and the two receivers: no Zipkin, no metrics, no debugging pages.
    Source: Jaeger's `cmd/jaeger/internal/all-in-one.yaml` and `config-badger.yaml`.
    """
    storage: dict[str, Any] = {"memory": {"max_traces": MOST_TRACES}}
    if kept_in:
        keys_and_values = {"keys": f"{kept_in}/keys", "values": f"{kept_in}/values"}
        storage = {
            "badger": {
                "directories": keys_and_values,
                "ephemeral": False,
                "ttl": {"spans": KEPT_FOR},
            }
        }
    config = {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {
                "traces": {
                    "receivers": ["otlp"],
                    "processors": ["batch"],
                    "exporters": ["jaeger_storage_exporter"],
                }
            },
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "info"}},
        },
        "extensions": {
            "jaeger_storage": {"backends": {"runs": storage}},
            "jaeger_query": {
                "storage": {"traces": "runs"},
                "http": {"endpoint": f"{host}:{ports.ui}"},
                # Its own interface for programs, which nobody here uses: any free port.
                "grpc": {"endpoint": "127.0.0.1:0"},
                # Otherwise it adds traces of its own pages to those of the runs.
                "enable_tracing": False,
            },
        },
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": f"{host}:{ports.grpc}"},
                    "http": {"endpoint": f"{host}:{ports.http}"},
                }
            }
        },
        # By default 200 ms: a trace should be there when its link is printed.
        "processors": {"batch": {"timeout": "50ms"}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "runs"}},
    }
    return json.dumps(config)


def _wait(process: "subprocess.Popen[bytes]", kept: KeptJaeger, program: _Program) -> None:
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
            _run([kept.engine, "rm", "--force", kept.container], ENGINE_SECONDS)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    directory = place(home)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TelemetryError(
            f"{directory} cannot be written ({error.strerror}): set RAYSCHED_HOME to a directory "
            "of your own"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
