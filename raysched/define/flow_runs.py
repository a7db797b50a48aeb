"""A flow run from its call to its end, one procedure for synchronous and asynchronous flows."""

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from raysched.define.context import current_opener, current_port, current_tags, in_flow
from raysched.define.correlation import correlate_logs
from raysched.define.deadline import Deadline, DeadlinePassed, current_deadline, under
from raysched.define.driving import call, close, until
from raysched.define.hooks import call_flow_hooks
from raysched.define.logs import prints_kept
from raysched.define.ports import Continuation, FlowEnding, FlowOutcome, FlowRunStart, RunPort
from raysched.define.resolving import awaited, resolved
from raysched.define.signature import Signature
from raysched.define.states import Running, State
from raysched.define.stopping import Stop, heed_stop, stoppable
from raysched.define.targets import target_of
from raysched.define.termination import terminable
from raysched.define.validation import Validator
from raysched.errors import (
    FlowRunCancelled,
    FlowRunFailed,
    FlowRunTimedOut,
    InvalidOption,
    NotResumable,
    ResultError,
)
from raysched.model.ids import new_run_id
from raysched.model.options import FlowSpec
from raysched.model.rows import ENGINE_LOGGER
from raysched.model.states import FAILURES, StateType


@dataclass(frozen=True, slots=True)
class FlowCaller:
    """Turns calls of a flow into flow runs.

    Attributes:
        what: For messages: `flow 'nightly'`.
        spec: The flow with its options.
        signature: Its parameters.
        validator: Checks them.
    """

    what: str
    spec: FlowSpec
    signature: Signature
    validator: Validator

    async def run(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        wait_for: Iterable[Any] | None,
        *,
        return_state: bool,
    ) -> Any:
        """Run the flow (see `Flow.__call__`)."""
        blocking = not self.spec.is_async
        if blocking:
            heed_stop()
        bound = self.signature.bind(args, kwargs)
        await awaited(self.what, wait_for, blocking=blocking)
        parent = current_port()
        start = self.begin(await resolved(bound, blocking=blocking), parent)
        if parent is not None:
            recalled = parent.recall(self.spec.name, start.parameters)
            if recalled.answer is not None:
                (value,) = recalled.answer
                return State(StateType.COMPLETED, data=value) if return_state else value
            start = _going_on(replace(start, identity=recalled.identity), recalled.continues)
        return await self.execute(start, return_state=return_state)

    async def execute(self, start: FlowRunStart, *, return_state: bool) -> Any:
        """Open a flow run and run the flow function in it; return its value, or final state."""
        blocking = not self.spec.is_async
        port = current_opener().open_run(start)
        if port.traceparent:
            correlate_logs()
        with (
            terminable(blocking=blocking) as reason,
            stoppable(start.run_id, _waker(port), blocking=blocking) as stop,
        ):
            state = await _Execution(self, port, reason, stop, blocking=blocking).run()
        return state if return_state else state.result()

    def begin(
        self, bound: Mapping[str, Any], parent: RunPort | None, run_id: str = ""
    ) -> FlowRunStart:
        """Return what is needed to open a flow run with these arguments.

        Args:
            bound: The arguments by parameter name.
            parent: The flow run that calls it, or None.
            run_id: Its id, or "" for a new one.

        Raises:
            ParameterError: They do not fit the annotations.
        """
        parameters = dict(bound)
        if self.spec.validate_parameters:
            parameters = self.validator(parameters)
        parameters = self.signature.complete(parameters)
        run_id = run_id or new_run_id()
        name = self._run_name(parameters) or f"{self.spec.name}-{run_id[:6]}"
        return FlowRunStart(
            run_id,
            name,
            self.spec,
            parameters,
            current_tags(),
            parent,
            target="" if parent is not None else target_of(self.spec.fn),
        )

    def _run_name(self, parameters: Mapping[str, Any]) -> str:
        template = self.spec.flow_run_name
        try:
            if callable(template):
                return str(template())
            return template.format(**parameters) if template else ""
        except Exception as error:
            raise InvalidOption(
                f"{self.what}: flow_run_name={template!r} raised {type(error).__name__}: {error}"
            ) from error


def _going_on(start: FlowRunStart, continues: Continuation | None) -> FlowRunStart:
    """Return the start of a subflow that may go on from an earlier execution."""
    if continues is None:
        return start
    run_id = continues.run_id if continues.same else start.run_id
    return replace(start, run_id=run_id, continues=continues)


class _Execution:
    def __init__(
        self,
        caller: FlowCaller,
        port: RunPort,
        reason: Callable[[BaseException], BaseException],
        stop: Stop,
        *,
        blocking: bool,
    ) -> None:
        self._caller = caller
        self._spec = caller.spec
        self._port = port
        self._reason = reason
        self._stop = stop
        self._blocking = blocking
        around = current_deadline()
        seconds = caller.spec.timeout_seconds
        self._deadline = around if seconds is None else Deadline(seconds, around)
        self._opener = current_opener()

    async def run(self) -> State[Any]:
        """Run the flow function as often as its retries allow; return the final state.

        Raises:
            BaseException: What is no Exception is raised again: `KeyboardInterrupt` and the like.
        """
        run_count = 0
        while True:
            run_count += 1
            ending, value = await self._attempt(run_count)
            retry = run_count <= self._spec.retry.retries and _may_retry(ending)
            outcome = await close(self._port, replace(ending, retry=retry), blocking=self._blocking)
            if not retry or outcome.state not in FAILURES:
                break
            await self._pause(run_count)
        state = _final_state(outcome, ending, value)
        call_flow_hooks(self._port.start, run_count, state)
        if ending.error is not None and not isinstance(ending.error, Exception):
            raise ending.error
        self._stop.pass_on()
        if isinstance(ending.error, FlowRunCancelled) and self._around_passed():
            raise DeadlinePassed
        return state

    async def _attempt(self, run_count: int) -> tuple[FlowEnding, Any]:
        start = self._port.start
        call_flow_hooks(start, run_count, Running())
        args, kwargs = self._caller.signature.as_call(start.parameters)
        try:
            with (
                in_flow(self._port, run_count, self._opener),
                self._port.around(),
                prints_kept(wanted=self._spec.log_prints),
                self._stop.heeded(call.__code__),
            ):
                async with self._limited():
                    returned = await call(self._spec.fn, args, kwargs)
                    value = await resolved(returned, blocking=self._blocking)
                    await until(self._port, self._port.settled, blocking=self._blocking)
        except DeadlinePassed:
            return FlowEnding(error=self._time_is_over()), None
        except BaseException as error:  # noqa: BLE001 - also Ctrl-C ends the run before it goes on
            if self._stop.has_ended(error):
                return FlowEnding(error=self._stop.error()), None
            return FlowEnding(error=self._reason(error)), None
        verdict = _verdict(value)
        if verdict is None:
            return FlowEnding(value=value), value
        if not verdict.is_final():
            return FlowEnding(error=_not_final(self._caller.what, verdict)), None
        return FlowEnding(state=(verdict.type, verdict.message or "")), verdict

    @asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        if self._blocking or self._spec.timeout_seconds is None:
            with under(self._deadline, call.__code__, interrupt=self._blocking):
                yield
            return
        assert self._deadline is not None  # noqa: S101 - the flow has a timeout
        import asyncio  # only asynchronous flows need it, and it takes 20 ms

        with under(self._deadline, call.__code__, interrupt=False):
            limit = asyncio.timeout(self._deadline.left())
            try:
                async with limit:
                    yield
            except TimeoutError:
                if limit.expired():
                    raise DeadlinePassed from None
                raise

    async def _pause(self, run_count: int) -> None:
        delays = self._spec.retry.delays
        if delays:
            delay = delays[min(run_count, len(delays)) - 1]
            await until(self._port, self._is_stopped, delay, blocking=self._blocking)

    def _is_stopped(self) -> bool:
        return self._stop.by is not None

    def _time_is_over(self) -> Exception:
        if self._around_passed():
            return FlowRunCancelled(
                f"{self._caller.what}: the timeout_seconds of a flow around it passed"
            )
        return FlowRunTimedOut(
            f"{self._caller.what} took longer than timeout_seconds={self._spec.timeout_seconds:g}"
        )

    def _around_passed(self) -> bool:
        deadline = self._deadline
        if deadline is not None and self._spec.timeout_seconds is not None:
            deadline = deadline.around
        return deadline is not None and not deadline.left()


def _waker(port: RunPort) -> Callable[[str], None]:
    """Return what tells a waiting flow function, and the run's log, that somebody wants its end."""

    def wake(text: str) -> None:
        port.log(logging.WARNING, ENGINE_LOGGER, text, time.time_ns())

    return wake


def _not_final(what: str, state: State[Any]) -> ResultError:
    return ResultError(
        f"{what} returned a state that is not final, {state!r}: return Completed(data=…), "
        "Failed(message=…) or a value"
    )


def _may_retry(ending: FlowEnding) -> bool:
    if ending.state is not None:
        return ending.state[0] in {StateType.FAILED, StateType.CRASHED}
    return ending.error is None or (
        isinstance(ending.error, Exception)
        # Only a person may say yes to what is not resumable, and would not by another attempt.
        and not isinstance(ending.error, FlowRunTimedOut | FlowRunCancelled | NotResumable)
    )


def _verdict(value: Any) -> State[Any] | None:
    """Return the state that a returned value stands for, or None for a mere value.

    A state is one, and a collection of nothing but states: completed if all of them are (Prefect's
    rule).
    """
    if isinstance(value, State):
        return value
    if not isinstance(value, list | tuple | set | frozenset) or not value:
        return None
    states = [state for state in value if isinstance(state, State)]
    if len(states) < len(value):
        return None
    bad = [state for state in states if not state.is_completed()]
    if not bad:
        return State(StateType.COMPLETED, message="All states completed.", data=value)
    cancelled = [state for state in bad if state.is_cancelled()]
    kind = StateType.CANCELLED if cancelled else StateType.FAILED
    count = len(cancelled or bad)
    message = f"{count}/{len(states)} states {kind.name.lower()}."
    return State(kind, message=message, data=bad[0].result(raise_on_failure=False))


def _final_state(outcome: FlowOutcome, ending: FlowEnding, value: Any) -> State[Any]:
    if outcome.state not in FAILURES:
        if isinstance(value, State):
            return State(outcome.state, value.name, outcome.message, value.data)
        return State(outcome.state, message=outcome.message, data=value)
    error = ending.error
    name = None
    if error is None and isinstance(value, State) and not value.is_completed():
        error = value.result(raise_on_failure=False)
        name = value.name
    if error is None:
        keys = tuple(group.key(index) for group, index in outcome.unhandled)
        factory = FlowRunCancelled if outcome.state is StateType.CANCELLED else FlowRunFailed
        error = factory(outcome.message)
        if isinstance(error, FlowRunFailed):
            error.failures = keys
    return State(outcome.state, name, outcome.message, error)
