"""A failed task run again, alone and in this process, with the arguments that were kept of it.

Nothing is written: tasks and flows that it calls itself run in memory, as they do in a worker.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from raysched.client.task_run import handed_over, not_kept
from raysched.define.context import AttemptContext, attempt_context
from raysched.define.ports import FlowEnding
from raysched.define.states import State
from raysched.errors import ResultError, ResultNotKept, SerializationError
from raysched.graph.group import EdgeKind
from raysched.graph.payload import dumps
from raysched.model.records import Kept
from raysched.model.states import SUCCESSES, StateType
from raysched.results import storage
from raysched.results.envelope import decode, encode
from raysched.settings import settings
from raysched.worker.code import CallArguments, NamedArguments, TaskCode
from raysched.worker.context import context_of
from raysched.worker.functions import LocalFunction
from raysched.worker.items import check_nested
from raysched.worker.previews import Previews
from raysched.worker.protocol import (
    FAILURE,
    INLINE,
    LIST,
    RunHeader,
    SlotValue,
    Stage,
    Unit,
    encode_header,
)
from raysched.worker.protocol import SUCCESSES as SOME
from raysched.worker.stages import StageRun
from raysched.worker.stored import StoredInputs

if TYPE_CHECKING:
    from raysched.define.tasks import Task
    from raysched.model.rows import GroupRow, InputRow
    from raysched.store.reader import Reader
    from raysched.store.views import RunView, TaskRunView

MOST_MISSING = 5
"""Values that an error names because they were not kept."""

Call: TypeAlias = Callable[[], Any]


class Rerun:
    """A task run that can be run again here.

    Args:
        stage: The task run, as a worker gets it.
        code: The user's function.

    Attributes:
        key: Its key, for example `load[17]`.
        function: The user's function.
        is_async: Whether it is a coroutine function.
        call_arguments: Positional and keyword arguments, decoded for this call.
    """

    def __init__(self, stage: StageRun, code: TaskCode) -> None:
        self._attempt = AttemptContext(stage.surroundings, stage.number(0), stage.attempt(0))
        self._code = code
        self.key = self._attempt.task_run_key
        self.function = code.function
        self.is_async = code.context.is_async
        self.call_arguments: CallArguments = stage.arguments(0)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments by parameter."""
        return NamedArguments(self._code.signature, self.call_arguments)

    def preview(self, value: object, name: str = "") -> str:
        """Return a value as a short text, secrets masked; `name` is that of its parameter."""
        return Previews(self._code.masks).of(value, name)

    def run(self, around: Callable[[Call], Any] = lambda call: call()) -> Any:
        """Call the function once, and `check=` with what it returns; return its result.

        As in a worker the result has to be picklable, and what the function has called has to end
        well, or be looked at. Its limits of time, retries and fallback play no part. Log records go
        to the handlers of the `logging` module only.

        Args:
            around: Calls the call that it is given: a debugger, for example.

        Raises:
            BaseException: What the function raises, or `CheckFailed`.
            TaskRunFailed: Task runs that it called failed, and it did not look at them.
            SerializationError: Its result cannot be pickled.
            ResultError: Its result is too large.
        """
        attempt = self._attempt
        attempt.load_arguments = lambda: self.arguments
        token = attempt_context.set(attempt)
        try:
            value = around(self._call)
        except BaseException as error:
            if attempt.nested is not None:
                attempt.nested.close(FlowEnding(error=error))
            raise
        else:
            if attempt.nested is not None:
                check_nested(self.key, attempt.nested.close(FlowEnding()))
        finally:
            attempt_context.reset(token)
        if isinstance(value, State):
            value = value.result()
        if self._code.check is not None:
            self._code.check(self.key, value)
        self._code.encode_result(value)
        return value

    def _call(self) -> Any:
        args, kwargs = self.call_arguments
        value = self.function(*args, **kwargs)
        return asyncio.run(value) if self.is_async else value


def prepare(reader: "Reader", run: "RunView", view: "TaskRunView", task: "Task[..., Any]") -> Rerun:
    """Return what runs a task run again: see `TaskRun.again`."""
    own, shared = reader.inputs(run, view.group, view.member)
    if own is None:
        raise _without_arguments(view)
    groups = {row.id: row for row in reader.groups(run)}
    group = groups[view.group]
    values = _Values(reader, run, groups, _option(group, "trigger_rule") or "")
    slots = values.of(own)
    if values.missing:
        raise _without_values(view, values.missing)
    code = TaskCode(context_of(task.spec, settings(), LocalFunction))
    stage = Stage(
        view.task,
        group.mapped,
        shared.payload,
        view.tags,
        (view.index,),
        (max(view.attempts, 1),),
        (own.payload,),
        slots=(slots,),
    )
    parameters = _parameters(reader.pickled_parameters(run))
    header = encode_header(RunHeader(run.id, run.name, run.flow, parameters, run.tags))
    return Rerun(StageRun(code, Unit(0, header, (stage,)), stage, (), {}, StoredInputs()), code)


class _Values:
    """Supplies what was in the slots of arguments, from what was kept.

    Args:
        reader: Where it was kept.
        run: The run.
        groups: Its groups by id.
        rule: The trigger rule of the task run, "" for the default.

    Attributes:
        missing: Completed task runs whose values are wanted and were not kept.
    """

    def __init__(
        self, reader: "Reader", run: "RunView", groups: "Mapping[int, GroupRow]", rule: str
    ) -> None:
        self._reader = reader
        self._run = run
        self._groups = groups
        self._rule = rule
        self.missing: list[TaskRunView] = []

    def of(self, row: "InputRow") -> tuple[SlotValue, ...]:
        """Return the values of the slots of a row, by number."""
        return tuple(self._slot(*place[:4]) for place in json.loads(row.slots))

    def _slot(self, kind: str, parent: int, start: int, stop: int) -> SlotValue:
        group = self._groups[parent]
        views, envelopes = self._reader.members_of(self._run, group, start, stop)
        values = [self._member(view, envelopes.get(view.member)) for view in views]
        if kind != EdgeKind.GATHER:
            return values[0]
        if _option(group, "min_success") is None and not self._rule.startswith("min_success"):
            return LIST, values
        failures = [envelope for code, envelope in values if code == FAILURE]
        return SOME, ([value for value in values if value[0] != FAILURE], failures)

    def _member(self, view: "TaskRunView", envelope: bytes | None) -> SlotValue:
        if view.state not in SUCCESSES:
            return FAILURE, encode(handed_over(view)).join()
        if view.kept is Kept.STORED:
            envelope = storage.read(view.location)
        elif envelope is None:
            self.missing.append(view)
        return INLINE, envelope


def _parameters(envelope: bytes | None) -> bytes:
    """Return the flow run's parameters as units carry them, b"" where they cannot be had."""
    if envelope is None:
        return b""
    try:
        return dumps(decode(envelope))
    except SerializationError:
        # Few tasks ask for them.
        return b""


def _option(group: "GroupRow", name: str) -> Any:
    return json.loads(group.options).get(name)


def _without_arguments(view: "TaskRunView") -> ResultError:
    if not view.state.is_terminal:
        return ResultError(f"{view.key} is {view.state.name}: it has not ended yet")
    if view.state is StateType.UPSTREAM_FAILED and view.roots:
        return ResultError(
            f"{view.key} never ran, because of {', '.join(view.roots)}: look at "
            f"{'that' if len(view.roots) == 1 else 'one of those'}"
        )
    if not view.attempts:
        return ResultError(f"{view.key} is {view.state.name} and never ran: {view.reason}")
    if view.error is None:
        return ResultError(
            f"{view.key} is {view.state.name}: only of task runs that failed for good the "
            "arguments are kept"
        )
    return ResultNotKept(
        f"{view.key}: its arguments were not kept, which happens where they have more than 1 MiB, "
        "and with a driver that died; let another task make the large value, or pass its path"
    )


def _without_values(view: "TaskRunView", missing: "Sequence[TaskRunView]") -> ResultNotKept:
    told = "; ".join(not_kept(each) for each in missing[:MOST_MISSING])
    more = len(missing) - MOST_MISSING
    others = f"; and {more:,} more" if more > 0 else ""
    return ResultNotKept(
        f"{view.key}: the values in its arguments are not all there: {told}{others}"
    )
