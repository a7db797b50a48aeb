"""The cache keys of members of a group, in bulk."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from raysched.define.sources import source_digest
from raysched.engine.cache_files import FileDigests, paths_in
from raysched.engine.cache_inputs import (
    FETCHED_BYTES,
    Contents,
    NotKeyable,
    RowsAlike,
    arguments,
    content_of,
    rows_alike,
    stand_in,
)
from raysched.engine.callbacks import task_run_view
from raysched.engine.inputs import needed_members
from raysched.errors import RayschedError
from raysched.graph.digest import task_label
from raysched.graph.group import Edge, EdgeKind, Group
from raysched.model.caching import CacheOptions, CachePart
from raysched.model.ids import IDENTITY_BYTES
from raysched.model.runs import TaskRun
from raysched.model.states import SUCCESSES, StateType
from raysched.model.values import ErrorInfo
from raysched.policies.cache import (
    FILES,
    PARAMETER,
    RUN,
    SOURCE,
    cache_key,
    cache_keys,
    named_key,
)
from raysched.results.envelope import decode
from raysched.worker.failures import describe_error

if TYPE_CHECKING:
    from raysched.engine.flow_run import OpenFlowRun

FIRST = 500
"""Members whose keys are asked for together at first, so that the first of them begin soon."""

MOST = 16_000
"""Members whose keys are asked for together later, twice as many each time: the fewer transactions
there are, the fewer pages each key writes; one of so many takes some 100 ms."""


@dataclass(frozen=True, slots=True)
class CacheKeyContext:
    """What a `cache_key_fn` is told of the task run beside its arguments; names as in Prefect.

    Attributes:
        task: The task.
        task_run: The task run.
        parameters: The arguments by parameter name, with defaults.
        flow_parameters: The parameters of the flow run.
    """

    task: Any
    task_run: TaskRun
    parameters: Mapping[str, Any]
    flow_parameters: Mapping[str, Any]


@dataclass(slots=True)
class Found:
    """What was found out about members of a group.

    Attributes:
        keys: The keys by member.
        parts: Of each of them, what it was made of (see `CacheClaim.parts`).
        without: Why others have none, for people.
        errors: Of those whose `cache_key_fn` failed.
    """

    keys: dict[int, bytes] = field(default_factory=dict)
    parts: dict[int, str] = field(default_factory=dict)
    without: dict[int, str] = field(default_factory=dict)
    errors: dict[int, ErrorInfo] = field(default_factory=dict)

    def add(self, index: int, key: tuple[bytes, str]) -> None:
        """Add the key of a member, with its parts."""
        self.keys[index], self.parts[index] = key


class CacheKeys:
    """Makes cache keys. In one thread: user code runs in it."""

    def __init__(self) -> None:
        self._files = FileDigests()
        self._parameters: WeakKeyDictionary[OpenFlowRun, Mapping[str, Any]] = WeakKeyDictionary()
        self._flow_parts: WeakKeyDictionary[OpenFlowRun, Mapping[str, bytes]] = WeakKeyDictionary()

    def find(self, run: "OpenFlowRun", group: Group, indices: Sequence[int]) -> Iterator[Found]:
        """Yield the keys of members of one group, some after the other."""
        options = group.spec.cache
        assert options is not None  # noqa: S101 - otherwise nobody asks
        making = _Making(self, run, group, options)
        start, step = 0, FIRST
        while start < len(indices):
            yield making.keys(indices[start : start + step])
            start += step
            step = min(2 * step, MOST if options.key_fn is None else FIRST)

    def parameters(self, run: "OpenFlowRun") -> Mapping[str, Any]:
        """Return the parameters of a flow run as they were when it was opened, where kept."""
        known = self._parameters.get(run)
        if known is None:
            kept = run.row.pickled_parameters
            known = self._parameters[run] = decode(kept) if kept else dict(run.start.parameters)
        return known

    def parts_of_flow(self, run: "OpenFlowRun") -> Mapping[str, bytes]:
        """Return the digests of the parameters of a flow run, by the name of the part.

        Raises:
            NotKeyable: One cannot be pickled.
        """
        known = self._flow_parts.get(run)
        if known is None:
            known = self._flow_parts[run] = {
                PARAMETER + name: content_of(name, value)
                for name, value in self.parameters(run).items()
            }
        return known

    def files_of(self, found: Mapping[str, Any], without: frozenset[str]) -> dict[str, bytes]:
        """Return the digests of the files that arguments name, by the name of the part.

        Raises:
            NotKeyable: One cannot be read.
        """
        parts = {}
        for name, value in found.items():
            paths = list(paths_in(value)) if name not in without else []
            if not paths:
                continue
            try:
                parts[FILES + name] = self._files.of(paths)
            except OSError as error:
                raise NotKeyable(f"what argument {name!r} names cannot be read: {error}") from error
        return parts


class _Making:
    """Makes the keys of members of one group."""

    def __init__(
        self, keys: CacheKeys, run: "OpenFlowRun", group: Group, options: CacheOptions
    ) -> None:
        self._keys = keys
        self._run = run
        self._group = group
        self._options = options
        self._contents = Contents()
        self._alike: RowsAlike | None = None
        self._looked = False

    @functools.cached_property
    def _label(self) -> bytes:
        return task_label(self._group.spec.name, self._group.spec.fn)

    def keys(self, indices: Sequence[int]) -> Found:
        """Return the keys of some members."""
        found = Found()
        try:
            if self._options.key_fn is None and self._in_columns(indices, found):
                return found
        except NotKeyable:
            # It may be so for some only.
            found = Found()
        for index in indices:
            try:
                self._one(index, found)
            except NotKeyable as error:
                found.without[index] = str(error)
        return found

    def _in_columns(self, indices: Sequence[int], found: Found) -> bool:
        """Make the keys of rows that are alike; return whether they are."""
        if not self._looked:
            self._looked = True
            self._alike = rows_alike(self._group, indices[0], self._contents)
        alike, parts = self._alike, self._options.parts
        if alike is None or (CachePart.FILES in parts and alike.may_name_files):
            return False
        fixed = self._common()
        if CachePart.FILES in parts:
            fixed |= self._keys.files_of(alike.fixed, self._options.without_files)
        columns: dict[str, list[bytes]] = {}
        if CachePart.INPUTS in parts:
            fixed |= self._inputs(alike.fixed)
            columns = alike.columns(indices, self._options.without)
        if not fixed and not columns and CachePart.INPUTS not in parts:
            return False
        if columns:
            keys, told = cache_keys(self._label, fixed, columns)
            found.keys = dict(zip(indices, keys, strict=True))
            found.parts = dict(zip(indices, told, strict=True))
        else:
            key, text = cache_key(self._label, fixed)
            found.keys, found.parts = dict.fromkeys(indices, key), dict.fromkeys(indices, text)
        return True

    def _one(self, index: int, found: Found) -> None:
        if self._options.key_fn is not None:
            self._ask(index, found)
            return
        parts = self._common()
        if CachePart.INPUTS in self._options.parts:
            content = self._contents.stand_in
            given = arguments(self._group, index, lambda edge: content(edge, index), stand_in)
            if not given and not parts:
                raise NotKeyable("it has no arguments, so its cache_policy leads to no key")
            parts |= self._inputs(given)
        if CachePart.FILES in self._options.parts:
            live = arguments(self._group, index, lambda edge: self._live(edge, index), stand_in)
            parts |= self._keys.files_of(live, self._options.without_files)
        if not parts:
            raise NotKeyable("its cache_policy leads to no key: the flow run has no parameters")
        found.add(index, cache_key(self._label, parts))

    def _common(self) -> dict[str, bytes]:
        """Return the parts that all members have in common, whatever their arguments."""
        parts: dict[str, bytes] = {}
        for part in self._options.parts:
            if part is CachePart.TASK_SOURCE:
                parts[SOURCE] = bytes.fromhex(source_digest(self._group.spec.fn)) * 2
            elif part is CachePart.RUN_ID:
                parts[RUN] = blake2b(self._run.row.id.encode(), digest_size=IDENTITY_BYTES).digest()
            elif part is CachePart.FLOW_PARAMETERS:
                parts |= self._keys.parts_of_flow(self._run)
        return parts

    def _inputs(self, given: Mapping[str, Any]) -> dict[str, bytes]:
        without = self._options.without
        return {n: content_of(n, value) for n, value in given.items() if n not in without}

    def _live(self, edge: Edge, index: int) -> Any:
        """Return the value that an edge brings to a member.

        Raises:
            NotKeyable: It is too large for the driver, or cannot be had.
        """
        parent, members = edge.parent, needed_members(edge, index)
        if edge.kind is not EdgeKind.GATHER:
            return self._value(parent, members.start)
        left_out = parent.min_success is not None
        return [
            self._value(parent, member)
            for member in members
            if not left_out or parent.states[member] in SUCCESSES
        ]

    def _value(self, parent: Group, member: int) -> Any:
        if StateType(parent.states[member]) not in SUCCESSES:
            return self._run.error((parent, member))
        key = parent.key(member)
        try:
            value = parent.value(member)
            size = len(value) if isinstance(value, bytes) else value.size
            if size <= FETCHED_BYTES:
                return self._run.fetch(value)
        except RayschedError as error:
            raise NotKeyable(f"the result of {key} cannot be had: {error}") from error
        raise NotKeyable(
            f"the result of {key} has {size:,} bytes, and more than {FETCHED_BYTES:,} are not "
            "fetched for a cache key"
        )

    def _ask(self, index: int, found: Found) -> None:
        """Have the user's `cache_key_fn` name the key; its failure is the task run's."""
        spec, key_fn = self._group.spec, self._options.key_fn
        assert key_fn is not None  # noqa: S101 - see _one
        live = arguments(self._group, index, lambda edge: self._live(edge, index), stand_in)
        view = task_run_view(self._group, index)
        context = CacheKeyContext(spec.task, view, live, self._keys.parameters(self._run))
        try:
            name = key_fn(context, live)
            if name is not None and not isinstance(name, str):
                raise TypeError(  # noqa: TRY301 - it is the user's error like any other
                    f"cache_key_fn of task {spec.name!r} returned {type(name).__name__}: it must "
                    "return a text, or None for no caching"
                )
        except Exception as error:  # noqa: BLE001 - it is the user's
            found.errors[index] = describe_error(error, name=spec.name)
            return
        if name is None:
            found.without[index] = ""
        else:
            found.add(index, named_key(name))
