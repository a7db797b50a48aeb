"""One item of a unit: decode, call, encode, and whatever happens becomes an outcome."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from raysched import faults
from raysched.define.context import AttemptContext, attempt_context
from raysched.define.ports import FlowEnding, FlowOutcome
from raysched.define.states import State
from raysched.errors import ResultError, TaskRunCancelled, TaskRunFailed, TaskRunTimedOut
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import FailureClass
from raysched.results.envelope import Encoded
from raysched.worker.code import CallArguments, NamedArguments
from raysched.worker.failures import describe_error
from raysched.worker.interrupt import CancelRequested, DeadlinePassed, Interruption
from raysched.worker.progress import Outcome, UnitProgress
from raysched.worker.scope import ItemScope, running_item
from raysched.worker.stages import StageRun

_log = logging.getLogger(__name__)


class ItemRun:
    """One item while it runs. Made, and its `run` called, in a contextvars context of its own.

    Args:
        stage: Its stage.
        place: Its place there.
        progress: The unit's progress.
        position: Its position in the unit.
        interruption: How others end a synchronous function, None for an asynchronous one.
    """

    __slots__ = (
        "_attempt",
        "_code",
        "_ended",
        "_place",
        "_progress",
        "_stage",
        "_started",
        "encoded",
        "passed_interrupt",
        "position",
        "scope",
    )

    def __init__(
        self,
        stage: StageRun,
        place: int,
        progress: UnitProgress,
        position: int,
        interruption: Interruption | None = None,
    ) -> None:
        number = stage.attempt(place)
        code = stage.code
        self.position = position
        self.scope = ItemScope(progress, position, number, code.context.log_prints, interruption)
        self.passed_interrupt: BaseException | None = None
        self.encoded: Encoded | None = None
        """The value, once the function has returned it."""
        self._stage = stage
        self._place = place
        self._code = code
        self._progress = progress
        self._attempt = AttemptContext(
            stage.surroundings, stage.number(place), number, self.scope.log
        )
        self._started = self._ended = 0

    def run(self, interruption: Interruption, passed_on: Callable[[], bool]) -> None:
        """Run a synchronous function.

        Args:
            interruption: How others end it.
            passed_on: Whether a KeyboardInterrupt or SystemExit is a signal's that a person has
                sent, not the function's own; then it is kept in `passed_interrupt`.
        """
        self._begin()
        try:
            try:
                encoded = interruption.run(self._produce, self._timeout)
            finally:
                self._keep_evidence()
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
        self._begin()
        deadline = asyncio.timeout(self._timeout)
        try:
            try:
                async with deadline:
                    encoded = await self._produce_async()
            finally:
                self._keep_evidence()
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

    @property
    def key(self) -> str:
        """Key of the task run."""
        return self._attempt.task_run_key

    @property
    def took(self) -> int:
        """How long it has run (ns)."""
        return self._ended - self._started

    def _end(self) -> int:
        self._ended = time.time_ns()
        return self._ended

    def _begin(self) -> None:
        self._started = time.time_ns()
        self._progress.begin(self.position, self._started)
        running_item.set(self.scope)
        attempt_context.set(self._attempt)

    def _produce(self) -> Encoded:
        attempt = self._attempt
        faults.reach("worker: item begins", self)
        args, kwargs = self._prepare()
        try:
            value = self._code.function(*args, **kwargs)
            faults.reach("worker: item ended", self)
        except BaseException as error:
            if attempt.nested is not None:
                attempt.nested.close(FlowEnding(error=error))
            raise
        if attempt.nested is not None:
            self._check_nested(attempt.nested.close(FlowEnding()))
        return self._code.encode_result(_value_of(value))

    async def _produce_async(self) -> Encoded:
        attempt = self._attempt
        faults.reach("worker: item begins", self)
        args, kwargs = self._prepare()
        coroutine: Coroutine[Any, Any, Any] = self._code.function(*args, **kwargs)
        try:
            value = await coroutine
            faults.reach("worker: item ended", self)
        except BaseException as error:
            if attempt.nested is not None:
                await attempt.nested.close_async(FlowEnding(error=error))
            raise
        if attempt.nested is not None:
            self._check_nested(await attempt.nested.close_async(FlowEnding()))
        return self._code.encode_result(_value_of(value))

    def _prepare(self) -> CallArguments:
        attempt = self._attempt
        call = self._stage.arguments(self._place)
        attempt.load_arguments = partial(NamedArguments, self._code.signature, call)
        if self._code.has_name:
            try:
                attempt.rendered_name = self._code.render_name(attempt.load_arguments())
            except Exception as error:  # noqa: BLE001 - a name is no reason to fail
                _log.warning("task_run_name of %s cannot be rendered: %r", self.key, error)
        return call

    def _keep_evidence(self) -> None:
        if self._attempt.evidence is not None:
            self._progress.add_nested(self.position, self._attempt.evidence())

    def _check_nested(self, outcome: FlowOutcome) -> None:
        if outcome.state not in SUCCESSES:
            raise TaskRunFailed(
                f"{self.key} returned, but what it called did not end well: "
                f"{outcome.message or outcome.state.name}",
                key=self.key,
            )

    def _succeed(self, encoded: Encoded) -> None:
        self.encoded = encoded
        position, started, name = self.position, self._started, self._attempt.rendered_name
        if encoded.size <= self._code.context.inline_max_bytes:
            self._progress.complete(position, started, self._end(), encoded.join(), name)
            return
        outcome = Outcome(position, StateType.COMPLETED, started, self._end(), name=name)
        self._progress.end(outcome, encoded)

    def _fail_by(self, error: BaseException) -> None:
        key = self.key
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
                self.position,
                state,
                self._started,
                self._end(),
                error=info,
                name=self._attempt.rendered_name,
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
