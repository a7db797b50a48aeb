"""One item of a unit: decode, call, encode, and whatever happens becomes an outcome."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any

from raysched.define.context import AttemptContext, attempt_context
from raysched.define.ports import FlowEnding, FlowOutcome
from raysched.define.states import State
from raysched.errors import ResultError, TaskRunCancelled, TaskRunFailed, TaskRunTimedOut
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import FailureClass
from raysched.results.envelope import Encoded
from raysched.worker.code import CallArguments, NamedArguments, TaskCode
from raysched.worker.failures import describe_error
from raysched.worker.interrupt import CancelRequested, DeadlinePassed, Interruption
from raysched.worker.progress import Outcome, UnitProgress
from raysched.worker.protocol import Item, Unit, decode_header
from raysched.worker.scope import ItemScope, running_item

_log = logging.getLogger(__name__)

_header = lru_cache(maxsize=16)(decode_header)


class ItemRun:
    """One item while it runs. Made, and its `run` called, in a contextvars context of its own.

    Args:
        code: The user's function.
        progress: The unit's progress.
        position: Which item.
        large: The lists of large values that came with the unit.
        interruption: How others end a synchronous function, None for an asynchronous one.
    """

    def __init__(
        self,
        code: TaskCode,
        progress: UnitProgress,
        position: int,
        large: Sequence[Any],
        interruption: Interruption | None = None,
    ) -> None:
        self.position = position
        self.scope = ItemScope(
            progress,
            position,
            progress.unit.items[position].attempt,
            code.context.log_prints,
            interruption,
        )
        self.passed_interrupt: BaseException | None = None
        self._code = code
        self._unit: Unit = progress.unit
        self._item: Item = progress.unit.items[position]
        self._progress = progress
        self._large = large
        self._name = ""
        self._started = 0

    def run(self, interruption: Interruption, passed_on: Callable[[], bool]) -> None:
        """Run a synchronous function.

        Args:
            interruption: How others end it.
            passed_on: Whether a KeyboardInterrupt or SystemExit is a signal's that a person has
                sent, not the function's own; then it is kept in `passed_interrupt`.
        """
        attempt = self._begin()
        try:
            try:
                encoded = interruption.run(lambda: self._produce(attempt), self._timeout)
            finally:
                self._keep_evidence(attempt)
        except BaseException as error:  # noqa: BLE001 - SystemExit of user code is a failure, too
            if isinstance(error, KeyboardInterrupt | SystemExit) and passed_on():
                self.passed_interrupt = error
                self._fail(StateType.CANCELLED, error)
                return
            self._fail_by(error)
        else:
            self._succeed(encoded)

    async def run_async(self, is_cancelled: Callable[[], bool]) -> None:
        """Await an asynchronous function.

        Args:
            is_cancelled: Whether a CancelledError is ours, not the function's own.
        """
        attempt = self._begin()
        deadline = asyncio.timeout(self._timeout)
        try:
            try:
                async with deadline:
                    encoded = await self._produce_async(attempt)
            finally:
                self._keep_evidence(attempt)
        except BaseException as error:  # noqa: BLE001 - SystemExit of user code is a failure, too
            if deadline.expired():
                users = error.__cause__ if isinstance(error, TimeoutError) else error
                self._fail_by(DeadlinePassed().with_traceback((users or error).__traceback__))
            elif isinstance(error, asyncio.CancelledError) and is_cancelled():
                self._fail_by(CancelRequested().with_traceback(error.__traceback__))
            else:
                self._fail_by(error)
            return
        # The function may have swallowed its CancelledError.
        if deadline.expired():
            self._fail_by(DeadlinePassed())
        elif is_cancelled():
            self._fail_by(CancelRequested())
        else:
            self._succeed(encoded)

    @property
    def _timeout(self) -> float | None:
        return self._code.context.timeout_seconds

    def _begin(self) -> AttemptContext:
        self._started = time.time_ns()
        self._progress.begin(self.position, self._started)
        item, unit = self._item, self._unit
        header = _header(unit.header)
        attempt = AttemptContext(
            flow_run_id=header.run_id,
            flow_run_name=header.run_name,
            flow_name=header.flow_name,
            pickled_parameters=header.parameters,
            flow_run_tags=header.tags,
            task_name=self._code.context.task_name,
            task_run_key=item.key,
            task_run_name=item.key,
            index=item.number,
            attempt=item.attempt,
            tags=unit.tags,
            log=self.scope.log,
        )
        running_item.set(self.scope)
        attempt_context.set(attempt)
        return attempt

    def _produce(self, attempt: AttemptContext) -> Encoded:
        args, kwargs = self._prepare(attempt)
        try:
            value = self._code.function(*args, **kwargs)
        except BaseException as error:
            if attempt.nested is not None:
                attempt.nested.close(FlowEnding(error=error))
            raise
        if attempt.nested is not None:
            self._check_nested(attempt.nested.close(FlowEnding()))
        return self._code.encode_result(_value_of(value))

    async def _produce_async(self, attempt: AttemptContext) -> Encoded:
        args, kwargs = self._prepare(attempt)
        coroutine: Coroutine[Any, Any, Any] = self._code.function(*args, **kwargs)
        try:
            value = await coroutine
        except BaseException as error:
            if attempt.nested is not None:
                await attempt.nested.close_async(FlowEnding(error=error))
            raise
        if attempt.nested is not None:
            self._check_nested(await attempt.nested.close_async(FlowEnding()))
        return self._code.encode_result(_value_of(value))

    def _prepare(self, attempt: AttemptContext) -> CallArguments:
        call = self._code.arguments(self._unit, self._item, self._large)
        attempt.arguments = NamedArguments(self._code.signature, call)
        try:
            self._name = self._code.render_name(attempt.arguments)
        except Exception as error:  # noqa: BLE001 - a name is no reason to fail
            _log.warning("task_run_name of %s cannot be rendered: %r", attempt.task_run_key, error)
        attempt.task_run_name = self._name or attempt.task_run_key
        return call

    def _keep_evidence(self, attempt: AttemptContext) -> None:
        if attempt.evidence is not None:
            self._progress.add_nested(self.position, attempt.evidence())

    def _check_nested(self, outcome: FlowOutcome) -> None:
        if outcome.state not in SUCCESSES:
            raise TaskRunFailed(
                f"{self._item.key} returned, but what it called did not end well: "
                f"{outcome.message or outcome.state.name}",
                key=self._item.key,
            )

    def _succeed(self, encoded: Encoded) -> None:
        small = encoded.size <= self._code.context.inline_max_bytes
        outcome = Outcome(
            self.position,
            StateType.COMPLETED,
            self._started,
            time.time_ns(),
            value=encoded.join() if small else None,
            name=self._name,
        )
        self._progress.end(outcome, None if small else encoded)

    def _fail_by(self, error: BaseException) -> None:
        key = self._item.key
        if isinstance(error, _StateReturned):
            self._fail(error.state, error.cause)
        elif isinstance(error, DeadlinePassed):
            message = f"{key} took longer than timeout_seconds={self._timeout:g}"
            late = TaskRunTimedOut(message, key=key).with_traceback(error.__traceback__)
            self._fail(StateType.TIMED_OUT, late)
        elif isinstance(error, CancelRequested):
            stopped = TaskRunCancelled(f"{key} was cancelled", key=key)
            self._fail(StateType.CANCELLED, stopped.with_traceback(error.__traceback__))
        else:
            self._fail(StateType.FAILED, error)

    def _fail(self, state: StateType, error: BaseException) -> None:
        info = describe_error(error, _CLASSES.get(state, FailureClass.USER))
        self._progress.end(
            Outcome(
                self.position, state, self._started, time.time_ns(), error=info, name=self._name
            )
        )


class _StateReturned(Exception):
    """The user's function returned a state that is no success."""

    def __init__(self, state: StateType, cause: BaseException) -> None:
        super().__init__(state, cause)
        self.state = state
        self.cause = cause


_CLASSES = {
    StateType.TIMED_OUT: FailureClass.TIMEOUT,
    StateType.CANCELLED: FailureClass.CANCELLED,
}


def _value_of(returned: object) -> object:
    if not isinstance(returned, State):
        return returned
    if not returned.is_final():
        raise ResultError(
            f"the task returned a state that is not final, {returned!r}: return Completed(data=…), "
            "Failed(message=…) or a value"
        )
    if returned.is_completed():
        return returned.data
    raise _StateReturned(returned.type, returned.result(raise_on_failure=False))
