"""Units as Ray calls."""

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import exceptions

from raysched.backends.ray.autopsy import Autopsies, evidence_of, place
from raysched.backends.ray.capacity import capacity
from raysched.backends.ray.connection import Connection, connect
from raysched.backends.ray.events import Events
from raysched.backends.ray.failures import (
    cancelled,
    describe_loss,
    node_of_driver_died,
    silent,
    stuck,
)
from raysched.backends.ray.hearts import Silence, Whereabouts
from raysched.backends.ray.listener import Alarms, Listener
from raysched.backends.ray.liveness import NodeWatch
from raysched.backends.ray.nodes import addable_nodes, are_here, living_nodes
from raysched.backends.ray.objects import are_lost
from raysched.backends.ray.options import validate_ray_options
from raysched.backends.ray.remote import WITH_LARGE, Place, remote_function
from raysched.backends.ray.shipping import default_code_path
from raysched.backends.ray.traces import Remains
from raysched.compiler.plan import SchedulingClass
from raysched.engine.ports import Capacity, Lost, Message, Reported, Sink, UnitCall
from raysched.errors import BackendUnreachable, InvalidOption, ResultLost, SerializationError
from raysched.model.options import TaskSpec
from raysched.model.values import LargeValue
from raysched.results.envelope import decode
from raysched.settings import settings
from raysched.worker.context import context_of
from raysched.worker.functions import refer
from raysched.worker.refusing import refuse

if TYPE_CHECKING:
    from concurrent.futures import Future

ATTEND_SECONDS = 0.01
"""How long a unit that is alone on its way is waited for directly (seconds). It saves 0.2 ms of CPU
and a change of threads each; what others have for the waiting thread comes so much later."""

END_SECONDS = 5.0
"""How long a silent worker that is ended by force may take until Ray tells of its end."""

DEATHS = (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError, exceptions.NodeDiedError)
"""What Ray raises when a worker has died."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Call:
    """A unit that was submitted and has not come back.

    Attributes:
        task_name: Name of the task, "" if several were fused.
        report: Ref of the reply; None until Ray has taken it.
        large: Ref of its large values.
        cancelled: Whether all of it was cancelled.
        forced: Whether its worker was ended to cancel it.
        deaf: Whether that was because it did not hear of it.
        silence: Why its worker was ended otherwise, or None.
    """

    task_name: str
    report: Any = None
    large: Any = None
    cancelled: bool = False
    forced: bool = False
    deaf: bool = False
    silence: Silence | None = None


class RayBackend:
    """Runs each unit as one call of a Ray task.

    Args:
        address: `host:port`, `auto`, `local`, or "" for the settings' and Ray's defaults. Where
            the user has called `ray.init` before, that Ray is used, and left running.
        init_kwargs: More arguments for `ray.init`.
        code_path: Directory that is put on the workers' import path, or None for the directory
            of the running script.
    """

    name = "ray"
    pumped = False

    def __init__(
        self,
        *,
        address: str = "",
        init_kwargs: Mapping[str, Any] | None = None,
        code_path: Path | None = None,
    ) -> None:
        self._settings = settings()
        self._address = address or self._settings.address
        self._init_kwargs = dict(init_kwargs or {})
        self._code_path = code_path or default_code_path()
        self._sink: Sink = _nowhere
        self._connection: Connection | None = None
        self._listener: Listener | None = None
        self._watch: NodeWatch | None = None
        self._autopsies: Autopsies | None = None
        self._events: Events | None = None
        self._dead = False
        self._calls: dict[int, _Call] = {}
        self._alone: int | None = None
        # Bounded: a flow may make new options for each call.
        self._function_of = lru_cache(maxsize=1024)(self._new_function)

    def start(self, sink: Sink) -> None:
        """See `Backend.start`."""
        self._sink = sink
        if ray.is_initialized():
            self._say_what_is_not_shipped()
        else:
            self._connection = connect(self._address, self._init_kwargs, self._code_path)
        is_local = self._connection is not None and self._connection.is_local
        host = "127.0.0.1" if is_local else ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._autopsies = Autopsies()
        is_fresh = self._connection is not None and self._connection.started
        self._events = events = Events(self._tell, is_fresh=is_fresh)
        alarms = Alarms(self._end_silent, self._end_deaf, events.worker_left)
        self._listener = Listener(host, self._tell, self._calls.__contains__, alarms)
        self._watch = NodeWatch(self._die, events.see_nodes)

    def capacity(self, spec: TaskSpec, scheduling_class: SchedulingClass) -> Capacity:
        """See `Backend.capacity`; an option that Ray does not know has no place, either."""
        del scheduling_class
        if self._dead:
            raise BackendUnreachable(node_of_driver_died().message)
        try:
            validate_ray_options(spec.ray)
        except InvalidOption as error:
            return Capacity(0, str(error))
        there = living_nodes()
        found = capacity(spec.ray, there)
        return found if found.slots else capacity(spec.ray, [*there, *addable_nodes()])

    def submit(self, call: UnitCall) -> None:
        """See `Backend.submit`."""
        task_name = call.specs[0].name if len(call.specs) == 1 else ""
        sent = _Call(task_name)
        # Before Ray has it: its worker may speak at once, and what it says is not said again.
        self._calls[call.id] = sent
        try:
            function = self._function_of(call.specs)
            sent.report, sent.large = function.remote(call.frame, *call.handles)
        except (SerializationError, InvalidOption) as error:
            self._drop(Reported(call.id, refuse(call.frame, ("", "", 0, ""), error)))
            return
        except Exception as error:  # noqa: BLE001 - Ray raises many kinds, none of them the user's
            self._drop(Lost(call.id, describe_loss(error, task_name=task_name)))
            return
        if self._dead:
            self._drop(Lost(call.id, node_of_driver_died()))
        elif len(self._calls) == 1:
            self._alone = call.id
        else:
            self.attend(0)
            self._watch_for(call.id)

    def attend(self, seconds: float | None) -> None:
        """See `Backend.attend`."""
        unit, self._alone = self._alone, None
        call = None if unit is None else self._calls.get(unit)
        if unit is None or call is None:
            return
        came = False
        try:
            if seconds != 0:
                limit = ATTEND_SECONDS if seconds is None else min(seconds, ATTEND_SECONDS)
                self._take_reply(unit, ray.get(call.report, timeout=limit))
                came = True
        except exceptions.GetTimeoutError:
            pass
        except exceptions.RayError as error:
            self._take_error(unit, error)
            came = True
        finally:
            # Also if Ctrl-C ends the waiting.
            if not came:
                self._watch_for(unit)

    def _watch_for(self, unit: int) -> None:
        call = self._calls.get(unit)
        if call is not None:
            call.report.future().add_done_callback(partial(self._on_reply, unit))

    def cancel(
        self, unit: int, positions: Sequence[int] | None = None, *, force: bool = False
    ) -> None:
        """See `Backend.cancel`."""
        call, listener = self._calls.get(unit), self._listener
        if call is None or listener is None:
            return
        # The channel reaches what runs, also in a system call; Ray's own way what is queued.
        known = listener.cancel(unit, positions, force=force)
        if positions is None:
            call.cancelled = True
            call.forced = call.forced or force
            if force or not known:
                ray.cancel(call.report, force=force)

    def pump(self) -> bool:
        """See `Backend.pump`."""
        return False

    def fetch(self, value: LargeValue) -> Any:
        """See `Backend.fetch`."""
        try:
            values = ray.get(value.handle)
        except exceptions.RayError as error:
            raise ResultLost(f"the value is lost: {describe_loss(error).message}") from error
        return decode(values[value.position])

    def are_lost(self, values: Sequence[LargeValue]) -> Sequence[bool]:
        """See `Backend.are_lost`."""
        return are_lost([value.handle for value in values])

    def shares_files(self) -> bool:
        """See `Backend.shares_files`."""
        return are_here() and not addable_nodes()

    def describe(self) -> str:
        """See `Backend.describe`."""
        nodes = living_nodes()
        parts = [f"Ray {ray.__version__}"]
        for resource in ("CPU", "GPU"):
            total = sum(node.resources.get(resource, 0) for node in nodes)
            if total:
                parts.append(f"{total:g} {resource}{'s' if total != 1 else ''}")
        if len(nodes) > 1:
            parts.append(f"{len(nodes)} nodes")
        connection = self._connection
        if connection is not None and connection.started:
            where = "started here"
        elif connection is not None and connection.kept is not None:
            where = "kept by raysched up"
        else:
            where = f"at {ray.get_runtime_context().gcs_address}"
        return ", ".join([*parts, where])

    def stop(self) -> None:
        """See `Backend.stop`."""
        self._sink = _nowhere
        self._calls.clear()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._listener is not None:
            self._listener.close_objects()
            self._listener.close()
            self._listener = None
        if self._autopsies is not None:
            self._autopsies.close()
            self._autopsies = None
        self._function_of.cache_clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @cached_property
    def _place(self) -> Place:
        place = Place(ray.get_runtime_context().get_node_id(), str(self._code_path or ""))
        if self._connection is None or self._connection.kept is None:
            return place
        return place.with_process(self._connection.kept.environment())

    def _say_what_is_not_shipped(self) -> None:
        environment = ray.get_runtime_context().runtime_env
        shipped = environment.get("working_dir") or environment.get("py_modules")
        if self._code_path is not None and not shipped and len(living_nodes()) > 1:
            _log.warning(
                "Ray was initialised by the program, so modules of %s do not reach other nodes by "
                "themselves: give ray.init a runtime_env with working_dir or py_modules, or leave "
                "ray.init to raysched",
                self._code_path,
            )

    def _new_function(self, specs: tuple[TaskSpec, ...]) -> Any:
        for spec in specs:
            validate_ray_options(spec.ray)
        options = dict(specs[0].ray)
        endpoint = self._listener.endpoint if self._listener is not None else None
        connection = self._connection
        # Nobody can look at them in a Ray that has no dashboard; 20 us and 4 kB in Ray's head each.
        options.setdefault("enable_task_events", connection is None or connection.has_dashboard)
        contexts = tuple(context_of(spec, self._settings, refer, endpoint) for spec in specs)
        return remote_function(contexts, self._place, options)

    def _on_reply(self, unit: int, reply: "Future[bytes]") -> None:
        """Take a reply; runs in a thread of Ray's, so it must be quick."""
        error = reply.exception()
        if error is None:
            self._take_reply(unit, reply.result())
        else:
            self._take_error(unit, error)

    def _take_reply(self, unit: int, data: bytes) -> None:
        call, listener = self._calls.pop(unit, None), self._listener
        if call is not None and listener is not None:
            listener.forget(unit)
            handle = call.large if data[:1] == WITH_LARGE else None
            self._sink(Reported(unit, data[1:], handle))

    def _take_error(self, unit: int, error: BaseException) -> None:
        listener = self._listener
        if listener is not None:
            died = isinstance(error, DEATHS)
            listener.after_last_words(unit, partial(self._examine, unit, error), died=died)

    def _examine(self, unit: int, error: BaseException) -> None:
        """Find out why a unit was lost; in the listener's thread."""
        call, listener, autopsies = self._calls.get(unit), self._listener, self._autopsies
        if call is None or listener is None or autopsies is None:
            return
        if call.deaf or isinstance(error, DEATHS):
            carriers: Sequence[Whereabouts] = listener.carriers(unit)
            autopsies.examine(unit, error, carriers, partial(self._lose, unit, error))
        else:
            self._lose(unit, error, Remains(evidence_of(error)))

    def _lose(self, unit: int, error: BaseException, left: Remains) -> None:
        call, listener = self._calls.pop(unit, None), self._listener
        if call is None or listener is None:
            return
        listener.forget(unit)
        # Looked at, or Ray complains of an error that nobody has looked at.
        with contextlib.suppress(exceptions.RayError):
            ray.get(call.large, timeout=0)
        if call.forced:
            info = cancelled(left.stacks)
        elif call.silence is not None:
            info = silent(call.silence.key, call.silence.seconds, left.evidence, left.stacks)
        elif left.overdue is not None and left.overdue.seconds:
            info = stuck(left.overdue, left.evidence)
        else:
            info = describe_loss(error, left.evidence, task_name=call.task_name, silent=left.found)
        if self._events is not None:
            self._events.unit_lost(left.evidence, info)
        self._sink(Lost(unit, info))

    def _end_silent(self, silence: Silence) -> None:
        """End a worker that gives no sign of life; in the listener's thread."""
        call, autopsies = self._calls.get(silence.unit), self._autopsies
        if call is not None and autopsies is not None:
            call.silence = silence
            autopsies.end(silence.unit, [silence.worker])
            timer = threading.Timer(END_SECONDS, self._give_up, (silence.unit,))
            timer.daemon = True
            timer.start()

    def _give_up(self, unit: int) -> None:
        """Give up a unit whose silent worker cannot be reached: Ray may never tell of it."""
        call = self._calls.get(unit)
        if call is not None and call.silence is not None:
            with contextlib.suppress(exceptions.RayError):
                ray.cancel(call.report, force=True)
            self._lose(unit, exceptions.WorkerCrashedError(), Remains(place(call.silence.worker)))

    def _end_deaf(self, unit: int) -> None:
        """End a worker that does not hear that its unit is cancelled; in the listener's thread."""
        call, listener, autopsies = self._calls.get(unit), self._listener, self._autopsies
        if call is not None and listener is not None and autopsies is not None:
            call.forced = call.forced or call.cancelled
            call.deaf = True
            autopsies.end(unit, listener.carriers(unit))

    def _die(self) -> None:
        """Give up what Ray will not give back any more."""
        self._dead = True
        for unit in tuple(self._calls):
            self._drop(Lost(unit, node_of_driver_died()))

    def _drop(self, message: Reported | Lost) -> None:
        """Tell how a unit ended, unless that is told already."""
        if self._calls.pop(message.unit, None) is not None:
            self._sink(message)

    def _tell(self, message: Message) -> None:
        self._sink(message)


def _nowhere(message: Message) -> None:
    """Take messages that come while nobody listens: before the start and after the end."""
