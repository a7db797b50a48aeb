"""The end of a flow run: what is open is awaited or stopped, and the outcome is judged."""

import asyncio
import logging
from typing import TYPE_CHECKING

from raysched import faults
from raysched.define.driving import until
from raysched.define.ports import FlowEnding, FlowOutcome
from raysched.define.termination import Terminated
from raysched.engine.compensation import Compensation
from raysched.engine.opening import kept_envelope
from raysched.errors import FlowRunCancelled, FlowRunTimedOut
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import ErrorInfo
from raysched.tracker import Verdict, verdict
from raysched.tracker.messages import CancelRequested, FailuresHandled, FlowRestarted
from raysched.worker.failures import describe_error

if TYPE_CHECKING:
    from raysched.engine.flow_run import OpenFlowRun

logger = logging.getLogger("raysched.engine")

FORCE_SECONDS = 5.0
"""How much longer than it has time to clean up a task run may take to end (seconds): its worker
ends it by force, and says so, before all that is left is ended without a word."""

TEARDOWN_SECONDS = 60.0
"""How long the teardowns of a run that was cancelled may take (seconds)."""

HOOKS_SECONDS = 60.0
"""How long the end of a flow run waits for hooks that are still being called (seconds)."""

NAMED_FAILURES = 3
"""How many failed task runs the message of a flow run names."""

CANCELLED_BY = (KeyboardInterrupt, asyncio.CancelledError, FlowRunCancelled)

COMPENSATED = frozenset({StateType.FAILED, StateType.TIMED_OUT})
"""Ends of a flow run for which what completed is undone. Who cancels it may want to go on later."""


class Closing:
    """Ends a flow function.

    Args:
        run: The flow run.
        blocking: Whether the caller has no event loop.
    """

    def __init__(self, run: "OpenFlowRun", *, blocking: bool) -> None:
        self._run = run
        self._host = run.host
        self._blocking = blocking

    async def run(self, ending: FlowEnding) -> FlowOutcome:
        """See `RunPort.close`."""
        run, error = self._run, ending.error
        if error is None:
            error = await self._await_all()
        if error is not None:
            await self._drain(error)
        self._host.callbacks.drain(HOOKS_SECONDS)
        if error is None and ending.state is None and (run.start.parent or run.start.key):
            # Who calls it again, or asks for the key again, is answered with it.
            run.result = kept_envelope(ending.value)
        run.outcome = None
        self._host.post(self._judge, ending, error)
        await until(run, lambda: run.outcome is not None, blocking=self._blocking)
        outcome: FlowOutcome | None = run.outcome
        assert outcome is not None  # noqa: S101 - the wait has no timeout
        return outcome if run.concluded or ending.retry else await self._compensate(outcome)

    async def _await_all(self) -> BaseException | None:
        """Await what nobody awaited; return what interrupted it."""
        try:
            await until(self._run, self._run.settled, blocking=self._blocking)
        except (*CANCELLED_BY, FlowRunTimedOut) as error:
            return error
        return None

    async def _drain(self, error: BaseException) -> None:
        """Cancel what waits and let what runs end, for the grace time; then stop it.

        Teardowns run when all else has ended, and are stopped last.
        """
        # SystemExit and the like want the process to end, not to drain.
        stop = isinstance(error, (*CANCELLED_BY, FlowRunTimedOut)) or not isinstance(
            error, Exception
        )
        by = canceller(error)
        drain = self._host.settings.drain_grace_seconds
        grace = self._host.settings.termination_grace_seconds
        steps = [(CancelRequested(by, running=False), drain)] if not stop else []
        steps.append((CancelRequested(by), grace + FORCE_SECONDS))
        steps.append((CancelRequested(by, force=True), FORCE_SECONDS))
        try:
            for step, grace in steps:
                self._host.post(self._host.advance, self._run, step)
                if await self._until_ended(grace):
                    break
            if await until(self._run, self._run.settled, TEARDOWN_SECONDS, blocking=self._blocking):
                return
        except KeyboardInterrupt:
            logger.warning("stopping at once")
        last = CancelRequested(by, force=True, teardowns=True)
        self._host.post(self._host.advance, self._run, last)
        if not await until(self._run, self._run.settled, FORCE_SECONDS, blocking=self._blocking):
            logger.error("%d task runs did not stop", self._run.invisible)

    async def _until_ended(self, grace: float) -> bool:
        """Wait until nothing is open but teardowns; return whether that is so."""
        return await until(self._run, self._only_teardowns, grace, blocking=self._blocking)

    def _only_teardowns(self) -> bool:
        nodes = tuple(self._run.tracker.nodes.values())
        teardowns = sum(node.group.open_visible for node in nodes if node.group.spec.teardown)
        return not self._run.recorded_some and self._run.invisible <= teardowns

    def _judge(self, ending: FlowEnding, error: BaseException | None) -> None:
        run = self._run
        if error is None:
            run.handle_raised()
        run.raised = []
        found = verdict(run.tracker)
        state, message = _conclusion(ending, error, found)
        info = None if error is None else describe_error(error, name=run.start.spec.name)
        if info is None and state is StateType.FAILED and found.unhandled:
            group, index = found.unhandled[0]
            info = group.errors.get(index)
        outcome = FlowOutcome(state, message, found.unhandled, found.counts, info)
        if ending.retry and state is not StateType.COMPLETED:
            self._restart(found, info)
        elif state in COMPENSATED and Compensation.is_needed(run.tracker):
            run.concluded = False
        else:
            self._conclude(outcome)
        run.outcome = outcome

    def _restart(self, found: Verdict, info: ErrorInfo | None) -> None:
        run = self._run
        for group, index in found.unhandled:
            self._host.advance(run, FailuresHandled(group, (index,)))
        kept = {
            node.group.identity(index): (node.group, index)
            for node in run.tracker.nodes.values()
            for index, state in enumerate(node.group.states)
            if state in SUCCESSES and index not in node.group.rolled_back
        }
        run.builder.restart(kept)
        run.subflows.restart()
        self._host.advance(run, FlowRestarted())
        run.attempt += 1
        self._host.retry_flow(run, info)

    async def _compensate(self, outcome: FlowOutcome) -> FlowOutcome:
        """Undo what completed, last first; then the run ends as it would have ended."""
        run = self._run
        compensation = Compensation(run)
        self._host.post(compensation.begin)
        try:
            await until(run, compensation.is_over, blocking=self._blocking)
        except CANCELLED_BY as error:
            await self._drain(error)
        told = f"{outcome.message}; {compensation.summary()}"
        counts = verdict(run.tracker).counts
        outcome = FlowOutcome(outcome.state, told, outcome.unhandled, counts, outcome.error)
        run.outcome = None
        self._host.post(self._conclude_late, outcome)
        await until(run, lambda: run.outcome is not None, blocking=self._blocking)
        return outcome

    def _conclude_late(self, outcome: FlowOutcome) -> None:
        faults.reach("compensation: after")
        self._conclude(outcome)
        self._run.outcome = outcome

    def _conclude(self, outcome: FlowOutcome) -> None:
        self._run.concluded = True
        self._host.conclude(self._run, outcome.state, outcome.message, outcome.error)


def canceller(error: BaseException) -> str:
    """Return who stops the task runs of a flow function that ended with this exception."""
    if isinstance(error, Terminated):
        return "SIGTERM"
    if isinstance(error, KeyboardInterrupt):
        return "Ctrl-C"
    if isinstance(error, FlowRunTimedOut):
        return "the flow's timeout"
    if isinstance(error, FlowRunCancelled):
        return error.by or "the flow's cancellation"
    if isinstance(error, CANCELLED_BY):
        return "the flow's cancellation"
    return "the flow's failure"


def _conclusion(
    ending: FlowEnding, error: BaseException | None, found: Verdict
) -> tuple[StateType, str]:
    if isinstance(error, FlowRunTimedOut):
        return StateType.TIMED_OUT, str(error)
    if isinstance(error, CANCELLED_BY):
        return StateType.CANCELLED, f"cancelled by {canceller(error)}"
    if error is not None:
        return StateType.FAILED, f"{type(error).__name__}: {error}"
    if ending.state is not None:
        # A state that the flow returns is the user's own verdict.
        return ending.state
    teardowns = f"{_plural(len(found.teardowns), 'teardown')} failed" if found.teardowns else ""
    if found.unhandled:
        number = len(found.unhandled)
        keys = ", ".join(group.key(index) for group, index in found.unhandled[:NAMED_FAILURES])
        more = f" and {number - NAMED_FAILURES} more" if number > NAMED_FAILURES else ""
        failed = f"{_plural(number, 'task run')} failed: {keys}{more}"
        return StateType.FAILED, "; ".join(filter(None, (failed, teardowns)))
    handled = f"{_plural(found.handled, 'failure')} handled" if found.handled else ""
    return StateType.COMPLETED, "; ".join(filter(None, (handled, teardowns)))


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
