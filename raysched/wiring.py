"""The composition root: the only place that chooses adapters.

One process has one engine, made when the first flow is called and stopped when the process ends.
"""

import atexit
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysched import faults
from raysched.define.context import AttemptContext, attempt_context
from raysched.define.ports import Engine as EnginePort
from raysched.define.ports import FlowRunStart, KeptFlowRun, RunPort
from raysched.engine.engine import Engine
from raysched.engine.ports import Backend, Clock, Observer, Store, Telemetry
from raysched.errors import UsageError
from raysched.model.options import FlowSpec
from raysched.model.rows import Batch, FlowRunRow
from raysched.results.storage import open_storage
from raysched.settings import Settings, settings
from raysched.store.opening import OpeningStore
from raysched.telemetry.variables import remark
from raysched.telemetry.wanted import is_wanted, situation
from raysched.worker.objects import objects

if TYPE_CHECKING:
    from raysched.telemetry.tracing import Tracing


class SystemClock:
    """The time of this machine."""

    def now(self) -> int:
        """Return nanoseconds since the epoch."""
        return time.time_ns()

    def seconds_until(self, at: int) -> float:
        """See `Clock.seconds_until`."""
        return max(0.0, (at - self.now()) / 1e9)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a program decides before its first flow is called.

    Attributes:
        backend: `ray`, `inline`, one that is not started yet, or "" for the settings'.
        address: Ray address, or "" for the settings'.
        init_kwargs: More arguments for `ray.init`.
        code_path: Directory that is put on the workers' import path, or None for the directory
            of the running script.
        observers: Look at every committed batch.
        telemetry: Tells where flow runs stand in traces, or None for what settings and environment
            want.
        target: What is being run, for the rows of flow runs: `dir/flow.py:flow`.
        clock: Where the time comes from.
    """

    backend: str | Backend = ""
    address: str = ""
    init_kwargs: dict[str, Any] = field(default_factory=dict)
    code_path: Path | None = None
    observers: Sequence[Observer] = ()
    telemetry: Telemetry | None = None
    target: str = ""
    clock: Clock = field(default_factory=SystemClock)


_lock = threading.Lock()
_configuration = Configuration()
_engine: Engine | None = None
_situation: tuple[object, ...] = ()
"""What its telemetry rests on."""


def configure(configuration: Configuration) -> Configuration:
    """Decide what the next engine of this process is made of; stops the one that is there.

    Returns:
        What was decided before.
    """
    global _configuration
    disconnect()
    before, _configuration = _configuration, configuration
    return before


class ProcessEngine:
    """The engine of this process, made when the first flow run is opened."""

    def open_run(self, start: FlowRunStart) -> RunPort:
        """See `define.ports.Engine.open_run`.

        Raises:
            BackendUnreachable: Ray cannot be reached.
            StoreError: The database cannot be opened.
            SettingsError: A `RAYSCHED_*` variable has an impossible value.
            UsageError: The flow's task runner names another cluster than the one in use.
        """
        return self._engine(start.spec).open_run(start)

    def _engine(self, spec: FlowSpec) -> Engine:
        global _configuration, _engine, _situation  # noqa: PLW0603 - one engine a process
        with _lock:
            if _engine is not None and _engine.is_broken:
                # The store or Ray may be back.
                _engine.stop()
                _engine = None
            if _engine is None:
                _configuration = _with_runner(_configuration, spec)
                _situation = situation(settings())
                _engine = _make(_configuration, settings())
                # Again for each, and so after what Ray registers when it is imported: what is
                # registered last is called first, and workers have to be there still.
                atexit.unregister(disconnect)
                atexit.register(disconnect)
            elif spec.address not in {None, _configuration.address}:
                used = _configuration.address or "a cluster of its own choice"
                message = (
                    f"task_runner: flow {spec.name!r} wants Ray at {spec.address}, but this "
                    f"process is connected to {used}; one process uses one cluster"
                )
                raise UsageError(message)
            else:
                _follow(_engine)
            return _engine


def connect() -> EnginePort:
    """Return the engine for what is called here.

    Inside an attempt of a task it is one that runs everything in the attempt's own thread.
    """
    attempt = attempt_context.get()
    if attempt is None:
        return ProcessEngine()
    from raysched.engine.nested import NestedEngine

    return NestedEngine(attempt)


def kept_run(run: str) -> KeptFlowRun:
    """See `define.ports.kept_run`."""
    from raysched.results.envelope import decode
    from raysched.store import open_reader

    reader = open_reader(settings().resolved_database_url())
    try:
        row = reader.find_run(run)
        envelope = reader.pickled_parameters(row)
        owner = "" if row.state.is_terminal else reader.owner(row)
        may_have_run = tuple(reader.may_have_run(row))
    finally:
        reader.close()
    parameters, lacks = None, "they are larger than 1 MiB, or cannot be pickled"
    if envelope is not None:
        try:
            parameters = decode(envelope)
        except Exception as error:  # noqa: BLE001 - of users' classes, which may have changed
            lacks = f"{type(error).__name__}: {error}"
    return KeptFlowRun(
        row.id,
        row.flow,
        row.name,
        row.state,
        row.parent,
        row.tags,
        parameters,
        lacks,
        owner,
        row.key,
        may_have_run,
    )


def open_nested(attempt: AttemptContext) -> RunPort:
    """See `define.ports.open_nested`."""
    from raysched.backends.inline import InlineBackend
    from raysched.engine.nested import open_nested

    return open_nested(attempt, InlineBackend(), settings(), _configuration.clock)


def disconnect() -> None:
    """Stop the engine of this process, if there is one. Idempotent."""
    global _engine
    with _lock:
        engine, _engine = _engine, None
    if engine is not None:
        engine.stop()
        # Where task runs were in this process, this is the end of their worker.
        objects.close()


def _follow(engine: Engine) -> None:
    """Exchange the telemetry if the program has a provider now, say, which it had not."""
    global _situation  # noqa: PLW0603 - with the engine
    if _configuration.telemetry is not None or not engine.is_idle:
        return
    chosen, now = settings(), situation(settings())
    if now == _situation:
        return

    def make() -> "Tracing | None":
        tracing = _open_tracing(_configuration, chosen)
        if tracing is not None:
            tracing.opened()
        return tracing

    engine.exchange_telemetry(make)
    _situation = now


def _with_runner(configuration: Configuration, spec: FlowSpec) -> Configuration:
    """Add what the flow's task runner says to what the program has left open."""
    return replace(
        configuration,
        address=configuration.address or spec.address or "",
        init_kwargs={**spec.init_kwargs, **configuration.init_kwargs},
    )


def _make(configuration: Configuration, chosen: Settings) -> Engine:
    faults.arm(chosen.fault_points)
    storage = open_storage(chosen.resolved_result_storage())
    backend = make_backend(configuration, chosen)
    tracing = _open_tracing(configuration, chosen)
    store = OpeningStore(partial(_open_store, chosen))
    if backend.pumped:
        # There is nothing to wait for meanwhile, and what is wrong is said at once.
        store.opened()
    try:
        engine = Engine(
            backend,
            store,
            chosen,
            configuration.clock,
            observers=configuration.observers,
            telemetry=configuration.telemetry or tracing,
            target=configuration.target,
            storage=storage,
        )
    except BaseException:
        store.close()
        raise
    try:
        store.opened()
        if tracing is not None:
            tracing.opened()
    except BaseException:
        engine.stop()
        raise
    return engine


def _open_tracing(configuration: Configuration, chosen: Settings) -> "Tracing | None":
    remark()
    if configuration.telemetry is not None or not is_wanted(chosen):
        return None
    from raysched.telemetry.tracing import Tracing

    kept = partial(KeptHistory, chosen.resolved_database_url())
    # The command line, which has a target, says it in its summary.
    return Tracing(chosen, kept, announce=not configuration.target)


class KeptHistory:
    """What the database keeps of runs, for telemetry: see `telemetry.history.History`.

    Args:
        url: URL of the database.
    """

    def __init__(self, url: str) -> None:
        from raysched.store import open_reader

        self._reader = open_reader(url)

    def undelivered(self, limit: int) -> list[str]:
        """See `History.undelivered`."""
        from raysched.telemetry.history import MAX_AGE_NS

        since = time.time_ns() - MAX_AGE_NS
        return [run.id for run in self._reader.undelivered(since, limit=limit)]

    def replay(self, run_id: str) -> Iterator[tuple[FlowRunRow, Batch]]:
        """See `History.replay`."""
        from raysched.store.replay import replay

        return replay(self._reader, self._reader.find_run(run_id))

    def delivered(self, run_id: str, executions: int) -> None:
        """See `History.delivered`."""
        self._reader.traces.delivered(run_id, executions)

    def close(self) -> None:
        """See `History.close`."""
        self._reader.close()


def _open_store(chosen: Settings) -> Store:
    # Imported here: SQLModel costs most of half a second, which passes while Ray starts.
    from raysched.store import open_store

    return open_store(chosen.resolved_database_url(), synchronous=chosen.sqlite_synchronous)


def make_backend(configuration: Configuration, chosen: Settings) -> Backend:
    """Return the backend that is chosen, not yet started."""
    if not isinstance(configuration.backend, str):
        return configuration.backend
    if (configuration.backend or chosen.backend) == "inline":
        from raysched.backends.inline import InlineBackend

        return InlineBackend()
    from raysched.backends.ray.backend import RayBackend

    return RayBackend(
        address=configuration.address or chosen.address,
        init_kwargs=configuration.init_kwargs,
        code_path=configuration.code_path,
    )
