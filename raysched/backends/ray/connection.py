"""Getting at a Ray cluster, or starting one on this machine, without Ray's long silences."""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import exceptions
from ray._private import services
from ray._private.node import Node
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from raysched.backends.ray.kept import KeptRay, find, say_unused
from raysched.backends.ray.shipping import with_code
from raysched.errors import BackendUnreachable
from raysched.settings import settings

CONNECT_SECONDS = 2.0
"""How long a cluster's port has time to answer."""

_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_HEADER_BYTES = 9
"""Length of an HTTP/2 frame's header (RFC 9113, section 4.1); its fourth byte is the type."""

_ANY_CLUSTER = frozenset(
    {
        "configure_logging",
        "job_config",
        "log_to_driver",
        "logging_config",
        "logging_format",
        "logging_level",
        "namespace",
        "runtime_env",
    }
)
"""Arguments of `ray.init` that do not say how a Ray is started."""

_SETTINGS_FRAME = 4
"""Type of the frame that an HTTP/2 server begins with (RFC 9113, section 3.4)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """How this process is connected to Ray.

    Attributes:
        started: Whether the Ray was started here; it ends with the connection.
        kept: The Ray of `raysched up`, if it is that.
    """

    started: bool
    kept: KeptRay | None = None
    _left_at_end: ExitStack = field(default_factory=ExitStack)

    @property
    def is_local(self) -> bool:
        """Whether all workers are on this machine."""
        return self.started or self.kept is not None

    @property
    def has_dashboard(self) -> bool:
        """Whether somebody may look at single Ray tasks."""
        return not self.is_local or (self.kept is not None and self.kept.options.dashboard)

    def close(self) -> None:
        """Leave Ray. Idempotent."""
        ray.shutdown()
        self._left_at_end.close()


def connect(address: str, init_kwargs: Mapping[str, Any], code_path: Path | None) -> Connection:
    """Connect this process to Ray.

    Args:
        address: `host:port`, `auto`, `local`, or "" for that of `RAY_ADDRESS`, else the Ray that
            `raysched up` keeps, else `local`.
        init_kwargs: More arguments for `ray.init`. Those that shape a Ray, such as `num_cpus`,
            lead to `local` rather than to one that is kept.
        code_path: Directory for the workers' import path, or None.

    Raises:
        BackendUnreachable: No cluster answers there, or it refuses the token; within 3 s.
    """
    address = address or os.environ.get("RAY_ADDRESS", "")
    arguments = {"logging_level": logging.WARNING, **init_kwargs}
    with _handlers_kept(), _quiet_about_tokens():
        if not address and init_kwargs.keys() <= _ANY_CLUSTER:
            connection = _connect_to_kept(arguments, code_path)
            if connection is not None:
                return connection
        if address in {"", "local"}:
            protect_token()
            _start(with_code(arguments, code_path, here=True))
            return Connection(started=True)
        check(address)
        ray.init(address=address, **with_code(arguments, code_path, here=False))
    return Connection(started=False)


def _connect_to_kept(arguments: Mapping[str, Any], code_path: Path | None) -> Connection | None:
    kept = find(settings().home)
    if kept is None:
        return None
    with ExitStack() as stack:
        stack.enter_context(kept.entered())
        try:
            check(kept.address)
            ray.init(address=kept.address, **with_code(arguments, code_path, here=True))
        except (BackendUnreachable, RuntimeError, OSError, exceptions.RayError) as error:
            ray.shutdown()
            say_unused(str(error))
            return None
        return Connection(started=False, kept=kept, _left_at_end=stack.pop_all())


def protect_token() -> None:
    """Keep Ray's authentication token, which Ray writes for all to read, to this user."""
    path = Path.home() / ".ray" / "auth_token"
    try:
        if path.exists():
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            return
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except OSError as error:
        _log.warning("Ray's token file %s cannot be protected: %s", path, error)


def _start(arguments: Mapping[str, Any]) -> None:
    arguments = {"include_dashboard": False, **arguments}
    with nullcontext() if arguments["include_dashboard"] else _no_more_than_runs_need():
        try:
            ray.init(address="local", **arguments)
        except (TypeError, ValueError):
            # Of the arguments.
            raise
        except Exception as error:  # noqa: BLE001 - plain ones, where a process of Ray's is late
            # One start in many fails on a busy machine.
            _log.warning("Ray did not start, it is tried once more: %s", error)
            ray.shutdown()
            try:
                ray.init(address="local", **arguments)
            except Exception as again:
                raise BackendUnreachable(
                    f"Ray cannot be started on this machine: {again}"
                ) from again


@contextmanager
def _no_more_than_runs_need() -> Iterator[None]:
    """Have `ray.init` start neither the dashboard's server nor the autoscaler's monitor.

    Ray 2.60 starts that server also with `include_dashboard=False`, for usage statistics alone, and
    waits for it; there is no setting for either. A third of the time is theirs.
    """
    server, monitor = services.start_api_server, Node.start_monitor
    services.start_api_server = lambda *_args, **_kwargs: ("", None)
    Node.start_monitor = lambda _node: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        services.start_api_server = server
        Node.start_monitor = monitor  # type: ignore[method-assign]


def check(address: str) -> None:
    """Make sure that a cluster answers and takes our token, before Ray waits for it.

    Raises:
        BackendUnreachable: It does not; said within 3 s.
    """
    if "://" in address:
        raise BackendUnreachable(
            f"address {address!r}: Ray Client is not supported. Run on a node of the cluster with "
            "host:port of its head, or submit the script with `ray job submit`"
        )
    try:
        found = services.canonicalize_bootstrap_address(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise BackendUnreachable(f"no Ray cluster at {address!r}: {error}") from error
    host, port = (found or address).rsplit(":", 1)
    _check_port(address, host.strip("[]"), int(port))
    try:
        GcsClient(address=found)
    except exceptions.AuthenticationError as error:
        raise BackendUnreachable(
            f"the Ray cluster at {address} refuses the authentication token: set "
            "RAY_AUTH_MODE=token, and put the cluster's token into ~/.ray/auth_token or "
            "RAY_AUTH_TOKEN"
        ) from error
    except Exception as error:
        raise BackendUnreachable(f"{address} is no Ray cluster of this version: {error}") from error


def _check_port(address: str, host: str, port: int) -> None:
    # Ray's own client waits for 20 s, and ends the process where something else listens.
    started = time.monotonic()
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
            connection.settimeout(max(0.1, CONNECT_SECONDS - (time.monotonic() - started)))
            connection.sendall(_HTTP2_PREFACE)
            header = connection.recv(_HEADER_BYTES)
    except OSError as error:
        raise BackendUnreachable(
            f"no Ray cluster answers at {address}: {error}. Check the address, and that the head "
            "node runs (`ray status`)"
        ) from error
    if len(header) < _HEADER_BYTES or header[3] != _SETTINGS_FRAME:
        raise BackendUnreachable(
            f"what listens at {address} is not Ray: give host:port of the head's GCS, by default "
            "port 6379"
        )


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put back the SIGTERM handler that `ray.init` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextmanager
def _quiet_about_tokens() -> Iterator[None]:
    """Leave out Ray's notice that token authentication is on, which it is by default."""
    log = logging.getLogger("ray._private.authentication.authentication_token_setup")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
