"""Small graphs through the real recorder, without the face."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysched.graph.builder import Builder
from raysched.graph.calls import Call, MapCall, Part
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.graph.payload import reduce_dependency
from raysched.model.options import Hooks, RetryOptions, TaskSpec
from raysched.model.triggers import MinSuccess


@dataclass(frozen=True, slots=True)
class Need:
    """A dependency on one member, or on a range of members as a list.

    Attributes:
        group: Their group.
        indices: Which members, with step 1.
        whole: Whether the value is a list, also of a single member.
        allow_failure: Whether exceptions are handed over.
    """

    group: Group
    indices: range
    whole: bool = False
    allow_failure: bool = False

    def identity(self) -> bytes:
        return b"".join(self.group.identity(index) for index in self.indices)

    def edge(self) -> Edge:
        start, stop = self.indices.start, self.indices.stop
        kind = EdgeKind.GATHER if self.whole or stop - start > 1 else EdgeKind.BROADCAST
        return Edge(self.group, kind, start, stop, self.allow_failure)

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_dependency(self)


def one(part: Part, position: int = 0, *, allow_failure: bool = False) -> Need:
    """The value of one member."""
    group, indices = part
    index = indices[position]
    return Need(group, range(index, index + 1), allow_failure=allow_failure)


def every(part: Part, *, allow_failure: bool = False) -> Need:
    """The values of all members, as a list."""
    group, indices = part
    return Need(group, indices, whole=True, allow_failure=allow_failure)


def spec(name: str = "task", retry: RetryOptions | None = None, **options: Any) -> TaskSpec:
    """A task; `hooks=True` gives it one hook of each kind."""
    if options.pop("hooks", False):
        hook = (print,)
        options["hooks"] = Hooks(hook, hook, hook, hook, hook)
    return TaskSpec(name, fn=print, retry=retry or RetryOptions(), **options)


def add(builder: Builder, task: TaskSpec, *args: Any, wait_for: Sequence[Need] = ()) -> Part:
    """Record one call."""
    bound: Mapping[str, Any] = {f"p{number}": value for number, value in enumerate(args)}
    group, index = builder.add_call(Call(task, args, {}, bound, wait_for))
    return group, range(index, index + 1)


def add_map(  # noqa: PLR0913 - what a map is recorded with
    builder: Builder,
    task: TaskSpec,
    items: Sequence[Any] | Part,
    *,
    static: Any = None,
    wait_for: Sequence[Need] = (),
    min_success: float | None = None,
) -> list[Part]:
    """Record a map over values, or item by item over the members of a part."""
    aligned = {}
    if isinstance(items, tuple) and isinstance(items[0], Group):
        group, indices = items
        aligned = {"x": (group, indices.start)}
        items = [None] * len(indices)
    needed = None if min_success is None else MinSuccess(min_success)
    call = MapCall(task, ("x",), [items], {"y": static}, aligned, wait_for, min_success=needed)
    return builder.add_map(call)
