"""What is recorded: calls of tasks, and the task runs that they become."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from raysched.graph.group import Group
from raysched.graph.payload import Dependency
from raysched.model.options import TaskSpec
from raysched.model.triggers import MinSuccess

Member: TypeAlias = tuple[Group, int]
"""One task run: its group and its position there."""

Part: TypeAlias = tuple[Group, range]
"""Task runs of one group: the group and positions there."""


@dataclass(frozen=True, slots=True)
class Call:
    """One `.submit` or call of a task.

    Attributes:
        spec: The task with its options.
        args: Positional arguments, as given.
        kwargs: Keyword arguments, as given.
        bound: The same by parameter name, in the order of the signature: what is digested, so
            that `f(1)` and `f(x=1)` are one call.
        wait_for: What it waits for beyond its arguments.
        tags: Tags from the task and the context.
    """

    spec: TaskSpec
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    bound: Mapping[str, Any]
    wait_for: Sequence[Dependency] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MapCall:
    """One `.map` of a task.

    Attributes:
        spec: The task with its options.
        names: The mapped parameters.
        columns: Elements of the mapped parameters, in the order of `names`, of one length.
        aligned: By mapped parameter, the group that supplies it member by member, with the index
            of its first member: there the elements in `columns` are not looked at.
        static: The other arguments by parameter name, the same for every member.
        wait_for: What every member waits for beyond its arguments.
        tags: Tags from the task and the context.
        min_success: How many of them, or which share, have to succeed; None for all.
    """

    spec: TaskSpec
    names: tuple[str, ...]
    columns: Sequence[Sequence[Any]]
    static: Mapping[str, Any]
    aligned: Mapping[str, Member] = field(default_factory=dict)
    wait_for: Sequence[Dependency] = ()
    tags: tuple[str, ...] = ()
    min_success: MinSuccess | None = None
