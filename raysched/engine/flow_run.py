"""One open flow run: the flow's side (`RunPort`) and what the loop keeps for it."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from time import time_ns
from typing import Any, Protocol

from raysched.define.driving import finish
from raysched.define.ports import FlowEnding, FlowOutcome, FlowRunStart, RecalledFlowRun, Told
from raysched.engine.callbacks import Callbacks
from raysched.engine.closing import Closing
from raysched.engine.large import LargeResults
from raysched.engine.places import Places
from raysched.engine.ports import Backend
from raysched.engine.recording import source_of
from raysched.engine.resuming import leftovers, notes
from raysched.engine.subflows import Subflows
from raysched.engine.tracing import Tracing
from raysched.errors import RayschedError, ResultLost, SerializationError
from raysched.graph.builder import Builder
from raysched.graph.calls import Member, Part
from raysched.graph.group import Group
from raysched.graph.naming import main_name
from raysched.graph.payload import dumps
from raysched.graph.recorded import Recorded
from raysched.model.rows import (
    ENGINE_LOGGER,
    Batch,
    FlowRunRow,
    GroupRow,
    LogRow,
    TaskRunColumns,
)
from raysched.model.states import FAILURES, StateType
from raysched.model.values import ErrorInfo, LargeValue, StoredValue, Value
from raysched.results import storage
from raysched.results.envelope import decode
from raysched.results.rebuild import failure_of
from raysched.settings import Settings
from raysched.tracker import Run
from raysched.tracker.messages import (
    CancelRequested,
    Command,
    Event,
    FailuresHandled,
    MembersCancelled,
    RolledBack,
    ValueLost,
)
from raysched.worker.protocol import RunHeader

logger = logging.getLogger("raysched.engine")

HEADER_PARAMETERS_BYTES = 8 * 1024
"""Larger parameters of a flow run do not travel with every unit (bytes)."""


class Host(Protocol):
    """What an open flow run needs from the engine that runs it."""

    @property
    def settings(self) -> Settings:
        """Settings."""

    @property
    def backend(self) -> Backend:
        """Where units run."""

    @property
    def storage(self) -> str:
        """Where large results are kept, or ""."""

    @property
    def callbacks(self) -> Callbacks:
        """What calls the user's hooks."""

    @property
    def tracing(self) -> Tracing:
        """Where flow runs stand in traces."""

    def open_run(self, start: FlowRunStart) -> "OpenFlowRun":
        """Begin a flow run (see `define.ports.Engine.open_run`)."""

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """Have `function(*args)` called in the next turn; from any thread."""

    def defer(self, function: Callable[..., None], *args: Any) -> None:
        """Have `function(*args)` called in the next turn, which `wait` will take at once."""

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Block until `done()`; return whether it is (see `RunPort.wait`)."""

    async def wait_async(
        self,
        done: Callable[[], bool],
        timeout: float | None,  # noqa: ASYNC109 - False instead of raising
    ) -> bool:
        """Do as `wait`, without blocking the running event loop."""

    def compile_soon(self, run: "OpenFlowRun") -> None:
        """Compile what was recorded when the segment's time is over; from any thread."""

    def compile(self, run: "OpenFlowRun") -> None:
        """Compile what was recorded; within a turn."""

    def advance(self, run: "OpenFlowRun", event: Event) -> None:
        """Let the tracker account for an event; within a turn."""

    def touch(self, run: "OpenFlowRun") -> None:
        """Commit what `run` has collected at the end of this turn; within a turn."""

    def conclude(
        self, run: "OpenFlowRun", state: StateType, message: str, error: ErrorInfo | None
    ) -> None:
        """Commit the end of a flow run, with everything before it; within a turn."""

    def retry_flow(self, run: "OpenFlowRun", error: ErrorInfo | None) -> None:
        """Commit that the flow function begins again; within a turn."""


class OpenFlowRun:
    """An open flow run: the flow's side of the engine, and what the engine keeps for it.

    Args:
        host: The engine.
        start: What was opened.
        row: Its row, as committed.
        number: Its number in the store.
        recorded: What it goes on from, or None.
    """

    def __init__(
        self,
        host: Host,
        start: FlowRunStart,
        row: FlowRunRow,
        number: int,
        recorded: Recorded | None = None,
    ) -> None:
        self.start = start
        self.builder = Builder(start.run_id, start.scope, recorded)
        self.subflows = Subflows(self.builder.scope, recorded)
        self.row = row
        self.number = number
        self.tracker = Run(
            start.run_id,
            start.spec.max_parallel,
            unit_size=host.settings.unit_size,
            max_same_failures=host.settings.max_same_failures,
        )
        kept = recorded.stored_bytes() if recorded is not None else 0
        header = host.tracing.header(_header(start), start, row)
        self.traceparent = header.traceparent
        self.large = LargeResults(header, host, self.say, kept)
        self.commands: list[Command] = []
        # What is to be committed next, beside what follows from the commands.
        self.batch = Batch(number, row.epoch)
        self.places = Places(_first_place(recorded))
        self.groups: list[GroupRow] = []
        self.groups_at = 0
        self.groups_due = False
        self.groups_awaited = False
        self.unit_numbers: dict[int, int] = {}
        self.invisible = 0
        self.recorded_some = False
        self.attempt = row.attempts
        # Code does not change within a run, and a flow may have thousands of groups.
        self.source_of = cache(source_of)
        self.deliveries: deque[tuple[int, int]] = deque()
        self.leftovers: list[TaskRunColumns] = []
        self.restarted: list[tuple[int, Sequence[int]]] = []
        self.result: bytes | None = None
        self.outcome: FlowOutcome | None = None
        self.concluded = False
        self.raised: list[tuple[Group, Sequence[int]]] = []
        self.host = host

    def around(self) -> AbstractContextManager[None]:
        """See `RunPort.around`."""
        return self.host.tracing.around(self.row)

    def recorded(self, *, waiting: bool = False) -> None:
        """See `RunPort.recorded`."""
        if not self.recorded_some:
            self.recorded_some = True
            if not waiting:
                self.host.compile_soon(self)

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """See `RunPort.wait`."""
        if self.recorded_some:
            self.host.defer(self.host.compile, self)
        return self.host.wait(done, timeout)

    async def wait_async(
        self,
        done: Callable[[], bool],
        timeout: float | None = None,  # noqa: ASYNC109 - False instead of raising
    ) -> bool:
        """See `RunPort.wait_async`."""
        # Siblings in an asyncio.gather record their calls before the first of them is compiled.
        await asyncio.sleep(0)
        if self.recorded_some:
            self.host.post(self.host.compile, self)
        return await self.host.wait_async(done, timeout)

    def value(self, member: Member) -> Any:
        """See `RunPort.value`."""
        group, index = member
        value = group.value(index)
        try:
            return self.fetch(value)
        except ResultLost:
            self._compute_again(member)
        except SerializationError as error:
            if not group.is_recalled(index):
                raise
            logger.warning("%s is computed again: %s", group.key(index), error)
            self._compute_again(member)
        again = group.value(index)
        if again is value:
            raise ResultLost(f"the value of {group.key(index)} cannot be had any more")
        return self.fetch(again)

    def fetch(self, value: Value) -> Any:
        """Return a fresh copy of a value, without computing it again.

        Raises:
            ResultLost: It is not where it should be.
            SerializationError: It cannot be unpickled here.
        """
        if isinstance(value, bytes):
            return decode(value)
        if isinstance(value, LargeValue):
            try:
                return self.host.backend.fetch(value)
            except ResultLost:
                if not value.location:
                    raise
                return storage.load(value.location)
        if isinstance(value, StoredValue):
            return storage.load(value.location)
        raise ResultLost("it was not kept")

    def values(self, group: Group, indices: Sequence[int]) -> list[Any]:
        """See `RunPort.values`."""
        try:
            return [
                decode(value) if isinstance(value, bytes) else self.value((group, index))
                for index, value in ((index, group.values[index]) for index in indices)
            ]
        except SerializationError:
            return [self.value((group, index)) for index in indices]

    def error(self, member: Member) -> BaseException:
        """See `RunPort.error`."""
        return failure_of(*member)

    def told(self, group: Group, indices: Sequence[int], how: Told) -> None:
        """See `RunPort.told`."""
        if len(indices) == 1 and group.states[indices[0]] not in FAILURES and not group.roots:
            # A call that went well, the most frequent one: there is nothing to be handled.
            return
        self.host.post(self._told, group, indices, how)

    def cancel(self, by: str) -> None:
        """See `RunPort.cancel`."""
        self.host.post(self.host.advance, self, CancelRequested(by))

    def cancel_some(self, group: Group, indices: Sequence[int], by: str) -> None:
        """See `RunPort.cancel_some`."""
        if self.recorded_some:
            self.host.post(self.host.compile, self)
        self.host.post(self.host.advance, self, MembersCancelled(group, indices, by))

    def roll_back(self, group: Group, indices: Sequence[int]) -> None:
        """See `RunPort.roll_back`."""
        self.host.post(self.host.advance, self, RolledBack(group, indices))

    def replayed(self, parts: Sequence[Part]) -> Iterator[Member]:
        """See `RunPort.replayed`."""
        recorded = self.builder.recorded
        for member in recorded.replayed(parts) if recorded is not None else ():
            if not member[0].continues:
                # A new run has none of its own yet.
                self.delivered(member)
            yield member

    def delivered(self, member: Member) -> None:
        """See `RunPort.delivered`."""
        group, index = member
        self.deliveries.append(group.place(index))

    def recall(self, flow: str, parameters: Mapping[str, Any]) -> RecalledFlowRun:
        """See `RunPort.recall`."""
        return self.subflows.recall(flow, parameters, self.start.continues)

    def log(self, level: int, logger: str, message: str, at: int) -> None:
        """See `RunPort.log`."""
        self.host.post(self._log, LogRow(-1, 0, self.attempt, at, level, logger, message))

    def close(self, ending: FlowEnding) -> FlowOutcome:
        """See `RunPort.close`."""
        return finish(Closing(self, blocking=True).run(ending))

    async def close_async(self, ending: FlowEnding) -> FlowOutcome:
        """See `RunPort.close_async`."""
        return await Closing(self, blocking=False).run(ending)

    def settled(self) -> bool:
        """Whether everything recorded has ended, visibly."""
        return not self.recorded_some and not self.invisible

    def _compute_again(self, member: Member) -> None:
        """Have a lost value computed again; return when it is there, or cannot be had."""
        group, index = member
        node = self.tracker.nodes[group.id]
        begun = threading.Event()

        def begin() -> None:
            self.host.advance(self, ValueLost(group, index))
            begun.set()

        self.host.defer(begin)
        self.host.wait(lambda: begun.is_set() and index not in node.recomputing, None)

    def collect_leftovers(self, *, completed: bool) -> None:
        """Note what is to be told of the execution that this one has gone on from."""
        recorded = self.builder.recorded
        if recorded is None:
            return
        self.leftovers += leftovers(recorded, completed=completed)
        for level, text in notes(recorded, completed=completed):
            self.say(level, text)
        self.host.touch(self)

    def say(self, level: int, text: str) -> None:
        """Say something about the run, and keep it in its log; within a turn."""
        logger.log(level, text)
        self._log(LogRow(-1, 0, self.attempt, time_ns(), level, ENGINE_LOGGER, text))

    def _told(self, group: Group, indices: Sequence[int], how: Told) -> None:
        if how is Told.RAISED:
            self.raised.append((group, indices))
        else:
            self._handle(group, indices, roots=how is Told.RETURNED)

    def _handle(self, group: Group, indices: Sequence[int], *, roots: bool) -> None:
        members: dict[Group, list[int]] = {}
        for index in indices:
            if group.states[index] in FAILURES:
                members.setdefault(group, []).append(index)
            for root, member in group.roots.get(index, ()) if roots else ():
                members.setdefault(root, []).append(member)
        for owner, owned in members.items():
            self.host.advance(self, FailuresHandled(owner, owned))

    def _log(self, row: LogRow) -> None:
        self.batch.logs.append(row)
        self.host.touch(self)

    def handle_raised(self) -> None:
        """Handle the failures that were raised in a flow function which went on; within a turn."""
        raised, self.raised = self.raised, []
        for group, indices in raised:
            self._handle(group, indices, roots=True)


def _first_place(recorded: Recorded | None) -> int:
    """Return the first id of a place that is free in the flow run."""
    goes_on = recorded is not None and recorded.choice.same
    return recorded.records.next_place if recorded is not None and goes_on else 1


def _header(start: FlowRunStart) -> RunHeader:
    try:
        parameters = dumps(dict(start.parameters))
    except RayschedError:
        # A flow, unlike a task, may be called with what cannot be pickled.
        parameters = b""
    if len(parameters) > HEADER_PARAMETERS_BYTES:
        parameters = b""
    return RunHeader(
        start.run_id,
        start.name,
        start.spec.name,
        parameters,
        start.tags,
        script=main_name(),
    )
