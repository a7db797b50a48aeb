"""What is started as Jaeger: a binary, or a container of Docker or Podman, and how it is told."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raysched.errors import TelemetryError

UI_PORT, HTTP_PORT, GRPC_PORT = 16686, 4318, 4317
"""Ports of the pages, of OTLP over HTTP and over gRPC. Source: Jaeger's documentation, APIs."""

IMAGE = "cr.jaegertracing.io/jaegertracing/jaeger:2.13.0"
"""The container image, of Jaeger 2."""

ENGINES = ("docker", "podman")

ENGINE_SECONDS = 10.0
"""How long a container engine may take to answer."""

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
class Program:
    """What is started: the path of a binary, or an engine's with the image that it runs."""

    path: str
    engine: str = ""

    def __str__(self) -> str:
        return f"{IMAGE} by {self.engine}" if self.engine else self.path


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the pages, OTLP over HTTP and OTLP over gRPC are."""

    ui: int
    http: int
    grpc: int


def find_program(named: str) -> Program:
    """Return what there is to start on this machine.

    Args:
        named: Path or name of a binary, or "" for `jaeger` on PATH, else a container.

    Raises:
        TelemetryError: There is nothing, and how to get it; or not what was named.
    """
    if named:
        path = shutil.which(named)
        if path is None:
            raise TelemetryError(
                f"RAYSCHED_JAEGER: {named} is no program that can be run; unset it to look for "
                "`jaeger` on PATH, or for Docker or Podman"
            )
        return Program(path)
    binary = shutil.which("jaeger")
    if binary is not None:
        return Program(binary)
    silent = []
    for engine in ENGINES:
        path = shutil.which(engine)
        if path is not None and _engine_answers(path):
            return Program(path, engine)
        if path is not None:
            silent.append(engine)
    remark = f"\n({' and '.join(silent)}: installed, but no engine answers)" if silent else ""
    raise TelemetryError(f"{HOW_TO_GET_ONE}{remark}")


def _engine_answers(path: str) -> bool:
    with suppress(OSError, subprocess.TimeoutExpired):
        # Unlike `version`, both have to ask the engine for this.
        return run_engine([path, "ps", "--quiet"], ENGINE_SECONDS).returncode == 0
    return False


def run_engine(command: Sequence[str], seconds: float | None) -> "subprocess.CompletedProcess[str]":
    """Run a command of a container engine, for at most so long (seconds).

    Raises:
        subprocess.TimeoutExpired: It took longer.
        OSError: It cannot be run.
    """
    return subprocess.run(  # noqa: S603 - a container engine, with names of ours
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
    )


def _fetch(engine: str) -> None:
    """Fetch the image, unless it is there."""
    if run_engine([engine, "image", "inspect", IMAGE], None).returncode == 0:
        return
    done = run_engine([engine, "pull", "--quiet", IMAGE], None)
    if done.returncode:
        raise TelemetryError(f"{IMAGE} cannot be fetched: {done.stdout.strip()}")


def command_of(
    program: Program, ports: Ports, directory: Path, container: str, *, keep: bool
) -> list[str]:
    """Return what starts it; the image of a container is fetched first.

    Args:
        program: What is started.
        ports: Where it listens, on the loopback interface.
        directory: Where its traces are kept, in `traces`.
        container: Name of the container, if it is one.
        keep: Whether they are kept.

    Raises:
        TelemetryError: The image cannot be fetched.
    """
    storage = directory / "traces"
    if not program.engine:
        return [program.path, f"--config=yaml:{_config('127.0.0.1', ports, keep and storage)}"]
    _fetch(program.path)
    inside = Ports(UI_PORT, HTTP_PORT, GRPC_PORT)
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


def _config(host: str, ports: Ports, kept_in: Path | Literal[False]) -> str:
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
