"""Recording the calls of one task in flow runs."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from raysched.define.annotations import Allowed, allow_failure
from raysched.define.blocks import note_begun
from raysched.define.context import current_tags, union
from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.define.mapping import Columns, columns
from raysched.define.options import Rule
from raysched.define.partial import PartialFutureList
from raysched.define.policies import min_success_of, trigger_of
from raysched.define.ports import RunPort
from raysched.define.signature import Signature
from raysched.define.states import State
from raysched.define.stopping import heed_stop
from raysched.errors import InvalidOption, ParameterError, SerializationError
from raysched.graph.calls import Call, MapCall, Part
from raysched.graph.payload import Dependency, dump_call
from raysched.model.caching import CacheOptions
from raysched.model.options import FlowSpec, TaskSpec
from raysched.model.triggers import MinSuccess, Trigger

_log = logging.getLogger(__name__)
_hinted = False


class Caller:
    """Turns calls of a task into task runs.

    Args:
        what: For messages: `task 'parse'`.
        spec: The task with its options.
        signature: Its parameters.
        unset: Options that were not given and that a flow has defaults for.
        cache: How its results are cached in a flow with `persist_result=True`, or None.
    """

    def __init__(
        self,
        what: str,
        spec: TaskSpec,
        signature: Signature,
        unset: frozenset[str],
        cache: CacheOptions | None = None,
    ) -> None:
        self.spec = spec
        self._what = what
        self._signature = signature
        self._unset = unset
        self._cache = cache
        self._in_flow: dict[tuple[bool, bool | None, Trigger | None], TaskSpec] = {}

    def taken(self, kwargs: dict[str, Any], *names: str) -> dict[str, Any]:
        """Take arguments of `.submit` and the like out of those of the function.

        Where the function has a parameter of that name, that is what is meant.
        """
        return {
            name: kwargs.pop(name)
            for name in names
            if name in kwargs and name not in self._signature.names
        }

    def change(self, **changes: Any) -> None:
        """Change the spec, for calls from now on."""
        self.spec = replace(self.spec, **changes)
        self._in_flow.clear()

    def record(
        self,
        port: RunPort,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        wait_for: Iterable[Any] | None,
        *,
        trigger_rule: Rule | None = None,
        waiting: bool,
    ) -> TaskFuture[Any]:
        """Record one call (see `Task.submit`); `waiting` as in `RunPort.recorded`."""
        heed_stop()
        spec = self._spec_in(port.start.spec, trigger_rule)
        bound = self._signature.complete(self._signature.bind(args, kwargs))
        call = Call(spec, args, kwargs, bound, self._dependencies(wait_for), _tags(spec))
        try:
            group, index = port.builder.add_call(call)
        except SerializationError as error:
            raise self._blamed(error, bound) from error
        note_begun(port, [(group, range(index, index + 1))])
        port.recorded(waiting=waiting)
        return TaskFuture(port, group, index)

    def record_map(
        self,
        port: RunPort,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        wait_for: Iterable[Any] | None,
        *,
        trigger_rule: Rule | None = None,
        min_success: float | MinSuccess | None = None,
    ) -> TaskFutureList[Any]:
        """Record one map (see `Task.map`)."""
        heed_stop()
        least = None if min_success is None else min_success_of(self._what, min_success)
        arguments = columns(self._what, self._signature, self._signature.bind(args, kwargs))
        needed = None if least is None else self._needed(least, arguments.size)
        if not arguments.size:
            return _list(port, (), needed)
        if not self._signature.by_name:
            return self._record_each(port, arguments, wait_for, trigger_rule)
        spec = self._spec_in(port.start.spec, trigger_rule)
        call = MapCall(
            spec,
            tuple(arguments.mapped),
            tuple(arguments.mapped.values()),
            arguments.static,
            arguments.aligned,
            self._dependencies([*arguments.waited, *(wait_for or ())]),
            _tags(spec),
            least,
        )
        try:
            parts = port.builder.add_map(call)
        except SerializationError as error:
            raise self._blamed(error, {**arguments.static, **arguments.mapped}) from error
        note_begun(port, parts)
        port.recorded()
        return _list(port, parts, needed)

    def _needed(self, least: MinSuccess, size: int) -> int:
        if not self._signature.by_name:
            raise InvalidOption(
                f"{self._what}: min_success={least.least!r}: a map that may lose some needs a "
                "function without *args and positional-only parameters"
            )
        needed = least.needed(size)
        if needed > size:
            raise InvalidOption(
                f"{self._what}: min_success={least.least!r}: there are {size} task runs only; a "
                "share such as 0.95 fits any number"
            )
        return needed

    def _record_each(
        self,
        port: RunPort,
        arguments: Columns,
        wait_for: Iterable[Any] | None,
        trigger_rule: Rule | None,
    ) -> TaskFutureList[Any]:
        """Map over a function whose parameters cannot all be given by name."""
        waited = [*arguments.waited, *(wait_for or ())]
        mapped: dict[str, Any] = dict(arguments.mapped)
        for name, (group, first) in arguments.aligned.items():
            mapped[name] = TaskFutureList(port, [(group, range(first, first + arguments.size))])
        parts = []
        for position in range(arguments.size):
            bound = {name: elements[position] for name, elements in mapped.items()}
            args, kwargs = self._signature.as_call({**arguments.static, **bound})
            future = self.record(
                port, args, kwargs, waited, trigger_rule=trigger_rule, waiting=False
            )
            group, index = future.member
            parts.append((group, range(index, index + 1)))
        return TaskFutureList(port, parts)

    def _spec_in(self, flow: FlowSpec, trigger_rule: Rule | None) -> TaskSpec:
        rule = None if trigger_rule is None else trigger_of(self._what, trigger_rule)
        defaults = flow.log_prints, flow.persist_result, rule
        # A loop of calls with one rule is one group, so they share the changed spec.
        found = self._in_flow.get(defaults)
        if found is None:
            found = self._in_flow[defaults] = replace(self.spec, **self._changes(flow, rule))
        return found

    def _changes(self, flow: FlowSpec, rule: Trigger | None) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if "log_prints" in self._unset and flow.log_prints:
            changes["log_prints"] = True
        if "persist_result" in self._unset and flow.persist_result is not None:
            changes["persist_result"] = flow.persist_result
            if flow.persist_result:
                changes["cache"] = self._cache
        if rule is not None:
            changes["trigger_rule"] = rule
        return changes

    def _dependencies(self, wait_for: Iterable[Any] | None) -> tuple[Dependency, ...]:
        if wait_for is None:
            return ()
        if isinstance(wait_for, TaskFuture | TaskFutureList | allow_failure | State):
            wait_for = (wait_for,)
        dependencies: list[Dependency] = []
        for awaited in wait_for:
            if isinstance(awaited, TaskFuture):
                dependencies.append(awaited)
            elif isinstance(awaited, TaskFutureList):
                dependencies.extend(awaited.dependencies())
            elif isinstance(awaited, allow_failure):
                dependencies.extend(map(Allowed, self._dependencies(awaited.value)))
            elif isinstance(awaited, list | tuple | set | frozenset):
                dependencies.extend(self._dependencies(awaited))
            elif isinstance(awaited, State):
                awaited.result()  # raises, where there is none
            else:
                raise ParameterError(
                    f"{self._what}: wait_for has {awaited!r}, which is no future: list what "
                    ".submit() or .map() returned"
                )
        return tuple(dependencies)

    def _blamed(
        self, error: SerializationError, arguments: Mapping[str, Any]
    ) -> SerializationError:
        for name, argument in arguments.items():
            try:
                dump_call(argument)
            except SerializationError as cause:
                return SerializationError(
                    f"{self._what}: argument {name!r}: {cause}. Arguments are copied at the call: "
                    "pass what can be pickled, and make the rest inside the task"
                )
        return error


def hint(spec: TaskSpec) -> None:
    """Say once a process that policies do not hold where a task is called outside a flow."""
    global _hinted  # noqa: PLW0603 - once a process
    policies = (
        spec.retry.retries,
        spec.timeout_seconds,
        spec.ray,
        spec.fallback,
        spec.check,
        spec.cache,
    )
    if not _hinted and any(policies):
        _hinted = True
        _log.warning(
            "task %r was called outside a flow: there it is the plain function, without "
            "retries, timeouts, resources, checks, fallbacks or caching",
            spec.name,
        )


def _list(port: RunPort, parts: Sequence[Part], needed: int | None) -> TaskFutureList[Any]:
    if needed is None:
        return TaskFutureList(port, parts)
    return PartialFutureList(port, parts, needed)


def _tags(spec: TaskSpec) -> tuple[str, ...]:
    return union(spec.tags, current_tags())
