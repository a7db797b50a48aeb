"""What an attempt ran itself finds its place in the flow run, numbered as the others there."""

import json
from dataclasses import replace

import msgpack

from raysched.engine.placing import NestedRows, place, plain
from raysched.graph.builder import Builder
from raysched.model.rows import (
    AttemptRow,
    Batch,
    FlowRunRow,
    GroupRow,
    LogRow,
    PlaceRow,
    TaskRunColumns,
)
from raysched.model.states import StateType
from tracker.graphs import add, spec

WHERE = PlaceRow(5, "node", "worker", 17, "host")
"""The place of the attempt."""


def columns(group: int, **others: object) -> TaskRunColumns:
    return TaskRunColumns(group, [0], [16], [1], [1], [2], [None], [0], **others)  # type: ignore[arg-type]


def placed(*batches: Batch, flow_runs: tuple[FlowRunRow, ...] = ()) -> tuple[Batch, list[object]]:
    """Place rows behind two groups and three calls of `load`, as they arrive on the wire."""
    builder = Builder("run")
    for name in ("load", "load", "other", "load"):
        add(builder, spec(name))
    data = msgpack.packb(plain(NestedRows(list(flow_runs), list(batches))))
    unpacked = msgpack.unpackb(data, use_list=False, strict_map_key=False)
    own = Batch(7)
    called = place(builder, unpacked, own, "outer[1]", WHERE)
    return own, list(called)


def test_groups_get_numbers_that_are_free() -> None:
    own, _ = placed(Batch(0, groups=[GroupRow(0, "load", 0, 2), GroupRow(1, "clean", 0, 1)]))
    assert own.run == 7
    first = own.groups[0].id
    assert [(row.id, row.task, row.first, row.parent_key) for row in own.groups] == [
        (first, "load", 3, "outer[1]"),
        (first + 1, "clean", 0, "outer[1]"),
    ]


def test_rows_follow_their_groups() -> None:
    attempt = AttemptRow(1, 0, 2, StateType.FAILED, 1, 2)
    logs = [LogRow(1, 0, 1, 5, 20, "a", "of a task"), LogRow(-1, 0, 1, 5, 20, "a", "of none")]
    own, _ = placed(
        Batch(0, groups=[GroupRow(0, "load", 0, 2), GroupRow(1, "clean", 0, 1)]),
        Batch(0, task_runs=[columns(1)], attempts=[attempt], logs=logs),
    )
    clean = own.groups[1].id
    assert own.task_runs[0].group == clean
    assert own.attempts[0].group == clean
    assert [log.group for log in own.logs] == [clean, -1]


def test_edges_lead_to_the_same_groups() -> None:
    edges = json.dumps([[0, "gather", 0, 2]])
    own, _ = placed(
        Batch(0, groups=[GroupRow(0, "load", 0, 2), GroupRow(1, "clean", 0, 1, edges=edges)])
    )
    assert json.loads(own.groups[1].edges) == [[own.groups[0].id, "gather", 0, 2]]


def test_plans_and_units_are_of_the_same_groups() -> None:
    plan = json.dumps({"unit_size": 5, "fused_behind": 0})
    own, _ = placed(
        Batch(0, groups=[GroupRow(0, "load", 0, 2), GroupRow(1, "clean", 0, 2, plan=plan)]),
        Batch(0, units={0: 1, 1: 0}),
    )
    load, clean = own.groups
    assert load.plan is None
    assert json.loads(str(clean.plan)) == {"unit_size": 5, "fused_behind": load.id}
    assert own.units == {load.id: 1, clean.id: 0}


def test_roots_name_the_same_task_runs() -> None:
    own, _ = placed(
        Batch(
            0,
            groups=[GroupRow(0, "load", 0, 2), GroupRow(1, "clean", 0, 1)],
            task_runs=[columns(1, roots={0: ("load[1]",)}, handled=frozenset({0}))],
        )
    )
    assert own.task_runs[0].roots == {0: ("load[4]",)}
    assert own.task_runs[0].handled == {0}


def test_what_it_ran_was_where_it_was_itself() -> None:
    attempt = AttemptRow(0, 0, 1, StateType.FAILED, 1, 2, place=1)
    here = PlaceRow(1, "", "", 17, "host")
    group = GroupRow(0, "load", 0, 1)
    told = Batch(0, places=[here], task_runs=[columns(0, places=[1])], attempts=[attempt])
    child = FlowRunRow("child", "flow", "child-name", StateType.COMPLETED)
    own, called = placed(Batch(0, groups=[group]), told, replace(told, run=1), flow_runs=(child,))
    assert own.places == []
    assert own.task_runs[0].places == [WHERE.id]
    assert own.attempts[0].place == WHERE.id
    (_, (batch,)) = called[0]  # type: ignore[misc]
    assert batch.places == [PlaceRow(1, "node", "worker", 17, "host")]  # type: ignore[has-type]
    assert batch.task_runs[0].places == (1,)  # type: ignore[has-type]


def test_flow_runs_come_with_their_own_batches() -> None:
    row = FlowRunRow("child", "flow", "child-name", StateType.COMPLETED)
    _, called = placed(Batch(1, groups=[GroupRow(0, "load", 0, 1)]), flow_runs=(row,))
    ((called_row, batches),) = called  # type: ignore[misc]
    assert (called_row.parent, called_row.parent_key) == ("run", "outer[1]")  # type: ignore[has-type]
    assert [batch.groups[0].first for batch in batches] == [0]  # type: ignore[has-type]
