"""A value in the place of one that failed for good."""

from pathlib import Path
from typing import Any

import pytest

from face.around import caught, in_flow
from raysched import StateType, flow, get_run, quote, runtime, task


def read(path: str, rows: int = 3) -> list[int]:
    if path == "broken":
        raise ValueError(path)
    return [1] * rows


@task
def total(rows: Any) -> int:
    return int(sum(rows))


def test_a_value() -> None:
    safe = task(read, fallback=[0, 0])
    assert in_flow(lambda: safe("broken")) == [0, 0]
    assert in_flow(lambda: safe("fine")) == [1, 1, 1]


def test_each_gets_a_copy() -> None:
    safe = task(read, fallback=[])

    def body() -> list[Any]:
        some, other = safe.map(["broken", "broken"]).result()
        some.append(3)
        return other

    assert in_flow(body) == []


@pytest.mark.parametrize("value", [None, len], ids=repr)
def test_quoted(value: Any) -> None:
    assert in_flow(task(read, fallback=quote(value)), "broken") is value


def test_a_function() -> None:
    def instead(path: str, rows: int = 3) -> list[Any]:
        return [path] * rows

    safe = task(read, fallback=instead)
    assert in_flow(lambda: safe("broken")) == ["broken"] * 3
    assert in_flow(lambda: safe("broken", rows=1)) == ["broken"]
    assert in_flow(lambda: safe.map(["broken", "fine"]).result()) == [["broken"] * 3, [1, 1, 1]]


def test_a_task() -> None:
    @task(name="instead")
    def instead(path: str, rows: int = 3) -> list[int]:
        return [len(path) * rows]

    assert in_flow(task(read, fallback=instead), "broken") == [18]


def test_after_the_last_attempt(tmp_path: Path) -> None:
    def count(path: str) -> str:
        with (tmp_path / path).open("a") as file:
            file.write("x")
        raise ValueError(path)

    safe = task(count, retries=2, fallback="nothing")
    assert in_flow(safe, "tried") == "nothing"
    assert (tmp_path / "tried").read_text() == "xxx"


def test_what_needs_it_runs() -> None:
    safe = task(read, fallback=[5])
    assert in_flow(lambda: total(safe.submit("broken"))) == 5
    assert in_flow(lambda: total.map(safe.map(["broken", "fine"])).result()) == [5, 3]


def test_it_is_told() -> None:
    safe = task(read, name="read", fallback=[0])

    @flow
    def body() -> str:
        future = safe.submit("broken")
        future.wait()
        assert future.state.type is StateType.COMPLETED
        return str(runtime.flow_run.id)

    run = get_run(body())
    assert (run.state.type, run.message) == (StateType.COMPLETED, "1 failure handled")
    (row,) = run.task_runs()
    assert row.state.type is StateType.COMPLETED
    assert "fallback" in row.reason
    assert [attempt.state for attempt in row.history] == [StateType.FAILED]


def test_one_that_fails_too() -> None:
    def instead(path: str, rows: int = 3) -> list[int]:
        raise KeyError(path, rows)

    text = in_flow(caught, lambda: task(read, fallback=instead)("broken"))
    assert text == "KeyError: ('broken', 3)"


def test_of_what_failed_upstream_there_is_none() -> None:
    safe = total.with_options(fallback=0)
    broken = task(read)
    assert in_flow(caught, lambda: safe(broken.submit("broken"))).startswith("UpstreamFailed")
