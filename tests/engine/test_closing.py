"""What runs when a flow function has ended, and what its run says in the end."""

import pytest

from engine.committed import Committed
from face.around import ignore
from raysched import FlowRunFailed, StateType, flow, get_run, task

pytestmark = pytest.mark.usefixtures("committed")

done: list[str] = []
"""What has run, in order: the tasks are in this process."""


@pytest.fixture(autouse=True)
def nothing_is_done() -> None:
    done.clear()


@task
def work(name: str = "work", *, fails: bool = False) -> str:
    done.append(name)
    if fails:
        raise ValueError(name)
    return name


@task(teardown=True)
def clean(name: object = "clean", *, fails: bool = False) -> None:
    done.append("clean")
    if fails:
        raise OSError("clean")


def states() -> dict[str, StateType]:
    """Return how the task runs of the last run ended."""
    return {each.key: each.state.type for each in get_run("last").task_runs()}


class TestTeardowns:
    def test_run_after_a_task_run_failed(self) -> None:
        @flow
        def around() -> None:
            clean.submit(work.submit(fails=True)).wait()

        with pytest.raises(FlowRunFailed, match=r"1 task run failed: work\[0\]"):
            around()
        assert done == ["work", "clean"]
        assert states() == {"work[0]": StateType.FAILED, "clean[0]": StateType.COMPLETED}

    def test_run_after_the_flow_function_raised(self) -> None:
        @flow
        def around() -> None:
            ignore(clean.submit(work.submit("one")))
            raise KeyError("flow")

        with pytest.raises(KeyError):
            around()
        assert done[-1] == "clean"
        assert states()["clean[0]"] == StateType.COMPLETED

    def test_run_after_ctrl_c_and_nothing_else_does(self) -> None:
        @flow
        def around() -> None:
            works = work.map(["a", "b"])
            follower = work.submit("c", wait_for=[works])
            ignore(clean.submit(wait_for=[works, follower]))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            around()
        assert done == ["clean"]
        run = get_run("last")
        assert run.state.type is StateType.CANCELLED
        assert run.message == "cancelled by Ctrl-C"
        ended = states()
        assert ended.pop("clean[0]") == StateType.COMPLETED
        assert set(ended.values()) == {StateType.CANCELLED}
        assert {each.reason for each in run.task_runs(task="work")} == {"cancelled by Ctrl-C"}

    def test_that_fail_do_not_make_a_run_fail_and_are_told(self) -> None:
        @flow
        def around() -> None:
            clean.submit(work.submit(), fails=True).wait()

        around()
        run = get_run("last")
        assert (run.state.type, run.message) == (StateType.COMPLETED, "1 teardown failed")

    def test_that_fail_are_told_beside_what_failed_and_what_was_handled(self) -> None:
        @flow
        def handled() -> None:
            failed = work.submit(fails=True)
            clean.map([failed, failed], fails=True).wait()
            failed.result(raise_on_failure=False)

        @flow
        def unhandled() -> None:
            clean.submit(work.submit(fails=True), fails=True).wait()

        handled()
        assert get_run("last").message == "1 failure handled; 2 teardowns failed"
        with pytest.raises(FlowRunFailed):
            unhandled()
        assert get_run("last").message == "1 task run failed: work[0]; 1 teardown failed"

    def test_do_not_handle_what_failed_before_them(self) -> None:
        @flow
        def around() -> None:
            clean.submit(work.submit(fails=True)).wait()

        with pytest.raises(FlowRunFailed):
            around()
        (failed,) = get_run("last").failures
        assert not failed.handled

    def test_without_a_setup_that_succeeded_do_not_run(self) -> None:
        @flow
        def around() -> None:
            begun = work.with_options(setup=True).submit(fails=True)
            clean.submit(begun).wait()

        with pytest.raises(FlowRunFailed, match=r"work\[0\]"):
            around()
        assert done == ["work"]
        assert states()["clean[0]"] == StateType.UPSTREAM_FAILED


class TestTheMessage:
    def test_names_three_of_many_failures(self) -> None:
        @flow
        def around() -> None:
            work.map(list("abcde"), fails=True).wait()

        with pytest.raises(FlowRunFailed):
            around()
        message = get_run("last").message
        assert message == "5 task runs failed: work[0], work[1], work[2] and 2 more"

    def test_counts_failures_and_fallbacks_that_were_handled(self, committed: Committed) -> None:
        @flow
        def around() -> None:
            work.submit(fails=True).result(raise_on_failure=False)
            work.with_options(fallback="instead").submit("other", fails=True).result()

        around()
        assert get_run("last").message == "2 failures handled"
        handled = {
            (batch.run, columns.group, columns.indices[place])
            for batch in committed.batches
            for columns in batch.task_runs
            for place in columns.handled
        }
        assert len(handled) == 2
