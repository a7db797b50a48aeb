import asyncio
from typing import Any

import pytest

from raysched import FlowPlan, ParameterError, flow, task
from raysched.graph.group import EdgeKind


@task
def double(x: int) -> int:
    raise AssertionError("nothing runs")


@task
async def later(x: int) -> int:
    raise AssertionError("nothing runs")


@task
def total(values: list[int], *more: int) -> int:
    raise AssertionError("nothing runs")


def sizes(plan: FlowPlan) -> list[tuple[str, int]]:
    """Return name and size of each group."""
    return [(group.spec.name, group.size) for group in plan.groups]


def test_records_until_the_first_wait() -> None:
    @flow
    def nightly(n: int) -> Any:
        doubled = double.map(range(n))
        added = total.submit(doubled)
        double(1)
        return double.submit(added)

    plan = nightly.plan("4")  # type: ignore[arg-type]
    assert (plan.flow, plan.continues) == ("nightly", True)
    assert sizes(plan) == [("double", 4), ("total", 1), ("double", 1)]
    (edge,) = plan.groups[1].edges_of(0)
    assert (edge.kind, edge.parent, edge.index, edge.stop) == (
        EdgeKind.GATHER,
        plan.groups[0],
        0,
        4,
    )


def test_is_whole_where_nothing_is_waited_for() -> None:
    plan = flow(lambda: double.map(double.map([1, 2])), name="f").plan()
    assert (plan.continues, sizes(plan)) == (False, [("double", 2), ("double", 2)])
    assert [edge.kind for edge in plan.groups[1].edges] == [EdgeKind.ONE_TO_ONE]


@pytest.mark.parametrize(
    "wait",
    [
        lambda f: f.result(),
        lambda f: f.wait(),
        double.map,
        lambda f: f.result(timeout=5),
    ],
    ids=["result", "wait", "map", "timeout"],
)
def test_what_waits(wait: Any) -> None:
    plan = flow(lambda: (wait(double.submit(1)), double.submit(2)), name="f").plan()
    assert (plan.continues, sizes(plan)) == (True, [("double", 1)])


def test_subflows() -> None:
    @flow
    def inner() -> None:
        double.map([1, 2]).wait()

    @flow
    def outer() -> None:
        inner()

    plan = outer.plan()
    assert (plan.continues, plan.groups) == (True, ())
    assert [(sub.flow, sub.continues, sizes(sub)) for sub in plan.subflows] == [
        ("inner", True, [("double", 2)])
    ]


def test_async_flows() -> None:
    @flow
    async def gathering(n: int) -> None:
        await asyncio.gather(*(later(i) for i in range(n)))

    assert sizes(gathering.plan(3)) == [("later", 3)]

    async def beside_a_loop() -> FlowPlan:
        return gathering.plan(2)

    assert sizes(asyncio.run(beside_a_loop())) == [("later", 2)]


def test_parameters_are_checked() -> None:
    with pytest.raises(ParameterError, match="parameter 'x'"):
        flow(double.fn, name="f").plan("x")  # type: ignore[arg-type]


def test_errors_of_the_flow_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        flow(lambda: 1 / 0, name="f").plan()


def test_no_run_is_kept() -> None:
    from raysched import runtime

    assert flow(lambda: double.submit(runtime.flow_run.id), name="f").plan().groups
    assert runtime.flow_run.id is None
