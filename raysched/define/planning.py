"""Recording what a flow would run, without running it."""

import contextvars
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from raysched.define.context import in_flow
from raysched.define.ports import (
    FlowEnding,
    FlowOutcome,
    FlowRunStart,
    RecalledFlowRun,
    RunPort,
    Told,
)
from raysched.errors import InternalError
from raysched.graph.builder import Builder
from raysched.graph.calls import Member, Part
from raysched.graph.group import Group
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


def plan(start: FlowRunStart, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FlowPlan:
    """Run a flow function until it waits for a result; return what it recorded (see `FlowPlan`).

    Raises:
        Exception: What the flow function raised.
    """
    import asyncio  # only asynchronous flows need it, and it takes 20 ms

    port = _PlanningPort(start)
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


@dataclass(slots=True, eq=False)
class _PlanningPort:
    """A `RunPort` that records and never waits."""

    start: FlowRunStart
    builder: Builder = field(init=False)
    continues: bool = False
    subflows: list["_PlanningPort"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.builder = Builder(self.start.run_id)

    def plan(self) -> FlowPlan:
        """Return what was recorded."""
        return FlowPlan(
            self.start.spec.name,
            tuple(self.builder.take()),
            self.continues,
            tuple(subflow.plan() for subflow in self.subflows),
        )

    def open_run(self, start: FlowRunStart) -> RunPort:
        """Begin to plan a subflow."""
        subflow = _PlanningPort(start)
        self.subflows.append(subflow)
        return subflow

    def recorded(self, *, waiting: bool = False) -> None:
        """See `RunPort.recorded`."""

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:  # noqa: ARG002
        """See `RunPort.wait`; stops where that would block."""
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

    def value(self, member: Member) -> NoReturn:
        """See `RunPort.value`; nothing ever completes."""
        raise InternalError(f"nothing ran, so {member[0].key(member[1])} has no value")

    def values(self, group: Group, indices: Sequence[int]) -> NoReturn:
        """See `RunPort.values`; nothing ever completes."""
        self.value((group, indices[0]))

    def error(self, member: Member) -> BaseException:
        """See `RunPort.error`; nothing ever fails."""
        return InternalError(f"nothing ran, so {member[0].key(member[1])} did not fail")

    def told(self, group: Group, indices: Sequence[int], how: Told) -> None:
        """See `RunPort.told`."""

    def replayed(self, parts: Sequence[Part]) -> list[Member]:  # noqa: ARG002
        """See `RunPort.replayed`."""
        return []

    def delivered(self, member: Member) -> None:
        """See `RunPort.delivered`."""

    def recall(self, flow: str, parameters: Mapping[str, Any]) -> RecalledFlowRun:  # noqa: ARG002
        """See `RunPort.recall`."""
        return RecalledFlowRun()

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
