"""The Ray that `raysched up` keeps running on this machine: its record, and the way in.

It listens on the loopback interface only, with a token of its own. The record, the token and the
lock are in a directory that only this user can read, one for each machine that shares a home.
"""

import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psutil
import ray
from pydantic import BaseModel, ByteSize, ConfigDict, Field, NonNegativeInt, ValidationError
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from raysched.errors import BackendUnreachable

SECOND = 1.0
"""Within so much of each other, two starts of a process with one id are the same start (seconds).
psutil derives them from the time of boot, which the clock's corrections move."""

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"

CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With 0, Ray takes 127.0.0.1 for this node's address and listens there only. On Windows and macOS,
which its name speaks of, that is what Ray does by default."""

_log = logging.getLogger(__name__)


class StartOptions(BaseModel):
    """What `raysched up` was told; None leaves it to Ray.

    Attributes:
        num_cpus: Logical CPUs.
        num_gpus: Logical GPUs.
        object_store_memory: Size of the object store (bytes, or such as `2GiB`).
        dashboard: Whether Ray's dashboard runs, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_cpus: NonNegativeInt | None = None
    num_gpus: NonNegativeInt | None = None
    object_store_memory: (
        Annotated[ByteSize, Field(ge=ray_constants.OBJECT_STORE_MINIMUM_MEMORY_BYTES)] | None
    ) = None
    dashboard: bool = False


class Process(BaseModel):
    """One process, told apart from a later one with the same id.

    Attributes:
        pid: Its id.
        created: When it began (seconds since the epoch).
    """

    model_config = ConfigDict(frozen=True)

    pid: int
    created: float

    def find(self) -> psutil.Process | None:
        """Return the process, or None if it has ended."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < SECOND
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class KeptRay(BaseModel):
    """The record of a Ray that is kept.

    Attributes:
        address: `127.0.0.1:port` of its head.
        gcs: The head's own process, which knows everything of the cluster.
        raylet: The process that runs workers.
        others: The processes beside these two; workers are the raylet's children.
        ray_version: Version of Ray.
        prefix: `sys.prefix` of the Python that it runs in.
        created: When it was started (seconds since the epoch).
        session: Directory of its sockets, logs and spilled objects.
        token_path: File of its token.
        options: What it was started with.
    """

    model_config = ConfigDict(frozen=True)

    address: str
    gcs: Process
    raylet: Process
    others: tuple[Process, ...]
    ray_version: str
    prefix: str
    created: float
    session: Path
    token_path: Path
    options: StartOptions

    def is_alive(self) -> bool:
        """Whether the two processes that it cannot do without are there."""
        return self.gcs.find() is not None and self.raylet.find() is not None

    def why_unusable(self) -> str:
        """Return why this process cannot use it, or "" if it can, for all that can be seen."""
        if not self.is_alive():
            return "it has ended without `raysched down`"
        if self.ray_version != ray.__version__:
            return f"it is Ray {self.ray_version}, and this is Ray {ray.__version__}"
        if self.prefix != sys.prefix:
            return f"it runs in the Python environment {self.prefix}, and this is {sys.prefix}"
        if not os.access(self.token_path, os.R_OK):
            return f"its token in {self.token_path} cannot be read"
        return ""

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have Ray in this process use the token and the address of this one.

        Stay inside as long as Ray is in use: it may read the token again.
        """
        before = {name: os.environ.get(name) for name in (MODE, TOKEN, TOKEN_PATH, CLUSTERS)}
        clusters = ray_constants.ENABLE_RAY_CLUSTER
        _set({**loopback(self.token_path), TOKEN: None})
        # Read from its variable when Ray was imported.
        ray_constants.ENABLE_RAY_CLUSTER = False
        _read_again()
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = clusters
            _set(before)
            _read_again()

    def environment(self) -> dict[str, str]:
        """Return the variables of this process that its workers lack.

        They inherit those of `raysched up`; with a Ray of the run's own it would be these.
        """
        try:
            theirs = psutil.Process(self.gcs.pid).environ()
        except psutil.Error:
            return {}
        return {
            name: value
            for name, value in os.environ.items()
            if theirs.get(name) != value and not name.startswith("RAY_")
        }


def place(home: Path) -> Path:
    """Return the directory of this machine's record under raysched's home."""
    return home / "ray" / platform.node()


def record_path(home: Path) -> Path:
    """Return the path of the record."""
    return place(home) / "kept.json"


def load(home: Path) -> KeptRay | None:
    """Return what is recorded, whether or not it still runs, or None.

    Raises:
        BackendUnreachable: There is a record that cannot be read.
    """
    path = record_path(home)
    try:
        return KeptRay.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a record of this version"
        raise BackendUnreachable(
            f"the record of the Ray that `raysched up` keeps, {path}, cannot be read: {why}. "
            "Remove it, or set RAYSCHED_HOME to a directory of your own"
        ) from error


def find(home: Path) -> KeptRay | None:
    """Return the Ray that is kept if this process can use it; say why if there is one it cannot."""
    try:
        kept = load(home)
    except BackendUnreachable as error:
        _log.warning("%s. This run starts a Ray of its own", error)
        return None
    if kept is None:
        return None
    why = kept.why_unusable()
    if why:
        say_unused(why)
        return None
    return kept


def say_unused(why: str) -> None:
    """Tell that a run does without the Ray that is kept."""
    _log.warning(
        "the Ray of `raysched up` is not used: %s. This run starts a Ray of its own; `raysched "
        "down` and `raysched up` get a fresh one to keep",
        why,
    )


def loopback(token_path: Path) -> dict[str, str]:
    """Return the variables of a Ray that asks for a token and listens on loopback only."""
    return {MODE: "token", TOKEN_PATH: str(token_path), CLUSTERS: "0"}


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _read_again() -> None:
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
