"""What the database keeps of task runs that failed, so that people and tools can look into it."""

import json
import pickle
from typing import Any

import pytest

from engine.committed import Committed
from face.around import caught
from raysched import flow, task
from raysched.engine.inputs import MAX_BYTES, MAX_SOURCES
from raysched.model.rows import InputRow


@task
def load(path: str) -> str:
    return path


@task
def total(*args: Any, **kwargs: Any) -> None:
    raise ValueError("broken")


@task
def broken(item: Any, extra: Any = None) -> None:
    if item != "fine":
        raise ValueError(item)


def run(body: Any) -> None:
    """Call something as the code of a flow; all failures are told."""
    caught(flow(lambda: body().wait(), name="around"))


def keyed(committed: Committed) -> dict[tuple[int, int], InputRow]:
    return {(row.group, row.index): row for row in committed.inputs()}


def test_of_a_map_over_plain_values_are_its_rows(committed: Committed) -> None:
    run(lambda: broken.map([1, 2]))
    rows = keyed(committed)
    assert pickle.loads(rows[0, 0].payload) == (1,)
    assert pickle.loads(rows[0, 1].payload) == (2,)
    assert json.loads(rows[0, 0].slots) == []
    # What the members have in common is kept once for all of them.
    assert rows[0, -1].payload


def test_of_a_call_are_its_payload_and_where_its_values_come_from(committed: Committed) -> None:
    def body() -> Any:
        parts = load.map(["a", "b", "c"])
        return total.submit(parts, parts[1], 3)

    run(body)
    (row,) = [each for each in committed.inputs() if each.index >= 0]
    assert row.payload
    assert json.loads(row.slots) == [
        ["gather", 0, 0, 3, False],
        ["broadcast", 0, 1, 2, False],
    ]


def test_of_a_map_over_a_map_are_one_slot_each(committed: Committed) -> None:
    run(lambda: broken.map(load.map(["a", "fine", "c"])))
    rows = {row.index: json.loads(row.slots) for row in committed.inputs() if row.index >= 0}
    assert rows == {0: [["one_to_one", 0, 0, 1, False]], 2: [["one_to_one", 0, 2, 3, False]]}


def test_are_kept_of_those_alone_that_failed_for_good(committed: Committed) -> None:
    run(lambda: broken.with_options(retries=1, retry_delay_seconds=60).map(["fine", "bad"]))
    assert [index for _, index in keyed(committed) if index >= 0] == [1]
    batch = next(each for each in committed.batches if each.inputs)
    assert batch.attempts[-1].attempt == 2


def test_are_not_kept_where_they_are_large(committed: Committed) -> None:
    run(lambda: broken.submit(bytes(MAX_BYTES)))
    assert not committed.inputs()


@pytest.mark.parametrize("width", [3, MAX_SOURCES + 10])
def test_name_the_task_runs_that_they_came_from(committed: Committed, width: int) -> None:
    def body() -> Any:
        parts = load.map([str(number) for number in range(width)])
        return broken.submit(parts[1], extra=[parts, 1])

    run(body)
    (attempt,) = committed.attempts()
    assert attempt.error is not None
    told = {each["name"]: each for each in attempt.error.evidence["inputs"]}
    assert told["item"]["sources"] == ["load[1]"]
    assert told["extra"]["sources"] == [f"load[{n}]" for n in range(min(width, MAX_SOURCES))]
    assert "slots" not in told["item"]
