"""Starting and ending the Ray that is kept.

Whoever starts or ends it holds a lock, so that two at once do not get in each other's way.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import ray
from ray._private.services import find_bootstrap_address
from ray._private.utils import get_dashboard_dependency_error, get_ray_client_dependency_error

from raysched import private
from raysched.backends.ray.kept import (
    TOKEN,
    KeptRay,
    Process,
    StartOptions,
    load,
    loopback,
    place,
    record_path,
)
from raysched.backends.ray.look import Look, descendants, look
from raysched.errors import BackendError, BackendUnreachable

START_SECONDS = 90.0
"""How long Ray may take to start. On a busy machine it takes five times as long as otherwise."""

END_SECONDS = 5.0
"""How long a process may take to end by itself before it is killed."""

TOLD_LINES = 8
"""Lines of Ray's own words that are told when it does not start."""

SESSION = "ray"
"""Ray's temporary directory in ours."""

RAYLET, GCS = "raylet", "gcs_server"
"""File names of the two programs of a head."""

CLIENT_SERVER = "ray.util.client.server"
"""Module of Ray Client's server, which outlives its Ray."""


def start(home: Path, options: StartOptions) -> bool:
    """Start a Ray that goes on when this process ends, unless there is one.

    Args:
        home: raysched's home.
        options: What it is started with.

    Returns:
        Whether it was started: False if there is one already.

    Raises:
        BackendUnreachable: Ray does not start, or the record of another one cannot be read.
        BackendError: One is there that these options do not describe, or that this Python cannot
            use; the home cannot be written; or the dashboard is not installed.
    """
    lacking = get_dashboard_dependency_error() if options.dashboard else None
    if lacking is not None:
        raise BackendError(f'Ray\'s dashboard cannot run ({lacking}): pip install "ray[default]"')
    with private.locked(place(home), BackendError):
        found = load(home)
        if found is not None and found.is_alive():
            _refuse_other(found, options)
            return False
        if found is not None:
            _clear(home, found)
        _start(home, options)
        return True


def stop(home: Path, *, force: bool) -> Look | None:
    """End the Ray that is kept, and nothing else.

    Args:
        home: raysched's home.
        force: Also while programs are connected.

    Returns:
        What was seen of it before, or None if there was none.

    Raises:
        BackendError: Programs are connected, or it does not tell; or the home cannot be written.
        BackendUnreachable: The record cannot be read.
    """
    if load(home) is None:
        return None
    with private.locked(place(home), BackendError):
        seen = look(home)
        if seen is None:
            return None
        if not force:
            _refuse_if_used(seen)
        _clear(home, seen.kept)
        return seen


def _refuse_if_used(seen: Look) -> None:
    if seen.drivers:
        programs = "".join(f"\n  {each.pid}  {each.command}" for each in seen.drivers)
        raise BackendError(
            f"the Ray of `raysched up` is in use by:{programs}\n"
            "Wait until they have ended, or end it under them by `raysched down --force`"
        )
    if seen.problem and seen.kept.is_alive():
        raise BackendError(
            f"whether programs use the Ray of `raysched up` cannot be seen: {seen.problem}. "
            "`raysched down --force` ends it all the same"
        )


def _refuse_other(found: KeptRay, options: StartOptions) -> None:
    why = found.why_unusable()
    if not why and options not in {StartOptions(), found.options}:
        why = f"it was started with {_shown(found.options)}, not with {_shown(options)}"
    if why:
        raise BackendError(
            f"a Ray is up already, but {why}. End it by `raysched down`, then start a fresh one by "
            "`raysched up`"
        )


def _shown(options: StartOptions) -> str:
    given = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in options.model_dump(exclude_defaults=True).items()
    ]
    return " ".join(given) or "no options"


def _start(home: Path, options: StartOptions) -> None:
    token_path = place(home) / "auth_token"
    private.write(token_path, secrets.token_hex(32))
    # Not in the home: names of sockets have at most 107 characters. For this user alone.
    session = Path(tempfile.mkdtemp(prefix="raysched-", dir=os.environ.get("RAY_TMPDIR", "/tmp")))  # noqa: S108 - where Ray keeps sessions, too
    try:
        _ray_start(session, token_path, options)
        kept = _record(session, token_path, options)
        private.write(record_path(home), kept.model_dump_json(indent=2))
    except BaseException:
        _end(_processes_of(session))
        shutil.rmtree(session, ignore_errors=True)
        raise


def _ray_start(session: Path, token_path: Path, options: StartOptions) -> None:
    # Nor RAY_ADDRESS: its workers would take it for the address of their own cluster.
    environment = {
        name: value for name, value in os.environ.items() if name not in {TOKEN, "RAY_ADDRESS"}
    }
    try:
        done = subprocess.run(  # noqa: S603 - Ray's own command, with numbers and paths of ours
            _command(session, options),
            env={**environment, **loopback(token_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=START_SECONDS,
            # Ctrl-C in this terminal is not meant for it.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise BackendUnreachable(f"Ray did not start within {START_SECONDS:g} s") from error
    if done.returncode:
        raise BackendUnreachable(f"Ray did not start, it says: {_last_words(done.stdout)}")


def _last_words(output: str) -> str:
    lines = output.strip().splitlines() or ["nothing"]
    # A traceback's last line tells what was wrong; otherwise nobody knows which one does.
    told = lines[-1:] if any(line.startswith("Traceback") for line in lines) else lines
    return "\n  ".join(told[-TOLD_LINES:])


def _command(session: Path, options: StartOptions) -> list[str]:
    command = [
        sys.executable,
        *("-m", "ray.scripts.scripts", "start", "--head", "--port=0"),
        # Ray opens this directory to all users, but not the one around it.
        f"--temp-dir={session / SESSION}",
        f"--include-dashboard={options.dashboard}",
        # Its default is one port for the whole machine, for which a second Ray waits in vain.
        "--dashboard-agent-listen-port=0",
        # The autoscaler's: there is nothing to scale.
        "--no-monitor",
        "--disable-usage-stats",
    ]
    if get_ray_client_dependency_error() is None:
        # Ray Client's server, which starts where gRPC is installed, has a fixed port, too.
        command.append(f"--ray-client-server-port={_free_port()}")
    for name in ("num_cpus", "num_gpus", "object_store_memory"):
        value = getattr(options, name)
        if value is not None:
            command.append(f"--{name.replace('_', '-')}={value}")
    return command


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _record(session: Path, token_path: Path, options: StartOptions) -> KeptRay:
    address = find_bootstrap_address(str(session / SESSION))
    programs: dict[str, Process] = {}
    others = []
    for process in _processes_of(session, address or ""):
        with suppress(psutil.NoSuchProcess):
            found = Process(pid=process.pid, created=process.create_time())
            program = Path(process.cmdline()[0]).name
            if program in {RAYLET, GCS}:
                programs[program] = found
            else:
                others.append(found)
    if not address or len(programs) < len((RAYLET, GCS)):
        raise BackendUnreachable("Ray ended as soon as it was started: start it again")
    return KeptRay(
        address=address,
        gcs=programs[GCS],
        raylet=programs[RAYLET],
        others=tuple(others),
        ray_version=ray.__version__,
        prefix=sys.prefix,
        created=time.time(),
        session=session,
        token_path=token_path,
        options=options,
    )


def _processes_of(session: Path, address: str = "") -> list[psutil.Process]:
    """Return the processes that were started for a session.

    Its directory is in their arguments; in those of Ray Client's server its address, if it has one.
    """
    mine, server = os.getuid(), {CLIENT_SERVER, f"--address={address}"}
    return [
        process
        for process in psutil.process_iter(["cmdline", "uids"])
        if process.info["uids"]
        and process.info["uids"].real == mine
        and (
            any(f"{session}" in argument for argument in process.info["cmdline"] or ())
            or server <= set(process.info["cmdline"] or ())
        )
    ]


def _clear(home: Path, kept: KeptRay) -> None:
    """End what is left of it, and forget it."""
    raylet = kept.raylet.find()
    # Before the others, which it would miss; its workers end with it.
    if raylet is not None:
        _end([raylet, *descendants(raylet)], asked=[raylet])
    rest = (each.find() for each in kept.others)
    _end(process for process in rest if process is not None)
    gcs = kept.gcs.find()
    _end([gcs] if gcs is not None else [])
    record_path(home).unlink(missing_ok=True)
    kept.token_path.unlink(missing_ok=True)
    shutil.rmtree(kept.session, ignore_errors=True)


def _end(
    processes: Iterable[psutil.Process], asked: Iterable[psutil.Process] | None = None
) -> None:
    """End processes, those that do not end when asked by force.

    Args:
        processes: All that have to end.
        asked: Those that are asked to, by default all.
    """
    processes = list(processes)
    for process in processes if asked is None else asked:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, END_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, END_SECONDS)
