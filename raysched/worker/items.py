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
from raysched.errors import ResultError, TaskRunCancelled, TaskRunFailed, TaskRunSkipped
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import CrashKind, ErrorInfo, Evidence, FailureClass, Input, TimeoutKind
from raysched.results.envelope import Encoded
from raysched.worker.causes import is_full_disk, type_name
from raysched.worker.code import CallArguments, NamedArguments
from raysched.worker.extensions import Participation
from raysched.worker.failures import (
    add_evidence,
    bounded,
    describe_error,
    message_of,
    timed_out,
)
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
                self._end_processes()
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
        if self._stage.part is not None:
            self._take_part(self._stage.part)

    def _take_part(self, part: Participation) -> None:
        attempt = self._attempt
        part.enter(attempt.surroundings.task_name, attempt.index, attempt.attempt)
        if problem := part.take_problem():
            self.scope.log(logging.WARNING, _log.name, problem, time.time_ns())

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
            check_nested(self.key, attempt.nested.close(FlowEnding()))
        value = _value_of(value)
        if self._code.check is not None:
            self._code.check(self.key, value)
        return self._code.encode_result(value)

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
            check_nested(self.key, await attempt.nested.close_async(FlowEnding()))
        value = _value_of(value)
        if self._code.check is not None:
            self._code.check(self.key, value)
        return self._code.encode_result(value)

    def inputs(self, *, only_quick: bool = False) -> list[Input]:
        """Return its arguments as they are now, as evidence (see `inputs.inputs_of`)."""
        from raysched.worker.inputs import inputs_of  # only failures need it

        slots = partial(self._stage.slots_by_parameter, self._place)
        arguments = self._attempt.load_arguments
        return inputs_of(arguments, slots, self._code.masks, only_quick=only_quick)

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
            self._end_processes()
            late = timed_out(key, TimeoutKind.ATTEMPT, self._timeout or 0.0)
            self._fail(StateType.TIMED_OUT, late.with_traceback(error.__traceback__))
        elif isinstance(error, CancelRequested):
            self._end_processes()
            stopped = TaskRunCancelled(f"{key} was cancelled", key=key)
            self._fail(StateType.CANCELLED, stopped.with_traceback(error.__traceback__))
        elif isinstance(error, TaskRunSkipped) and not error.key:
            # With a key it is another task run's, which this one has called.
            self._skip(error)
        elif is_full_disk(error):
            # No fault of the function: it is tried again as after a crash.
            self._fail(StateType.CRASHED, error, FailureClass.INFRASTRUCTURE)
        else:
            self._fail(StateType.FAILED, error)

    def _fail(
        self, state: StateType, error: BaseException, failure_class: FailureClass | None = None
    ) -> None:
        failure_class = failure_class or _CLASSES.get(state, FailureClass.USER)
        kind = _KINDS.get(failure_class, "")
        # Whoever cancels, does so for no reason of the task's.
        name = "" if state is StateType.CANCELLED else self._code.context.task_name
        info = describe_error(error, failure_class, kind, self._code.home, name)
        evidence = Evidence()
        if state is not StateType.CANCELLED and (inputs := self.inputs()):
            evidence["inputs"] = inputs
        if state in _TRIED_AGAIN and (verdict := self._code.retry_verdict(error)) is not None:
            evidence["retry"] = verdict
        self._end_badly(state, add_evidence(info, evidence))

    def _skip(self, error: TaskRunSkipped) -> None:
        reason = bounded(message_of(error))
        self._end_badly(StateType.SKIPPED, ErrorInfo(type_name(error), reason))

    def _end_badly(self, state: StateType, info: ErrorInfo) -> None:
        started, name = self._started, self._attempt.rendered_name
        self._progress.end(
            Outcome(self.position, state, started, self._end(), error=info, name=name)
        )

    def _end_processes(self) -> None:
        """End what it has started, if that can be told from what others have.

        Items of an event loop share a thread: then that has to wait for the others.
        """
        progress = self._progress
        with_others = len(progress.running) > 1
        if with_others and self.scope.interruption is None:
            progress.interrupted_since = min(progress.interrupted_since, self._started)
            return
        from raysched.worker.processes import end_started_since

        if ended := end_started_since(self._started, own_thread=with_others):
            names = ", ".join(ended)
            message = f"processes that it had started were ended with it: {names}"
            self.scope.log_from_thread(logging.WARNING, _log.name, message, time.time_ns())


class _StateReturned(Exception):
    """The user's function returned a state that is no success."""

    def __init__(self, state: StateType, cause: BaseException) -> None:
        super().__init__(state, cause)
        self.state = state
        self.cause = cause


_TRIED_AGAIN = frozenset({StateType.FAILED, StateType.TIMED_OUT})
"""States of attempts that `retries` are for."""

_CLASSES = {
    StateType.TIMED_OUT: FailureClass.TIMEOUT,
    StateType.CANCELLED: FailureClass.CANCELLED,
}


_KINDS = {
    FailureClass.TIMEOUT: TimeoutKind.ATTEMPT,
    FailureClass.INFRASTRUCTURE: CrashKind.OUT_OF_DISK,
}
"""What an attempt has met that fails here by these classes."""


def check_nested(key: str, outcome: FlowOutcome) -> None:
    """Raise `TaskRunFailed` if what a task run called, and never looked at, did not end well."""
    if outcome.state not in SUCCESSES:
        raise TaskRunFailed(
            f"{key} returned, but what it called did not end well: "
            f"{outcome.message or outcome.state.name}",
            key=key,
        )


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
