"""From a unit of the tracker to a call of a backend, and from its report to an event."""

from collections.abc import Callable, Sequence
from typing import Any

from raysched.engine.units import unit_call, unit_ended
from raysched.graph.builder import Builder
from raysched.graph.calls import Part
from raysched.graph.payload import load_call
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, LargeValue, Value
from raysched.results.envelope import decode
from raysched.tracker.messages import Dispatch
from raysched.worker.protocol import FAILURE, INLINE, LARGE, LIST, Report, Unit, decode_unit
from tracker.graphs import add, add_map, every, one, spec


def completed(part: Part, values: Sequence[Value]) -> None:
    """Let the members of a part have these values."""
    group, indices = part
    for index, value in zip(indices, values, strict=True):
        group.states[index] = StateType.COMPLETED
        group.values[index] = value


def sent(part: Part, *indices: int) -> tuple[Unit, tuple[Any, ...]]:
    """Return the unit of these members as the worker decodes it, and its handles."""
    group, _ = part
    call = unit_call(3, Dispatch(0, group, indices, [1] * len(indices), 0.2), b"header")
    assert (call.id, call.specs) == (3, (group.spec,))
    return decode_unit(call.frame), call.handles


class Graph:
    """Two values, a map over three, and one that failed, all ended."""

    def __init__(self) -> None:
        self.builder = Builder("run")
        self.model = add(self.builder, spec("model"))
        (self.rows,) = add_map(self.builder, spec("rows"), range(3))
        self.failed = add(self.builder, spec("failed"))

    def end(self, values: Callable[[int], Value] = lambda n: b"row %d" % n) -> None:
        self.builder.take()
        completed(self.model, [b"model"])
        completed(self.rows, [values(n) for n in range(3)])
        self.failed[0].states[0] = StateType.FAILED
        self.failed[0].errors[0] = ErrorInfo("builtins.OSError", "away")


def test_values_stand_in_the_order_of_the_slots() -> None:
    graph = Graph()
    task = add(graph.builder, spec("task"), one(graph.rows, 2), 5, one(graph.model))
    graph.end()
    unit, handles = sent(task, 0)
    (stage,) = unit.stages
    (slots,) = stage.slots
    assert slots == ((INLINE, b"row 2"), (INLINE, b"model"))
    assert load_call(stage.payloads[0], lambda n: slots[n][1]) == ((b"row 2", 5, b"model"), {})
    assert handles == ()


def test_a_map_shares_what_is_the_same_for_all() -> None:
    graph = Graph()
    (mapped,) = add_map(graph.builder, spec("task"), graph.rows, static=[every(graph.rows)])
    graph.end()
    unit, _ = sent(mapped, 1, 2)
    everything = (LIST, [(INLINE, b"row 0"), (INLINE, b"row 1"), (INLINE, b"row 2")])
    (stage,) = unit.stages
    assert list(stage.numbers) == [1, 2]
    assert stage.slots == [
        (everything, (INLINE, b"row 1")),
        (everything, (INLINE, b"row 2")),
    ]
    assert stage.mapped


def test_own_slots_come_after_shared_ones_and_order_has_none() -> None:
    graph = Graph()
    (mapped,) = add_map(
        graph.builder,
        spec("task"),
        [one(graph.rows, 0), 7],
        static=one(graph.model),
        wait_for=[one(graph.rows, 1)],
    )
    graph.end()
    unit, _ = sent(mapped, 0, 1)
    assert unit.stages[0].slots == [
        ((INLINE, b"model"), (INLINE, b"row 0")),
        ((INLINE, b"model"),),
    ]


def test_a_failure_that_may_pass_arrives_as_its_exception() -> None:
    graph = Graph()
    task = add(graph.builder, spec("task"), one(graph.failed, allow_failure=True))
    graph.end()
    unit, _ = sent(task, 0)
    (((kind, envelope),),) = unit.stages[0].slots
    assert kind == FAILURE
    assert str(decode(envelope)) == "failed[0] failed: OSError: away"


def test_large_values_are_passed_by_handle_each_unit_of_them_once() -> None:
    graph = Graph()
    task = add(graph.builder, spec("task"), every(graph.rows), one(graph.model))
    one_handle, other_handle = object(), object()
    graph.end(lambda n: LargeValue(one_handle if n < 2 else other_handle, n, 10**6))
    unit, handles = sent(task, 0)
    assert handles == (one_handle, other_handle)
    assert unit.stages[0].slots == [
        ((LIST, [(LARGE, (0, 0)), (LARGE, (0, 1)), (LARGE, (1, 2))]), (INLINE, b"model"))
    ]


def test_a_report_becomes_an_event_with_references_to_large_values() -> None:
    handle = object()
    error = ErrorInfo("builtins.OSError", "away")
    report = Report(
        9,
        positions=[1, 0, 2],
        states=bytes([16, 19, 16]),
        started=[1, 2, 3],
        ended=[4, 5, 6],
        values=[b"small", None, (0, 10**6, "")],
        errors={0: error},
        names={1: "named"},
    )
    event = unit_ended(4, report, handle)
    assert (event.unit, event.positions, event.states) == (4, [1, 0, 2], bytes([16, 19, 16]))
    assert event.values == [b"small", None, LargeValue(handle, 0, 10**6)]
    assert (event.errors, event.names) == ({0: error}, {1: "named"})
