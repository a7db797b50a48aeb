"""What others ask of a flow run, by rows in the database that its own process looks for."""

import pytest

from face.around import ignore
from raysched import FlowRunCancelled, FlowRunFailed, StateType, flow, get_run, runtime, task
from raysched.client import Run
from raysched.define.ports import FlowRunStart
from raysched.engine.keeping import Keeper
from raysched.engine.resuming import recorded_of
from raysched.graph.recorded import Recorded

pytestmark = pytest.mark.usefixtures("in_real_time")

done: list[str] = []
"""What has run, in order: the tasks are in this process."""


@pytest.fixture(autouse=True)
def nothing_is_done() -> None:
    done.clear()


@task
def work() -> None:
    done.append("work")


@task(teardown=True)
def clean() -> None:
    done.append("clean")


@task
def endless() -> None:
    done.append("endless")
    try:
        while True:
            pass
    finally:
        done.append("ended")


@task(retries=1, retry_delay_seconds=600)
def later(number: int) -> None:
    raise OSError(number)


def this_run() -> Run:
    return get_run(str(runtime.flow_run.id))


@pytest.mark.parametrize("force", [False, True])
def test_end_a_run_and_spare_its_teardowns_unless_forced(*, force: bool) -> None:
    @flow
    def around() -> None:
        waiting, running = later.submit(0), endless.submit()
        ignore(clean.submit(wait_for=[waiting, running]))
        assert this_run().cancel(by="me@host", force=force)
        running.wait()

    with pytest.raises(FlowRunCancelled, match="cancelled by me@host"):
        around()
    run = get_run("last")
    assert (run.state.type, run.message) == (StateType.CANCELLED, "cancelled by me@host")
    assert done == ["endless", "ended", *([] if force else ["clean"])]
    states = {each.key: each.state.type for each in run.task_runs()}
    assert states == {
        "endless[0]": StateType.CANCELLED,
        "later[0]": StateType.CANCELLED,
        "clean[0]": StateType.CANCELLED if force else StateType.COMPLETED,
    }
    assert run.task_run("later[0]").reason == "cancelled by me@host"
    assert not run.cancel()


def test_are_not_missed_while_a_run_is_being_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    @flow
    def around() -> None:
        if not done:
            done.append("begun")
            raise IndexError
        endless()

    def read(keeper: Keeper, start: FlowRunStart, number: int) -> Recorded | None:
        found = recorded_of(keeper, start, number)
        if found is not None:
            get_run("last").cancel(by="me@host")
        return found

    with pytest.raises(IndexError):
        around()
    monkeypatch.setattr("raysched.engine.engine.recorded_of", read)
    with pytest.raises(FlowRunCancelled, match="cancelled by me@host"):
        around.resume("last")


def test_are_told_in_the_log_of_the_run() -> None:
    @flow
    def around() -> None:
        this_run().cancel(by="me@host")
        endless()

    with pytest.raises(FlowRunCancelled):
        around()
    run = get_run("last")
    told = [row.message for row in run.logs()]
    assert f"me@host has asked to cancel flow run {run.id[:8]}" in told


def test_for_single_task_runs_leave_the_others_and_the_flow_alone() -> None:
    seen: list[StateType | None] = []

    @flow
    def around() -> None:
        earlier = later.submit(0)
        futures = later.map([1, 2, 3])
        assert not futures.wait(timeout=0.2)
        # Keys count all calls of a task in the run.
        assert this_run().cancel(by="me@host", keys=["later[2]", "later[3]"])
        futures[1:].wait()
        seen.extend(each.peek() for each in (earlier, *futures))
        for future in (earlier, futures[0]):
            future.cancel()
        work()

    # Whom the flow has not cancelled itself, it does not know of.
    with pytest.raises(FlowRunFailed, match=r"2 task runs failed: later\[2\], later\[3\]"):
        around()
    waits, stopped = StateType.AWAITING_RETRY, StateType.CANCELLED
    assert seen == [waits, waits, stopped, stopped]
    assert done == ["work"]
    reasons = [each.reason for each in get_run("last").task_runs(task="later")]
    assert reasons == ["cancelled by the flow"] * 2 + ["cancelled by me@host"] * 2
