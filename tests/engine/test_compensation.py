"""Undoing what completed in a run that failed for good."""

import asyncio
from typing import Any

import pytest

from engine.committed import Committed
from face.around import ignore
from raysched import FlowRunFailed, StateType, flow, get_run, task

pytestmark = pytest.mark.usefixtures("committed")

MANY = 200_000
"""Bytes: more than a report takes along."""

undone: list[object] = []
"""What was undone, in order: the tasks are in this process."""


@pytest.fixture(autouse=True)
def nothing_is_undone() -> None:
    undone.clear()


@task
def undo(value: Any) -> None:
    undone.append(value)
    if value == "stuck":
        raise OSError("stuck")


@task(compensate=undo)
def book(value: Any) -> Any:
    return value


@task
def fail() -> None:
    raise ValueError("no")


def rolled_back() -> list[str]:
    """Return the keys of the task runs of the last run that were rolled back."""
    return [each.key for each in get_run("last").task_runs() if each.rolled_back]


def test_is_done_in_the_reverse_order() -> None:
    @flow
    def around() -> None:
        for place in ("flight", "hotel", "car"):
            book(place)
        fail()

    with pytest.raises(ValueError, match="no"):
        around()
    assert undone == ["car", "hotel", "flight"]
    assert rolled_back() == ["book[0]", "book[1]", "book[2]"]
    run = get_run("last")
    assert run.state.type is StateType.FAILED
    assert run.message == "ValueError: no; 3 of 3 rolled back"
    assert run.counts[StateType.COMPLETED] == 6


def test_one_that_fails_keeps_no_other_from_being_tried() -> None:
    @flow
    def around() -> None:
        for place in ("flight", "stuck", "car"):
            book(place)
        ignore(fail.submit())

    with pytest.raises(FlowRunFailed):
        around()
    assert undone == ["car", "stuck", "flight"]
    assert rolled_back() == ["book[0]", "book[2]"]
    message = get_run("last").message
    assert message == "1 task run failed: fail[0]; 2 of 3 rolled back, not book[1] (undo[1] FAILED)"


def test_marks_what_it_undid_in_the_commit_that_completes_it(committed: Committed) -> None:
    @flow
    def around() -> None:
        book.map(["flight", "car"]).wait()
        fail()

    with pytest.raises(ValueError, match="no"):
        around()
    for place, index in ((0, 1), (1, 0)):
        batch = committed.batch_with("undo", place, StateType.COMPLETED)
        assert ("book", index, StateType.COMPLETED, True) in set(committed.rows(batch))
    marked = [batch for batch in committed.batches if any(row[3] for row in committed.rows(batch))]
    assert len(marked) == 2


def test_is_over_before_the_run_is(committed: Committed) -> None:
    @flow
    def around() -> None:
        book("flight")
        fail()

    with pytest.raises(ValueError, match="no"):
        around()
    ends = [
        place
        for place, batch in enumerate(committed.batches)
        if batch.flow_run is not None and batch.flow_run.state.is_terminal
    ]
    last = committed.batches.index(committed.batch_with("undo", 0, StateType.COMPLETED))
    assert len(ends) == 1
    assert last < ends[0]


def test_is_for_what_completed_alone() -> None:
    @flow
    def around() -> None:
        book("flight")
        book.submit(fail.submit()).wait()
        ignore(book.submit("car"))
        raise KeyError("flow")

    with pytest.raises(KeyError):
        around()
    assert undone == ["flight"]


@pytest.mark.parametrize("how", ["completed", "cancelled"])
def test_is_not_for_runs_that_did_not_fail(how: str) -> None:
    @flow
    def around() -> None:
        book("flight")
        if how == "cancelled":
            raise KeyboardInterrupt

    if how == "cancelled":
        with pytest.raises(KeyboardInterrupt):
            around()
    else:
        around()
    assert undone == []
    assert rolled_back() == []


def test_comes_after_the_last_attempt_of_the_flow() -> None:
    begun: list[int] = []

    @flow(retries=2)
    def around() -> None:
        begun.append(len(undone))
        book("flight")
        book(f"car {len(begun)}")
        fail()

    with pytest.raises(ValueError, match="no"):
        around()
    assert begun == [0, 0, 0]
    assert undone == ["car 3", "car 2", "car 1", "flight"]


def test_is_not_needed_when_a_later_attempt_of_the_flow_completes() -> None:
    begun: list[int] = []

    @flow(retries=1)
    def around() -> None:
        begun.append(1)
        book("flight")
        if len(begun) == 1:
            fail()

    around()
    assert undone == []


def test_of_an_async_flow() -> None:
    @flow
    async def around() -> None:
        await asyncio.gather(book.submit("flight"), book.submit("car"))
        raise KeyError("flow")

    with pytest.raises(KeyError):
        asyncio.run(around())
    assert sorted(map(str, undone)) == ["car", "flight"]
    assert rolled_back() == ["book[0]", "book[1]"]


def test_gets_large_values_too() -> None:
    @flow
    def around() -> None:
        book(bytes(MANY))
        book.map([b"small", bytes(MANY + 1)]).wait()
        raise KeyError("flow")

    with pytest.raises(KeyError):
        around()
    assert [len(value) for value in undone if isinstance(value, bytes)] == [MANY + 1, 5, MANY]


def test_is_tried_again_as_its_options_say() -> None:
    tried: list[object] = []

    @task(retries=2, retry_delay_seconds=600)
    def undo_late(value: object) -> None:
        tried.append(value)
        if len(tried) < 3:
            raise OSError("later")

    @flow
    def around() -> None:
        book.with_options(compensate=undo_late)("flight")
        fail()

    with pytest.raises(ValueError, match="no"):
        around()
    assert tried == ["flight"] * 3
    assert rolled_back() == ["book[0]"]
    assert get_run("last").message.endswith("1 of 1 rolled back")


def test_runs_after_teardowns() -> None:
    @task(teardown=True)
    def clean() -> None:
        undone.append("clean")

    @flow
    def around() -> None:
        book("flight")
        clean.submit(wait_for=[fail.submit()]).wait()

    with pytest.raises(FlowRunFailed):
        around()
    assert undone == ["clean", "flight"]


def test_of_a_flow_that_timed_out() -> None:
    @task(retries=1, retry_delay_seconds=0.01)
    def endless() -> None:
        while True:
            pass

    # As long as it may take until the flight is booked.
    @flow(timeout_seconds=1)
    def around() -> None:
        book("flight")
        while True:
            fail.submit().wait()

    with pytest.raises(TimeoutError):
        around()
    run = get_run("last")
    assert run.state.type is StateType.TIMED_OUT
    assert undone == ["flight"]
    assert run.message.endswith("; 1 of 1 rolled back")
