"""Recording: calls become groups with edges, from any number of threads."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from raysched.errors import FutureError, InvalidOption
from raysched.graph.calls import Call, MapCall, Member, Part
from raysched.graph.digest import digest, digest_rows, task_label
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.graph.identities import Identities
from raysched.graph.payload import Dependency, Slot, are_atoms_or_slots, dump_call
from raysched.graph.recorded import Recorded, answer_with_parents, recall
from raysched.model.ids import split_identities
from raysched.model.options import TaskSpec
from raysched.model.records import RecordedGroup
from raysched.model.triggers import MinSuccess


class Builder:
    """Records the calls of one flow run; `take` hands over what came since the last time.

    Args:
        run_id: The flow run.
        scope: What tells equal calls of different subflows apart in identities.
        recorded: What an earlier execution has left for equal calls, or None.
    """

    def __init__(self, run_id: str, scope: bytes = b"", recorded: Recorded | None = None) -> None:
        self.run_id = run_id
        self.recorded = recorded
        self.kept: dict[bytes, Member] = {}
        """Completed task runs of an earlier attempt of the flow function, by identity."""
        self.scope = scope
        self._lock = threading.Lock()
        self._segment: list[Group] = []
        goes_on = recorded is not None and recorded.choice.same
        self._next_group = recorded.records.next_group if recorded and goes_on else 0
        self._next_index = dict(recorded.records.next_index) if recorded and goes_on else {}
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
            place = self._claim(call.spec, identity)
            if place is None:
                group = self._open_group(call.spec, call.tags)
            else:
                recorded, position = place
                flags = self._answered(call.spec, recorded, [position], (), [edges])
                group = self._open_group(call.spec, call.tags, recorded)
                group.claim([position], flags)
            member = _add_member(group, payload, identity, edges)
            self._count(group)
            return member

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
        members = [self._member(row, slots) for row in zip(*columns, strict=True)]
        for _, own_edges in members:
            _check_rule(call.spec, (*edges, *own_edges))
        inputs = [digest(row, *context) for row in zip(*columns, strict=True)]
        with self._lock:
            identities = [self._identities.of(call.spec, each) for each in inputs]
            return self._place(call, members, identities, shared, tuple(edges))

    def take(self) -> list[Group]:
        """Return the groups recorded since the last call, their columns allocated."""
        with self._lock:
            segment, self._segment = self._segment, []
            for group in segment:
                group.allocate()
                if group.recorded is not None and self.recorded is not None:
                    self.recorded.enter(group.recorded, group.positions)
                    recall(group, same=group.continues)
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

    def _member(self, row: tuple[Any, ...], first_slot: int) -> tuple[bytes, tuple[Edge, ...]]:
        payload, found = dump_call(row, first_slot)
        return payload, self._edges(found, ())

    def _place_columns(
        self, call: MapCall, shared: bytes, edges: tuple[Edge, ...], context: tuple[bytes, ...]
    ) -> list[Part]:
        """Place a map whose elements are immutable, or values to come: no member is special."""
        size = len(call.columns[0])
        inputs = digest_rows(call.columns, *context)
        with self._lock:
            identities = self._identities.of_map(call.spec, inputs, call.columns)
            recorded = self._recorded_as(call.spec, identities)
            if recorded is None and self.recorded and self.recorded.knows(call.spec.name):
                # Some of its members may be there.
                rows = zip(*call.columns, strict=True)
                members: list[tuple[bytes, tuple[Edge, ...]]] = [
                    (dump_call(r)[0], ()) for r in rows
                ]
                return self._place(call, members, split_identities(identities), shared, edges)
            group = self._new_group(call.spec, call.tags, recorded, whole=True)
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
            group.identities = identities
            if recorded is not None:
                every = range(size)
                group.claim(every, self._answered(call.spec, recorded, every, edges))
            if size:
                self._add_group(group)
        return [(group, range(size))] if size else []

    def _place(
        self,
        call: MapCall,
        members: list[tuple[bytes, tuple[Edge, ...]]],
        identities: list[bytes],
        shared: bytes,
        edges: tuple[Edge, ...],
    ) -> list[Part]:
        """Place a map whose members may be special: its elements differ, or some are there."""
        whole = None if self.kept else self._recorded_as(call.spec, b"".join(identities))
        groups: dict[RecordedGroup | None, Group] = {}
        rows: dict[Group, list[int]] = {}
        claimed: dict[Group, list[int]] = {}
        placed: list[Part] = []
        for row, (payload, own_edges) in enumerate(members):
            identity = identities[row]
            if identity in self.kept:
                _append(placed, self.kept[identity])
                continue
            place = (whole, row) if whole else self._claim(call.spec, identity)
            recorded = place[0] if place else None
            if recorded not in groups:
                group = self._new_group(call.spec, call.tags, recorded, whole=whole is not None)
                group.mapped, group.shared, group.edges = True, shared, edges
                groups[recorded] = group
                rows[group] = []
            group = groups[recorded]
            _append(placed, _add_member(group, payload, identity, own_edges))
            rows[group].append(row)
            if place:
                claimed.setdefault(group, []).append(place[1])
        for group, places in rows.items():
            if len(places) != len(members):
                _pin(group, places)
            if group.recorded is not None:
                positions = claimed[group]
                own = [group.member_edges.get(index, ()) for index in range(group.size)]
                edges = group.edges
                flags = self._answered(call.spec, group.recorded, positions, edges, own)
                group.claim(positions, flags)
        if call.min_success is not None:
            _share_out(call.min_success.needed(len(members)), len(members), list(rows))
        for group in rows:
            self._add_group(group)
        return placed

    def _recorded_as(self, spec: TaskSpec, identities: bytes | bytearray) -> RecordedGroup | None:
        """Claim the recorded group that has just these members, if there is one."""
        return self.recorded.claim_group(spec.name, identities) if self.recorded else None

    def _claim(self, spec: TaskSpec, identity: bytes) -> tuple[RecordedGroup, int] | None:
        return self.recorded.claim(spec.name, identity) if self.recorded else None

    def _answered(
        self,
        spec: TaskSpec,
        recorded: RecordedGroup,
        positions: Sequence[int],
        edges: Sequence[Edge],
        own: Sequence[tuple[Edge, ...]] = (),
    ) -> bytearray:
        """Decide for each of these recorded task runs whether it answers the call that claimed it.

        Only if all that the call needs is answered, too.

        Args:
            spec: The task, as it is called now.
            recorded: Where they are recorded.
            positions: Their positions there.
            edges: What all of the calls need.
            own: What each of them needs beside that.

        Raises:
            NotResumable: One that may have run must not run twice.
        """
        assert self.recorded is not None  # noqa: S101 - somebody has claimed
        flags = self.recorded.answers(spec, recorded, positions)
        flags = answer_with_parents(flags, edges)
        for index, needed in enumerate(own):
            if needed and flags[index]:
                flags[index] = answer_with_parents(bytearray(b"\1"), needed)[0]
        self.recorded.settle(spec, recorded, positions, flags)
        return flags

    def _add_group(self, group: Group) -> None:
        """Add a group that is complete; only now it is known which indices its members have."""
        if not group.continues:
            group.first = self._next_index.get(group.spec.name, 0)
        self._count(group)
        self._segment.append(group)

    def _count(self, group: Group) -> None:
        if not group.continues:
            self._next_index[group.spec.name] = group.first + group.size

    def _open_group(
        self, spec: TaskSpec, tags: tuple[str, ...], recorded: RecordedGroup | None = None
    ) -> Group:
        goes_on = recorded is not None and self.recorded is not None and self.recorded.choice.same
        for group in reversed(self._segment):
            if group.spec.name != spec.name:
                continue
            alike = group.spec is spec and group.tags == tags and not group.mapped
            last = group.first + group.size == self._next_index.get(spec.name)
            if alike and group.recorded is recorded and (goes_on or last):
                return group
            if not (goes_on or group.continues):
                break
        group = self._new_group(spec, tags, recorded)
        self._segment.append(group)
        return group

    def _new_group(
        self,
        spec: TaskSpec,
        tags: tuple[str, ...],
        recorded: RecordedGroup | None = None,
        *,
        whole: bool = False,
    ) -> Group:
        first = self._next_index.get(spec.name, 0)
        group = Group(self._next_group, self.run_id, spec, first, tags=tags)
        if recorded is not None and self.recorded is not None:
            group.recorded = recorded
            group.continues = self.recorded.choice.same
            if whole and group.continues:
                group.id, group.first = recorded.id, recorded.first
        if group.id == self._next_group:
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


def _add_member(group: Group, payload: bytes, identity: bytes, edges: tuple[Edge, ...]) -> Member:
    index = group.size
    group.payloads.append(payload)
    group.size += 1
    group.identities += identity
    if edges:
        group.member_edges[index] = edges
    return group, index


def _share_out(needed: int, size: int, groups: Sequence[Group]) -> None:
    """Decide how many members of each group of one map have to succeed.

    Only what has succeeded already counts for the others: a group cannot know how they will end.

    Args:
        needed: How many members of the map have to succeed.
        size: How many it has; those that are in none of the groups have succeeded.
        groups: The groups.
    """
    answered = [group.answered.count(1) for group in groups]
    sure = size - sum(group.size for group in groups) + sum(answered)
    for group, own in zip(groups, answered, strict=True):
        group.min_success = max(0, needed - (sure - own))


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
