"""Recording the calls of one task in flow runs."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from raysched.define.annotations import Allowed, allow_failure
from raysched.define.context import current_tags, union
from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.define.mapping import Columns, columns
from raysched.define.ports import RunPort
from raysched.define.signature import Signature
from raysched.define.states import State
from raysched.errors import ParameterError, SerializationError
from raysched.graph.builder import Call, MapCall
from raysched.graph.payload import Dependency, dump_call
from raysched.model.options import FlowSpec, TaskSpec


class Caller:
    """Turns calls of a task into task runs.

    Args:
        what: For messages: `task 'parse'`.
        spec: The task with its options.
        signature: Its parameters.
        unset: Options that were not given and that a flow has defaults for.
    """

    def __init__(
        self, what: str, spec: TaskSpec, signature: Signature, unset: frozenset[str]
    ) -> None:
        self.spec = spec
        self._what = what
        self._signature = signature
        self._unset = unset
        self._in_flow: dict[tuple[bool, bool | None], TaskSpec] = {}

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
        waiting: bool,
    ) -> TaskFuture[Any]:
        """Record one call (see `Task.submit`); `waiting` as in `RunPort.recorded`."""
        spec = self._spec_in(port.start.spec)
        bound = self._signature.complete(self._signature.bind(args, kwargs))
        call = Call(spec, args, kwargs, bound, self._dependencies(wait_for), _tags(spec))
        try:
            group, index = port.builder.add_call(call)
        except SerializationError as error:
            raise self._blamed(error, bound) from error
        port.recorded(waiting=waiting)
        return TaskFuture(port, group, index)

    def record_map(
        self,
        port: RunPort,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        wait_for: Iterable[Any] | None,
    ) -> TaskFutureList[Any]:
        """Record one map (see `Task.map`)."""
        arguments = columns(self._what, self._signature, self._signature.bind(args, kwargs))
        if not arguments.size:
            return TaskFutureList(port)
        if not self._signature.by_name:
            return self._record_each(port, arguments, wait_for)
        spec = self._spec_in(port.start.spec)
        call = MapCall(
            spec,
            tuple(arguments.mapped),
            tuple(arguments.mapped.values()),
            arguments.static,
            arguments.aligned,
            self._dependencies([*arguments.waited, *(wait_for or ())]),
            _tags(spec),
        )
        try:
            parts = port.builder.add_map(call)
        except SerializationError as error:
            raise self._blamed(error, {**arguments.static, **arguments.mapped}) from error
        port.recorded()
        return TaskFutureList(port, parts)

    def _record_each(
        self, port: RunPort, arguments: Columns, wait_for: Iterable[Any] | None
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
            group, index = self.record(port, args, kwargs, waited, waiting=False).member
            parts.append((group, range(index, index + 1)))
        return TaskFutureList(port, parts)

    def _spec_in(self, flow: FlowSpec) -> TaskSpec:
        if not self._unset:
            return self.spec
        defaults = flow.log_prints, flow.persist_result
        found = self._in_flow.get(defaults)
        if found is None:
            changes: dict[str, Any] = {}
            if "log_prints" in self._unset and flow.log_prints:
                changes["log_prints"] = True
            if "persist_result" in self._unset and flow.persist_result is not None:
                changes["persist_result"] = flow.persist_result
            found = self._in_flow[defaults] = replace(self.spec, **changes)
        return found

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


def _tags(spec: TaskSpec) -> tuple[str, ...]:
    return union(spec.tags, current_tags())
