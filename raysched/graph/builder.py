"""Recording: calls become groups with edges, from any number of threads."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeAlias

from raysched.errors import FutureError, InvalidOption
from raysched.graph.digest import digest, digest_rows, task_label
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.graph.identities import Identities
from raysched.graph.payload import Dependency, Slot, are_atoms_or_slots, dump_call
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


class Builder:
    """Records the calls of one flow run; `take` hands over what came since the last time.

    Args:
        run_id: The flow run.
        scope: What tells equal calls of different subflows apart in identities.
    """

    def __init__(self, run_id: str, scope: bytes = b"") -> None:
        self.run_id = run_id
        self.kept: dict[bytes, Member] = {}
        """Completed task runs of an earlier attempt of the flow function, by identity."""
        self.scope = scope
        self._lock = threading.Lock()
        self._segment: list[Group] = []
        self._next_group = 0
        self._next_index: dict[str, int] = {}
        self._identities = Identities()
        self._labels: dict[TaskSpec, bytes] = {}

    def add_call(self, call: Call) -> Member:
        """Record one call; return the task run that it is.

        Raises:
            SerializationError: An argument cannot be pickled.
            FutureError: An argument holds a future of another flow run.
            InvalidOption: The trigger rule can never be met.
        """
        payload, found = dump_call((call.args, dict(call.kwargs)))
        edges = self._edges(found, call.wait_for)
        _check_rule(call.spec, edges)
        # Flat, since a tuple of atoms is digested in a fifth of the time.
        bound = tuple(chain.from_iterable(call.bound.items()))
        inputs = digest(bound, self.scope, self._label(call.spec))
        with self._lock:
            identity = self._identities.of(call.spec, inputs)
            if identity in self.kept:
                return self.kept[identity]
            group = self._open_group(call.spec, call.tags)
            index = group.size
            group.payloads.append(payload)
            group.size += 1
            group.identities += identity
            if edges:
                group.member_edges[index] = edges
            self._next_index[call.spec.name] = group.first + index + 1
        return group, index

    def add_map(self, call: MapCall) -> list[Part]:
        """Record one map; return its task runs in order.

        Raises:
            SerializationError: An argument cannot be pickled.
            FutureError: An argument holds a future of another flow run.
            InvalidOption: The trigger rule can never be met.
        """
        shared, found = dump_call((call.names, dict(call.static)))
        edges = list(self._edges(found, ()))
        columns = list(call.columns)
        for name, (parent, first) in call.aligned.items():
            self._check(parent)
            number = call.names.index(name)
            identities = parent.identities_of(range(first, first + len(columns[number])))
            columns[number] = [Slot(len(edges), identity) for identity in identities]
            edges.append(Edge(parent, EdgeKind.ONE_TO_ONE, first))
        slots = len(edges)
        edges.extend(self._edges((), call.wait_for))
        context = (self.scope, self._label(call.spec), digest((call.names, call.static)))
        call = replace(call, columns=columns)
        if not self.kept and all(map(are_atoms_or_slots, columns)):
            _check_rule(call.spec, edges)
            return self._place_columns(call, shared, tuple(edges), context)
        members = [self._member(row, slots, context) for row in zip(*columns, strict=True)]
        for _, _, own_edges in members:
            _check_rule(call.spec, (*edges, *own_edges))
        with self._lock:
            return self._place(call, members, shared, tuple(edges))

    def take(self) -> list[Group]:
        """Return the groups recorded since the last call, their columns allocated."""
        with self._lock:
            segment, self._segment = self._segment, []
            for group in segment:
                group.allocate()
        return segment

    def restart(self, kept: Mapping[bytes, Member]) -> None:
        """Begin a new attempt of the flow function: `kept` answers equal calls."""
        with self._lock:
            self.kept = dict(kept)
            self._identities = Identities()

    def reserve(self, task_name: str, size: int) -> tuple[int, int]:
        """Keep a group id and `size` indices of a task free; return the id and the first index.

        For task runs that were recorded elsewhere: inside an attempt, in its worker.
        """
        with self._lock:
            group, first = self._next_group, self._next_index.get(task_name, 0)
            self._next_group += 1
            self._next_index[task_name] = first + size
        return group, first

    def _member(
        self, row: tuple[Any, ...], first_slot: int, context: tuple[bytes, ...]
    ) -> tuple[bytes, bytes, tuple[Edge, ...]]:
        payload, found = dump_call(row, first_slot)
        return payload, digest(row, *context), self._edges(found, ())

    def _place_columns(
        self, call: MapCall, shared: bytes, edges: tuple[Edge, ...], context: tuple[bytes, ...]
    ) -> list[Part]:
        """Place a map whose elements are immutable, or values to come: no member is special."""
        size = len(call.columns[0])
        inputs = digest_rows(call.columns, *context)
        with self._lock:
            group = self._new_group(call.spec, call.tags)
            group.mapped, group.shared, group.edges, group.size = True, shared, edges, size
            if call.min_success is not None:
                group.min_success = call.min_success.needed(size)
            if not call.aligned:
                group.columns = tuple(call.columns)
            elif len(call.aligned) == len(call.names) and size:
                # A slot's number is all that is pickled of it, so one row is like another.
                row = tuple(column[0] for column in call.columns)
                group.payloads = [dump_call(row)[0]] * size
            else:
                group.payloads = [dump_call(row)[0] for row in zip(*call.columns, strict=True)]
            group.identities = self._identities.of_map(call.spec, inputs, call.columns)
            if size:
                self._next_index[call.spec.name] = group.first + size
                self._segment.append(group)
        return [(group, range(size))] if size else []

    def _place(
        self,
        call: MapCall,
        members: list[tuple[bytes, bytes, tuple[Edge, ...]]],
        shared: bytes,
        edges: tuple[Edge, ...],
    ) -> list[Part]:
        name = call.spec.name
        group = self._new_group(call.spec, call.tags)
        group.mapped, group.shared, group.edges = True, shared, edges
        placed: list[Part] = []
        moved: list[int] = []
        for position, (payload, inputs, own_edges) in enumerate(members):
            identity = self._identities.of(call.spec, inputs)
            if identity in self.kept:
                _append(placed, self.kept[identity])
                continue
            if own_edges:
                group.member_edges[group.size] = own_edges
            moved.append(position)
            _append(placed, (group, group.size))
            group.payloads.append(payload)
            group.size += 1
            group.identities += identity
        if call.min_success is not None:
            kept = len(members) - len(moved)
            group.min_success = max(0, call.min_success.needed(len(members)) - kept)
        if len(moved) != len(members):
            _pin(group, moved)
        if moved:
            self._next_index[name] = group.first + group.size
            self._segment.append(group)
        return placed

    def _open_group(self, spec: TaskSpec, tags: tuple[str, ...]) -> Group:
        for group in reversed(self._segment):
            if group.spec is spec and group.tags == tags and not group.mapped:
                return group
            if group.spec.name == spec.name:
                break
        group = self._new_group(spec, tags)
        self._segment.append(group)
        return group

    def _new_group(self, spec: TaskSpec, tags: tuple[str, ...]) -> Group:
        group = Group(
            self._next_group, self.run_id, spec, self._next_index.get(spec.name, 0), tags=tags
        )
        self._next_group += 1
        return group

    def _label(self, spec: TaskSpec) -> bytes:
        label = self._labels.get(spec)
        if label is None:
            label = self._labels[spec] = task_label(spec.name, spec.fn)
        return label

    def _edges(
        self, found: Iterable[Dependency], wait_for: Iterable[Dependency]
    ) -> tuple[Edge, ...]:
        edges = [dependency.edge() for dependency in found]
        for dependency in wait_for:
            edge = dependency.edge()
            stop = edge.stop if edge.kind is EdgeKind.GATHER else edge.index + 1
            edges.append(Edge(edge.parent, EdgeKind.AFTER, edge.index, stop, edge.allow_failure))
        for edge in edges:
            self._check(edge.parent)
        return tuple(edges)

    def _check(self, parent: Group) -> None:
        if parent.run_id != self.run_id:
            message = (
                f"a future of task {parent.spec.name!r} belongs to flow run {parent.run_id[:8]}, "
                f"not to this one ({self.run_id[:8]}): pass its value, future.result()"
            )
            raise FutureError(message)


def _check_rule(spec: TaskSpec, edges: Sequence[Edge]) -> None:
    rule = spec.trigger_rule
    if not isinstance(rule, MinSuccess):
        return
    ranges = (EdgeKind.GATHER, EdgeKind.AFTER)
    there = sum(edge.stop - edge.index if edge.kind in ranges else 1 for edge in edges)
    if 0 < there < rule.needed(there):
        runs = "1 task run" if there == 1 else f"{there} task runs"
        raise InvalidOption(
            f"task {spec.name!r}: trigger_rule={rule!s} can never be met: it needs {runs} only; a "
            "share such as 0.95 fits any number"
        )


def _append(parts: list[Part], member: Member) -> None:
    group, index = member
    if parts and parts[-1][0] is group and parts[-1][1].stop == index:
        parts[-1] = group, range(parts[-1][1].start, index + 1)
    else:
        parts.append((group, range(index, index + 1)))


def _pin(group: Group, positions: list[int]) -> None:
    """Turn item-wise edges into edges of members, after some members were left out."""
    regular = [edge for edge in group.edges if edge.kind is EdgeKind.ONE_TO_ONE]
    if not regular:
        return
    first = next(i for i, edge in enumerate(group.edges) if edge.kind is EdgeKind.ONE_TO_ONE)
    after = tuple(edge for edge in group.edges if edge.kind is EdgeKind.AFTER)
    for index, position in enumerate(positions):
        pinned = tuple(
            Edge(
                edge.parent,
                EdgeKind.BROADCAST,
                edge.index + position,
                edge.index + position + 1,
                edge.allow_failure,
            )
            for edge in regular
        )
        group.member_edges[index] = pinned + group.member_edges.get(index, ()) + after
    group.edges = group.edges[:first]
