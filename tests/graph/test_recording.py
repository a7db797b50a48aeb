"""Calls become groups with edges; slots get their values."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysched import FutureError, TaskFuture, TaskFutureList, allow_failure, quote
from raysched.graph.builder import Builder
from raysched.graph.calls import Call, MapCall, Member
from raysched.graph.group import EdgeKind, Group
from raysched.graph.payload import dump_call, load_call
from raysched.model.options import TaskSpec


def nothing(*_: Any) -> None:
    """Stand for a user's function."""


SPEC = TaskSpec("work", nothing)
OTHER = TaskSpec("other", nothing)


def call(*args: Any, spec: TaskSpec = SPEC, **kwargs: Any) -> Call:
    """Return a call as the face makes it."""
    return Call(spec, args, kwargs, dict(enumerate(args)) | kwargs)  # type: ignore[arg-type]


def future(member: Member) -> TaskFuture[Any]:
    """Return the future of a task run that never runs."""
    return TaskFuture(None, *member)  # type: ignore[arg-type]


class TestGroups:
    def test_calls_of_one_task_are_one_group(self) -> None:
        builder = Builder("run")
        members = [builder.add_call(call(n)) for n in range(3)]
        (group,) = builder.take()
        assert members == [(group, 0), (group, 1), (group, 2)]
        assert (group.size, group.first, group.key(2)) == (3, 0, "work[2]")

    def test_take_begins_another_one(self) -> None:
        builder = Builder("run")
        builder.add_call(call(1))
        builder.take()
        group, index = builder.add_call(call(2))
        assert (index, group.first, group.id) == (0, 1, 1)

    def test_numbers_follow_the_calls(self) -> None:
        builder = Builder("run")
        keys = []
        for spec in (SPEC, OTHER, SPEC):
            group, index = builder.add_call(call(1, spec=spec))
            keys.append(group.key(index))
        parts = builder.add_map(MapCall(SPEC, ("x",), [[1, 2]], {}))
        keys += [group.key(index) for group, indices in parts for index in indices]
        group, index = builder.add_call(call(1))
        keys.append(group.key(index))
        assert keys == ["work[0]", "other[0]", "work[1]", "work[2]", "work[3]", "work[4]"]

    @given(st.lists(st.integers(0, 3), max_size=30))
    def test_keys_are_unique(self, kinds: list[int]) -> None:
        builder = Builder("run")
        again = TaskSpec("work", nothing)  # other options, the same name
        keys: list[str] = []
        for kind in kinds:
            if kind == 3:
                builder.take()
            elif kind == 2:
                parts = builder.add_map(MapCall(SPEC, ("x",), [[0, 0]], {}))
                keys += [group.key(index) for group, indices in parts for index in indices]
            else:
                group, index = builder.add_call(call(0, spec=again if kind else SPEC))
                keys.append(group.key(index))
        assert keys == [f"work[{n}]" for n in range(len(keys))]

    def test_threads(self) -> None:
        builder = Builder("run")
        threads = [
            threading.Thread(target=lambda: [builder.add_call(call(n)) for n in range(200)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (group,) = builder.take()
        identities = {group.identity(index) for index in range(group.size)}
        assert (group.size, len(identities)) == (800, 800)


class TestIdentities:
    def test_of_equal_calls_count_them(self) -> None:
        def identities(values: Sequence[int]) -> list[bytes]:
            builder = Builder("run")
            members = [builder.add_call(call(value)) for value in values]
            return [group.identity(index) for group, index in members]

        first, second, other = identities([1, 1, 2])
        assert len({first, second, other}) == 3
        # Neither the run nor the order of different calls enters.
        assert identities([2, 1, 1]) == [other, first, second]

    def test_of_followers_are_those_of_their_inputs(self) -> None:
        def identity(first: int) -> bytes:
            builder = Builder("run")
            parent = future(builder.add_call(call(first)))
            group, index = builder.add_call(call([parent], spec=OTHER))
            return group.identity(index)

        assert identity(1) == identity(1) != identity(2)

    def test_of_maps_are_per_element(self) -> None:
        def identities(values: list[int]) -> list[bytes]:
            builder = Builder("run")
            ((parent, _),) = builder.add_map(MapCall(SPEC, ("x",), [values], {}))
            columns = [[None] * len(values)]
            child = MapCall(OTHER, ("x",), columns, {}, aligned={"x": (parent, 0)})
            ((group, indices),) = builder.add_map(child)
            return [group.identity(index) for index in indices]

        assert identities([1, 2, 3])[1:] == identities([2, 3])

    def test_of_a_map_handed_on_whole(self) -> None:
        builder = Builder("run")
        ((group, _),) = builder.add_map(MapCall(SPEC, ("x",), [range(4)], {}))
        whole = TaskFutureList[Any](None, [(group, range(4))])  # type: ignore[arg-type]
        pieces = TaskFutureList[Any](None, [(group, range(2)), (group, range(2, 4))])  # type: ignore[arg-type]
        assert whole.identity() == pieces.identity() != whole[:3].identity()

    def test_allowing_failure_is_another_input(self) -> None:
        builder = Builder("run")
        parent = future(builder.add_call(call(1)))
        strict = builder.add_call(call(parent, spec=OTHER))
        lenient = builder.add_call(call(allow_failure(parent), spec=OTHER))
        assert strict[0].identity(strict[1]) != lenient[0].identity(lenient[1])

    def test_scope_counts(self) -> None:
        one, other = (Builder("run", scope).add_call(call(1)) for scope in (b"a", b"b"))
        assert one[0].identity(0) != other[0].identity(0)


class TestKept:
    def test_equal_calls_are_answered(self) -> None:
        builder = Builder("run")
        group, index = builder.add_call(call(1))
        builder.take()
        builder.restart({group.identity(index): (group, index)})
        assert builder.add_call(call(1)) == (group, index)
        assert builder.add_call(call(1)) != (group, index)

    @given(st.sets(st.integers(0, 9)))
    def test_maps_run_the_rest(self, kept: set[int]) -> None:
        builder = Builder("run")
        source = MapCall(OTHER, ("x",), [range(10)], {})
        ((parent, _),) = builder.add_map(source)

        def mapped() -> list[Member]:
            aligned: dict[str, Member] = {"x": (parent, 0)}
            parts = builder.add_map(MapCall(SPEC, ("x",), [[None] * 10], {}, aligned=aligned))
            return [(group, index) for group, indices in parts for index in indices]

        first = mapped()
        builder.take()
        builder.restart({first[n][0].identity(n): first[n] for n in kept})
        second = mapped()
        assert [second[n] == first[n] for n in range(10)] == [n in kept for n in range(10)]
        for n, (group, index) in enumerate(second):
            edges = list(group.slots_of(index))
            at = [e.index + index if e.kind is EdgeKind.ONE_TO_ONE else e.index for e in edges]
            assert (edges[0].parent, at) == (parent, [n])


VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.sampled_from(["future", "list"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


@given(VALUES, st.integers(0, 3))
def test_every_slot_gets_its_value(shape: Any, first: int) -> None:
    group = Group(0, "run", SPEC, 0)
    futures = 0

    def filled(value: Any, *, with_futures: bool) -> Any:
        nonlocal futures
        if isinstance(value, list):
            return [filled(item, with_futures=with_futures) for item in value]
        if isinstance(value, dict):
            return {key: filled(item, with_futures=with_futures) for key, item in value.items()}
        if value == "future":
            futures += 1
            return future((group, futures)) if with_futures else ("value of", futures)
        if value == "list":
            futures += 1
            part = (group, range(futures, futures + 2))
            some = TaskFutureList[Any](None, [part])  # type: ignore[arg-type]
            return some if with_futures else ("values of", futures, futures + 2)
        return value

    payload, found = dump_call(filled(shape, with_futures=True), first)
    edges = [dependency.edge() for dependency in found]
    assert [edge.index for edge in edges] == list(range(1, len(edges) + 1))

    def value_of(number: int) -> Any:
        edge = edges[number - first]
        if edge.kind is EdgeKind.GATHER:
            return "values of", edge.index, edge.stop
        return "value of", edge.index

    futures = 0
    assert load_call(payload, value_of) == filled(shape, with_futures=False)


def test_values_of_slots_are_asked_for_only_in_task_runs() -> None:
    import pickle

    payload, _ = dump_call(future((Group(0, "run", SPEC, 0), 0)))
    with pytest.raises(TypeError, match="outside a task run"):
        pickle.loads(payload)


def test_a_quoted_future_is_refused() -> None:
    with pytest.raises(FutureError, match="cannot be pickled"):
        dump_call(quote(future((Group(0, "run", SPEC, 0), 0))))
