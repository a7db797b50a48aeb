"""Recording what a flow would run, without running it."""

import contextvars
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from raysched.define.context import in_flow
from raysched.define.ports import (
    Continuation,
    FlowEnding,
    FlowOutcome,
    FlowRunStart,
    RecalledFlowRun,
    RunPort,
    Told,
)
from raysched.errors import InternalError, ResultError
from raysched.graph.builder import Builder
from raysched.graph.calls import Member, Part
from raysched.graph.group import Group
from raysched.graph.recorded import Recorded
from raysched.model.states import StateType


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """The graph of a flow as far as it is known before anything runs.

    Attributes:
        flow: Name of the flow.
        groups: What the flow function recorded until it first waited for a result, in order.
        continues: Whether it waited, so that it goes on by what comes out.
        subflows: The flows that it called until then.
    """

    flow: str
    groups: tuple[Group, ...]
    continues: bool
    subflows: tuple["FlowPlan", ...] = ()


class Earlier(Protocol):
    """What an earlier execution has left: a plan goes on through what that answers."""

    @property
    def recorded(self) -> Recorded:
        """Its task runs."""

    def value(self, group: Group, index: int) -> Any:
        """Return the value of a member that is answered.

        Raises:
            ResultError: It is not kept.
        """

    def recall(self, flow: str, parameters: Mapping[str, Any]) -> RecalledFlowRun:
        """See `RunPort.recall`."""


OpenEarlier: TypeAlias = Callable[[Continuation, bytes], Earlier]
"""Returns what the flow run of a continuation has left, for a flow run of that scope."""


def plan(
    start: FlowRunStart,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    open_earlier: OpenEarlier | None = None,
) -> FlowPlan:
    """Run a flow function until it waits for a result; return what it recorded (see `FlowPlan`).

    Args:
        start: The flow run that would begin.
        args: Positional arguments.
        kwargs: Keyword arguments.
        open_earlier: Where it goes on from an earlier execution, what that has left.

    Raises:
        Exception: What the flow function raised.
    """
    import asyncio  # only asynchronous flows need it, and it takes 20 ms

    port = _PlanningPort(start, open_earlier)
    function = start.spec.fn

    def record() -> None:
        try:
            with in_flow(port, opener=port):
                if start.spec.is_async:
                    asyncio.run(function(*args, **kwargs))
                else:
                    function(*args, **kwargs)
        except _Stop:
            port.continues = True

    if start.spec.is_async:
        _beside_a_running_loop(record)
    else:
        record()
    return port.plan()


class _Stop(BaseException):
    """Ends the flow function where it would wait; no Exception, so that users let it pass."""


class _PlanningPort:
    """A `RunPort` that records and never waits: what is answered is there at once."""

    def __init__(self, start: FlowRunStart, open_earlier: OpenEarlier | None) -> None:
        self.start = start
        self.continues = False
        self._open_earlier = open_earlier
        self._earlier: Earlier | None = None
        if open_earlier is not None and start.continues is not None:
            self._earlier = open_earlier(start.continues, start.scope)
        recorded = None if self._earlier is None else self._earlier.recorded
        self.builder = Builder(start.run_id, start.scope, recorded)
        self._groups: list[Group] = []
        self._subflows: list[_PlanningPort] = []

    def plan(self) -> FlowPlan:
        """Return what was recorded."""
        self._take()
        return FlowPlan(
            self.start.spec.name,
            tuple(self._groups),
            self.continues,
            tuple(subflow.plan() for subflow in self._subflows),
        )

    def open_run(self, start: FlowRunStart) -> RunPort:
        """Begin to plan a subflow."""
        subflow = _PlanningPort(start, self._open_earlier)
        self._subflows.append(subflow)
        return subflow

    def _take(self) -> None:
        """Take what was recorded; what is answered of it has ended."""
        groups = self.builder.take()
        self._groups += groups
        for group in groups:
            answered = [index for index, flag in enumerate(group.answered) if flag]
            for index in answered:
                group.visible[index] = group.states[index]
            group.open_visible -= len(answered)
            for watcher in tuple(group.watchers):
                watcher(group, answered)

    @property
    def traceparent(self) -> str:
        """See `RunPort.traceparent`."""
        return ""

    def around(self) -> AbstractContextManager[None]:
        """See `RunPort.around`."""
        return nullcontext()

    def recorded(self, *, waiting: bool = False) -> None:
        """See `RunPort.recorded`."""

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:  # noqa: ARG002
        """See `RunPort.wait`; stops where that would block."""
        self._take()
        if done():
            return True
        raise _Stop

    async def wait_async(
        self,
        done: Callable[[], bool],
        timeout: float | None = None,  # noqa: ARG002, ASYNC109
    ) -> bool:
        """See `RunPort.wait_async`."""
        import asyncio

        await asyncio.sleep(0)  # what is gathered with it is recorded, too
        return self.wait(done)

    def value(self, member: Member) -> Any:
        """See `RunPort.value`; stops where it would have to be made first."""
        group, index = member
        if self._earlier is None:
            raise InternalError(f"nothing ran, so {group.key(index)} has no value")
        try:
            return self._earlier.value(group, index)
        except ResultError:
            raise _Stop from None

    def values(self, group: Group, indices: Sequence[int]) -> list[Any]:
        """See `RunPort.values`; stops as `value` does."""
        return [self.value((group, index)) for index in indices]

    def error(self, member: Member) -> BaseException:
        """See `RunPort.error`; nothing ever fails."""
        return InternalError(f"nothing ran, so {member[0].key(member[1])} did not fail")

    def told(self, group: Group, indices: Sequence[int], how: Told) -> None:
        """See `RunPort.told`."""

    def replayed(self, parts: Sequence[Part]) -> Iterator[Member]:
        """See `RunPort.replayed`."""
        return iter(()) if self._earlier is None else self._earlier.recorded.replayed(parts)

    def delivered(self, member: Member) -> None:
        """See `RunPort.delivered`."""

    def recall(self, flow: str, parameters: Mapping[str, Any]) -> RecalledFlowRun:
        """See `RunPort.recall`."""
        if self._earlier is None:
            return RecalledFlowRun()
        return self._earlier.recall(flow, parameters)

    def settled(self) -> bool:
        """See `RunPort.settled`."""
        return True

    def cancel(self, by: str) -> None:
        """See `RunPort.cancel`."""

    def cancel_some(self, group: Group, indices: Sequence[int], by: str) -> None:
        """See `RunPort.cancel_some`."""

    def roll_back(self, group: Group, indices: Sequence[int]) -> None:
        """See `RunPort.roll_back`."""

    def log(self, level: int, logger: str, message: str, at: int) -> None:
        """See `RunPort.log`."""

    def close(self, ending: FlowEnding) -> FlowOutcome:
        """See `RunPort.close`."""
        self.continues = isinstance(ending.error, _Stop)
        return FlowOutcome(StateType.FAILED if ending.error else StateType.COMPLETED)

    async def close_async(self, ending: FlowEnding) -> FlowOutcome:
        """See `RunPort.close_async`."""
        return self.close(ending)


def _beside_a_running_loop(function: Callable[[], None]) -> None:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        function()
        return
    errors: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            context.run(function)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="raysched-plan")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
