"""One open flow run: the flow's side (`RunPort`) and what the loop keeps for it."""

import asyncio
import json
import platform
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raysched.define.driving import finish
from raysched.define.ports import FlowEnding, FlowOutcome, FlowRunStart, Told
from raysched.engine.callbacks import Callbacks
from raysched.engine.closing import Closing
from raysched.engine.ports import Backend
from raysched.errors import RayschedError, ResultLost
from raysched.graph.builder import Builder, Member
from raysched.graph.group import Group
from raysched.graph.payload import dumps
from raysched.model.rows import FlowRunRow, GroupRow, LogRow
from raysched.model.states import FAILURES, StateType
from raysched.model.values import ErrorInfo, LargeValue
from raysched.results.envelope import decode, encode
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
from raysched.worker.protocol import RunHeader, encode_header

HEADER_PARAMETERS_BYTES = 8 * 1024
"""Larger parameters of a flow run do not travel with every unit (bytes)."""

KEPT_PARAMETERS_BYTES = 1024**2
"""Larger parameters of a flow run are kept as text only (bytes)."""


class Host(Protocol):
    """What an open flow run needs from the engine that runs it."""

    @property
    def settings(self) -> Settings:
        """Settings."""

    @property
    def backend(self) -> Backend:
        """Where units run."""

    @property
    def callbacks(self) -> Callbacks:
        """What calls the user's hooks."""

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
    """

    def __init__(self, host: Host, start: FlowRunStart, row: FlowRunRow, number: int) -> None:
        self.start = start
        self.builder = Builder(start.run_id, scope_of(start))
        self.row = row
        self.number = number
        self.tracker = Run(
            start.run_id,
            start.spec.max_parallel,
            unit_size=host.settings.unit_size,
            max_same_failures=host.settings.max_same_failures,
        )
        self.header = _header(start)
        self.commands: list[Command] = []
        self.groups: list[GroupRow] = []
        self.groups_at = 0
        self.groups_due = False
        self.groups_awaited = False
        self.logs: list[LogRow] = []
        self.unit_numbers: dict[int, int] = {}
        self.invisible = 0
        self.recorded_some = False
        self.attempt = 1
        self.outcome: FlowOutcome | None = None
        self.concluded = False
        self.raised: list[tuple[Group, Sequence[int]]] = []
        self.host = host

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
        if not isinstance(value, LargeValue):
            return decode(value)
        try:
            return self.host.backend.fetch(value)
        except ResultLost:
            self._compute_again(member)
            again = group.value(index)
            if again is value or not isinstance(again, LargeValue):
                raise
            return self.host.backend.fetch(again)

    def values(self, group: Group, indices: Sequence[int]) -> list[Any]:
        """See `RunPort.values`."""
        return [
            decode(value) if isinstance(value, bytes) else self.value((group, index))
            for index, value in ((index, group.values[index]) for index in indices)
        ]

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
        self.logs.append(row)
        self.host.touch(self)

    def handle_raised(self) -> None:
        """Handle the failures that were raised in a flow function which went on; within a turn."""
        raised, self.raised = self.raised, []
        for group, indices in raised:
            self._handle(group, indices, roots=True)


def scope_of(start: FlowRunStart) -> bytes:
    """Return what tells equal calls of different subflows of one run apart in identities."""
    if start.parent is None:
        return b""
    return b"/".join((start.parent.builder.scope, start.spec.name.encode()))


def kept_parameters(start: FlowRunStart) -> bytes | None:
    """Return the envelope of the parameters, or None where they cannot be kept."""
    try:
        encoded = encode(dict(start.parameters))
    except RayschedError:
        return None
    return encoded.join() if encoded.size <= KEPT_PARAMETERS_BYTES else None


def preview(parameters: object, limit: int = 10_000) -> str:
    """Return parameters as JSON text for people.

    What JSON does not know is as pydantic writes it, a path as its text, or shown by its repr.
    """
    text = json.dumps(parameters, default=_as_json, skipkeys=True)
    return text if len(text) <= limit else json.dumps({"…": text[:limit]})


def _as_json(value: object) -> object:
    from pydantic_core import to_jsonable_python  # 20 ms that most parameters do not need

    return to_jsonable_python(value, fallback=repr)


def _header(start: FlowRunStart) -> bytes:
    try:
        parameters = dumps(dict(start.parameters))
    except RayschedError:
        # A flow, unlike a task, may be called with what cannot be pickled.
        parameters = b""
    if len(parameters) > HEADER_PARAMETERS_BYTES:
        parameters = b""
    return encode_header(
        RunHeader(start.run_id, start.name, start.spec.name, parameters, start.tags)
    )


def versions() -> str:
    """Return the versions of what a flow run runs with, as JSON text."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("raysched", "ray")}
    return json.dumps({"python": platform.python_version(), **packages})
