"""Futures: what `.submit` and `.map` return. Light views of columns, made when somebody asks."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar, overload

from raysched.define.blocks import tell
from raysched.define.cancelling import cancel
from raysched.define.driving import finish, until
from raysched.define.ports import RunPort, Told
from raysched.define.ranges import FutureRange, flatten, sliced
from raysched.define.states import State
from raysched.define.watching import Watch
from raysched.errors import FutureError, InternalError, ResultTimeout
from raysched.graph.calls import Member, Part
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.graph.payload import is_digesting, reduce_dependency
from raysched.model.ids import IDENTITY_BYTES, task_run_id
from raysched.model.states import FAILURES, SUCCESSES, StateType

R_co = TypeVar("R_co", covariant=True)

CANCELLER = "the flow"
"""Who cancels what a flow function cancels itself, for people."""

Reduced: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]


class TaskFuture(Generic[R_co]):
    """A task run to come. Pass it to other tasks, wait for it, or ask for its result.

    Args:
        port: The flow run.
        group: The group of the task run.
        index: Its position there.
    """

    __slots__ = ("_group", "_index", "_port")

    def __init__(self, port: RunPort, group: Group, index: int) -> None:
        self._port = port
        self._group = group
        self._index = index

    @property
    def key(self) -> str:
        """Key of the task run, for example `parse[17]`."""
        return self._group.key(self._index)

    @property
    def name(self) -> str:
        """Name of the task run: rendered from `task_run_name` once it ran, before that its key."""
        return self._group.names.get(self._index, self.key)

    @property
    def task_run_id(self) -> str:
        """Id of the task run."""
        return task_run_id(self._group.run_id, self.key)

    @property
    def member(self) -> Member:
        """Group and position."""
        return self._group, self._index

    @property
    def port(self) -> RunPort:
        """The flow run that the task run belongs to."""
        return self._port

    @property
    def state(self) -> State[R_co]:
        """The state now. Reading the state of a failure counts as handling that failure."""
        state = self.peek()
        if state in FAILURES:
            self._tell(Told.READ)
        return self._as_state(state)

    def done(self) -> bool:
        """Whether the task run has ended."""
        return self._group.is_visible(self._index)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the task run has ended; return whether it has.

        Args:
            timeout: Seconds, or None for no limit.
        """
        return finish(self.until_done(timeout, blocking=True))

    @overload
    def result(self, timeout: float | None = None) -> R_co: ...

    @overload
    def result(
        self,
        timeout: float | None = None,
        raise_on_failure: bool = ...,  # noqa: FBT001 - as in Prefect
    ) -> R_co | BaseException: ...

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:  # noqa: FBT001, FBT002
        """Wait for the task run and return its value.

        Args:
            timeout: Seconds, or None for no limit.
            raise_on_failure: False returns the exception instead of raising it. Both count as
                handling the failure.

        Raises:
            ResultTimeout: The timeout passed first; the task run goes on.
            UpstreamFailed: The task run never ran, because of the failures it names.
            Exception: What the task raised, or a `TaskRunError`.
        """
        if self.done():
            return self.deliver(raising=raise_on_failure)
        return finish(self.outcome(timeout, raising=raise_on_failure, blocking=True))

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self.outcome(None, raising=True, blocking=False).__await__()

    def cancel(self) -> bool:
        """Have the task run cancelled, waiting or running; return whether it had not ended yet.

        Returns at once: `wait` waits for the end. What runs is interrupted, its `finally` blocks
        run, and its worker is ended if that takes too long. What needs its value does not run. As
        the flow asked for it, it does not make the flow fail.
        """
        return cancel(self._port, [(self._group, range(self._index, self._index + 1))], CANCELLER)

    def peek(self) -> StateType:
        """Return the type of the state now, without handling anything."""
        visible = self._group.visible
        return StateType(visible[self._index] if self._index < len(visible) else 0)

    def _tell(self, how: Told) -> None:
        tell(self._port, self._group, (self._index,), how)

    async def until_done(self, seconds: float | None, *, blocking: bool) -> bool:
        """Wait until the task run has ended; return whether it has."""
        return self.done() or await until(self._port, self.done, seconds, blocking=blocking)

    async def outcome(self, seconds: float | None, *, raising: bool, blocking: bool) -> Any:
        """Wait and return the value, or raise or return the exception (see `result`)."""
        if not await self.until_done(seconds, blocking=blocking):
            raise ResultTimeout(
                f"{self.key} is {self.peek().name} after {seconds} s and goes on: "
                "ask again, or with a longer timeout"
            )
        return self.deliver(raising=raising)

    async def final_state(self, *, blocking: bool) -> State[R_co]:
        """Wait and return the state, for `return_state=True`, which handles any failure."""
        await self.until_done(None, blocking=blocking)
        state = self.peek()
        if state in FAILURES:
            self._tell(Told.RETURNED)
        return self._as_state(state)

    def deliver(self, *, raising: bool) -> Any:
        """Return the value of an ended task run, or raise or return its exception."""
        state = self.peek()
        if state in SUCCESSES:
            return self._port.value(self.member)
        if state in FAILURES:
            self._tell(Told.RAISED if raising else Told.RETURNED)
        error = self._port.error(self.member)
        if raising:
            raise error
        return error

    def identity(self) -> bytes:
        """Return the digest that stands for the value in digests of inputs."""
        return self._group.identity(self._index)

    def edge(self) -> Edge:
        """Return the edge to whoever needs the value."""
        return Edge(self._group, EdgeKind.BROADCAST, self._index, self._index + 1)

    def _as_state(self, state: StateType) -> State[R_co]:
        error = self._group.errors.get(self._index)
        ended = self._group.ended
        at = ended[self._index] if self._index < len(ended) else 0
        load = (lambda: self.deliver(raising=False)) if state.is_terminal else None
        return State(
            state,
            message=error.message if error else None,
            timestamp=at / 1e9 if at else None,
            load=load,
        )

    def __bool__(self) -> NoReturn:
        raise FutureError(
            f"{self.key} is a future, neither true nor false: use {self.key}.result()"
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TaskFuture)
            and self._group is other._group
            and self._index == other._index
        )

    def __hash__(self) -> int:
        return hash((id(self._group), self._index))

    def __reduce__(self) -> Reduced:
        return reduce_dependency(self)

    def __repr__(self) -> str:
        return f"TaskFuture({self.key}, {self.peek().name})"


class TaskFutureList(Sequence[TaskFuture[R_co]]):
    """The futures of a `.map`: ranges of groups, with no object for each task run.

    Args:
        port: The flow run.
        parts: Groups with positions in them, in order.
    """

    __slots__ = ("_parts", "_port")

    def __init__(self, port: RunPort, parts: Sequence[Part] = ()) -> None:
        self._port = port
        self._parts = tuple(parts)

    @property
    def port(self) -> RunPort:
        """The flow run that the task runs belong to."""
        return self._port

    @property
    def parts(self) -> tuple[Part, ...]:
        """Groups with positions in them, in order."""
        return self._parts

    @property
    def states(self) -> list[State[R_co]]:
        """The states now. Reading the state of a failure counts as handling that failure."""
        return [future.state for future in self]

    def done(self) -> bool:
        """Whether all task runs have ended."""
        return all(group.is_visible(index) for group, index in self.members())

    def cancel(self) -> bool:
        """Have those task runs cancelled that have not ended yet; return whether there are any.

        See `TaskFuture.cancel`.
        """
        return cancel(self._port, self._parts, CANCELLER)

    def members(self) -> Iterator[Member]:
        """Yield group and position of each task run."""
        return chain.from_iterable(((group, i) for i in indices) for group, indices in self._parts)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all task runs have ended; return whether they have.

        Args:
            timeout: Seconds, or None for no limit.
        """
        with Watch(self._parts) as watch:
            return finish(until(self._port, lambda: not watch.open, timeout, blocking=True))

    @overload
    def result(self, timeout: float | None = None) -> list[R_co]: ...

    @overload
    def result(
        self,
        timeout: float | None = None,
        raise_on_failure: bool = ...,  # noqa: FBT001 - as in Prefect
    ) -> list[R_co | BaseException]: ...

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:  # noqa: FBT001, FBT002
        """Wait for the task runs and return their values in order.

        Args:
            timeout: Seconds for all of them, or None for no limit.
            raise_on_failure: False puts exceptions in the places of missing values. True raises
                the first failure as soon as it is there.

        Raises:
            ResultTimeout: The timeout passed first; the task runs go on.
            Exception: What a task raised, or a `TaskRunError`. All failures of the list then
                count as handled.
        """
        return finish(self.outcome(timeout, raising=raise_on_failure, blocking=True))

    def __await__(self) -> Generator[Any, Any, list[R_co]]:
        return self.outcome(None, raising=True, blocking=False).__await__()

    async def outcome(self, seconds: float | None, *, raising: bool, blocking: bool) -> Any:
        """Wait and return the values (see `result`)."""
        with Watch(self._parts, stop_at_failure=raising) as watch:
            ended = await until(self._port, watch.satisfied, seconds, blocking=blocking)
        if not ended:
            raise ResultTimeout(
                f"{watch.open} of {len(self)} task runs have not ended after {seconds} s and go "
                "on: ask again, or with a longer timeout"
            )
        if watch.failed is not None:
            for group, indices in self._parts:
                tell(self._port, group, indices, Told.RAISED)
            raise self._port.error(watch.failed)
        return list(chain.from_iterable(self._delivered(*part, raising) for part in self._parts))

    def _delivered(self, group: Group, indices: range, raising: bool) -> Iterable[Any]:  # noqa: FBT001 - not public
        codes = {group.visible[index] for index in indices}
        if codes <= SUCCESSES:
            return self._port.values(group, indices)
        return [TaskFuture(self._port, group, index).deliver(raising=raising) for index in indices]

    async def final_states(self, *, blocking: bool) -> list[State[R_co]]:
        """Wait and return the states, for `return_state=True`, which handles any failure."""
        with Watch(self._parts) as watch:
            await until(self._port, watch.satisfied, blocking=blocking)
        return [await future.final_state(blocking=blocking) for future in self]

    def dependencies(self) -> "list[FutureRange]":
        """Return the list as the fewest dependencies that make it up, in order."""
        return [
            FutureRange(group, some)
            for group, indices in self._parts
            for some in ([indices] if indices.step == 1 else [range(i, i + 1) for i in indices])
        ]

    def edge(self) -> NoReturn:
        """Raise: a list may need several edges, those of its `dependencies`."""
        raise InternalError("a list of futures has no single edge")

    def identity(self) -> bytes:
        """Return the digest that stands for the values in digests of inputs."""
        hasher = blake2b(b"list", digest_size=IDENTITY_BYTES)
        for group, indices in self._parts:
            if indices.step == 1:
                start, stop = indices.start * IDENTITY_BYTES, indices.stop * IDENTITY_BYTES
                hasher.update(group.identities[start:stop])
            else:
                for index in indices:
                    hasher.update(group.identity(index))
        return hasher.digest()

    @overload
    def __getitem__(self, position: int) -> TaskFuture[R_co]: ...

    @overload
    def __getitem__(self, position: slice) -> "TaskFutureList[R_co]": ...

    def __getitem__(self, position: int | slice) -> "TaskFuture[R_co] | TaskFutureList[R_co]":
        if isinstance(position, slice):
            return TaskFutureList(self._port, sliced(self._parts, position))
        index = position + len(self) if position < 0 else position
        for group, indices in self._parts:
            if 0 <= index < len(indices):
                return TaskFuture(self._port, group, indices[index])
            index -= len(indices)
        raise IndexError(f"there is no future {position} in a list of {len(self)}")

    def __len__(self) -> int:
        return sum(len(indices) for _, indices in self._parts)

    def __iter__(self) -> Iterator[TaskFuture[R_co]]:
        return (TaskFuture(self._port, group, index) for group, index in self.members())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskFutureList) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple((id(group), indices) for group, indices in self._parts))

    def __reduce__(self) -> Reduced:
        if is_digesting():
            return reduce_dependency(self)
        ranges = self.dependencies()
        if len(ranges) == 1:
            return reduce_dependency(ranges[0])
        return flatten, (ranges,)

    def __repr__(self) -> str:
        return f"TaskFutureList({len(self)} of {', '.join(_describe(self._parts)) or 'nothing'})"


def _describe(parts: tuple[Part, ...]) -> Iterator[str]:
    for group, indices in parts:
        first, last = group.key(indices[0]), group.key(indices[-1])
        yield first if first == last else f"{first}…{last}"
