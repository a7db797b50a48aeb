"""`get_run` and `get_runs` over flows that really ran, inline."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from cli.kept_runs import open_run, store
from raysched import (
    ResultError,
    ResultNotKept,
    RunNotFound,
    StateType,
    TaskRunError,
    UpstreamFailed,
    UsageError,
    flow,
    get_run,
    get_run_logger,
    get_runs,
    task,
    wiring,
)
from raysched.client import Run
from raysched.errors import ResultLost
from raysched.model.records import Kept
from raysched.model.rows import ENGINE_LOGGER, Batch, GroupRow, LogRow
from raysched.results.storage import parse as parse_location
from raysched.settings import settings


class NotSold(Exception):
    def __init__(self, item: str, shop: str) -> None:
        super().__init__(f"{shop} does not sell {item}")


@task(retries=1)
def parse(number: int) -> dict[str, int]:
    get_run_logger().info("parsing %d", number)
    if number == 3:
        raise ValueError(f"cannot parse {number}")
    return {"number": number}


@task(task_run_name="sum-of-{label}")
def total(parsed: list[dict[str, int]], label: str = "all") -> int:
    return sum(each["number"] for each in parsed)


@task
def large() -> bytes:
    return bytes(settings().inline_result_max_bytes + 1)


@task(persist_result=False)
def secret() -> str:
    return "hidden"


@task
def awkward() -> None:
    raise NotSold("saffron", "the shop")


@flow
def adding(n: int = 3) -> int:
    return total.submit(parse.map(range(n))).result()


@flow
def keeping() -> None:
    get_run_logger().warning("starting")
    large()
    secret()
    awkward.submit().result(raise_on_failure=False)


@flow
def around() -> None:
    adding(2)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    monkeypatch.setenv("RAYSCHED_BACKEND", "inline")
    wiring.disconnect()
    settings.cache_clear()
    yield
    wiring.disconnect()
    settings.cache_clear()


@pytest.fixture
def completed() -> Run:
    adding(5 - 2)
    return get_run()


@pytest.fixture
def failed() -> Run:
    with pytest.raises(UpstreamFailed):
        adding(5)
    return get_run("last")


class TestFinding:
    def test_by_id_prefix_and_last(self, completed: Run) -> None:
        assert get_run(completed.id).id == get_run(completed.id[:6]).id == get_run().id

    def test_nothing_is_found_by_a_clear_error(self) -> None:
        with pytest.raises(RunNotFound, match="there are no runs yet"):
            get_run()

    def test_runs_are_filtered_newest_first(self, completed: Run, failed: Run) -> None:
        before = datetime.now(UTC) - timedelta(hours=1)
        assert [run.id for run in get_runs()] == [failed.id, completed.id]
        assert [run.id for run in get_runs(states=["failed"])] == [failed.id]
        assert [run.id for run in get_runs(states=[StateType.COMPLETED])] == [completed.id]
        assert [run.id for run in get_runs(limit=1, since=before)] == [failed.id]
        assert get_runs(since=datetime.now(UTC) + timedelta(hours=1)) == []
        assert get_runs(flow="other") == []

    def test_state_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(UsageError, match="no state 'broken'; there are SCHEDULED"):
            get_runs(states=["broken"])

    def test_elsewhere(self, completed: Run, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'raysched.db'}"
        assert get_run("last", database_url=url).id == completed.id
        assert get_runs(database_url=f"sqlite:///{tmp_path / 'other.db'}") == []


class TestRun:
    def test_says_what_became_of_it(self, completed: Run) -> None:
        assert (completed.flow, completed.parameters) == ("adding", {"n": 3})
        assert completed.state.is_completed()
        assert completed.counts == {StateType.COMPLETED: 4}
        assert completed.task_counts == {
            "parse": {StateType.COMPLETED: 3},
            "total": {StateType.COMPLETED: 1},
        }
        assert completed.started is not None
        assert completed.ended is not None
        assert completed.started.tzinfo is UTC
        assert completed.started <= completed.ended <= datetime.now(UTC)
        assert completed.versions["python"] == ".".join(map(str, sys.version_info[:3]))
        assert repr(completed) == f"<Run {completed.id[:8]} of adding: COMPLETED; 4 COMPLETED>"

    def test_failures_are_the_roots(self, failed: Run) -> None:
        assert failed.state.is_failed()
        (root,) = failed.failures
        assert (root.key, root.attempts, root.handled) == ("parse[3]", 2, False)
        assert repr(root) == "<TaskRun parse[3] FAILED: ValueError: cannot parse 3>"

    def test_table_is_one_for_pandas(self, failed: Run) -> None:
        frame = pd.DataFrame(failed.table()).set_index("key")
        assert list(frame.index) == [*(f"parse[{n}]" for n in range(5)), "total[0]"]
        assert frame.loc["parse[3]", "error"] == "ValueError: cannot parse 3"
        assert frame.loc["total[0]", "roots"] == ("parse[3]",)
        assert frame.loc["total[0]", "state"] == "UPSTREAM_FAILED"

    def test_subflow_is_a_child(self) -> None:
        around()
        run = get_run()
        (child,) = run.children
        assert (run.flow, child.flow, child.parent) == ("around", "adding", run.id)
        assert [each.flow for each in get_runs()] == ["around"]
        assert len(get_runs(include_subflows=True)) == 2

    def test_logs_of_flow_and_tasks(self, completed: Run) -> None:
        keeping()
        assert [row.message for row in get_run().logs() if not row.key] == ["starting"]
        parsing = completed.logs(task="parse")
        assert sorted(row.message for row in parsing) == [f"parsing {n}" for n in range(3)]
        assert completed.logs(after=parsing[-1].id, task="parse") == []
        (of_one,) = completed.logs(task="parse[1]")
        assert of_one.message == "parsing 1"
        assert completed.logs(task="parse[3]") == completed.logs(task="pars[1]") == []

    def test_task_run_is_found_by_its_key(self, completed: Run) -> None:
        assert completed.task_run("parse[2]").key == "parse[2]"
        assert completed.task_run("total").key == "total[0]"
        for key in ("parse", "parse[3]", "parse[-1]", "sum[0]", ""):
            with pytest.raises(UsageError, match=f"run {completed.id[:8]} has no task"):
                completed.task_run(key)


class TestCancelling:
    def test_is_asked_of_the_process_that_runs_it(self) -> None:
        kept = store()
        run_id, number = open_run(kept, "nightly")
        kept.commit(Batch(number, groups=[GroupRow(0, "parse", 0, 2)]))
        run = get_run(run_id)
        assert run.cancel()
        assert run.cancel("the night watch", force=True, keys=["parse[1]"])
        with pytest.raises(UsageError, match=r"no task run 'parse\[2\]'"):
            run.cancel(keys=["parse[2]"])
        first, second = kept.requests(number, 0)
        assert (first.kind, first.keys) == ("cancel", ())
        assert (second.kind, second.by, second.keys) == ("kill", "the night watch", ("parse[1]",))
        kept.close()

    def test_has_been_taken_when_the_process_has_said_so(self) -> None:
        kept = store()
        run_id, number = open_run(kept, "nightly")
        run = get_run(run_id)
        assert not run.has_taken_request()
        for _ in range(2):
            run.cancel()
            assert not run.has_taken_request()
            request = kept.requests(number, 0)[-1]
            said = LogRow(-1, 0, 1, request.at, 30, ENGINE_LOGGER, "me has asked to cancel it")
            kept.commit(Batch(number, logs=[said]))
            assert run.has_taken_request()
        kept.close()

    def test_of_a_run_that_has_ended_or_lost_its_process_is_not_asked(self, completed: Run) -> None:
        assert not completed.cancel()
        kept = store()
        run_id, _ = open_run(kept, "nightly")
        kept.close()
        run = get_run(run_id)
        assert (run.lost, run.cancel()) == (True, False)


class TestTaskRuns:
    def test_are_a_sequence(self, completed: Run) -> None:
        runs = completed["parse"]
        assert len(runs) == 3
        assert [each.key for each in runs] == ["parse[0]", "parse[1]", "parse[2]"]
        assert (runs[-1].key, runs[1].index) == ("parse[2]", 1)
        assert [each.index for each in runs[::-2]] == [2, 0]
        assert runs[5:] == []
        assert "parse" in completed
        assert list(completed) == ["parse", "total"]
        with pytest.raises(IndexError):
            runs[3]
        with pytest.raises(KeyError, match="has no task 'pars'; it has: parse, total"):
            completed["pars"]

    def test_values_are_fresh_copies(self, completed: Run) -> None:
        assert completed["total"][0].result() == 3
        assert completed["parse"].result() == [{"number": n} for n in range(3)]
        first = completed["parse"][1]
        first.result().clear()
        assert first.result() == {"number": 1} == first.state.result()

    def test_names_times_and_logs(self, completed: Run) -> None:
        (run,) = completed["total"]
        assert (run.name, run.attempts, run.error) == ("sum-of-all", 1, None)
        assert run.started is not None
        assert run.ended is not None
        assert run.seconds == pytest.approx((run.ended - run.started).total_seconds(), abs=1e-5)
        assert [row.message for row in completed["parse"][2].logs] == ["parsing 2"]

    def test_failure_has_the_remote_traceback_and_the_exception(self, failed: Run) -> None:
        run = failed["parse"][3]
        with pytest.raises(TaskRunError, match=r"parse\[3\] failed: ValueError: cannot") as caught:
            run.result()
        assert 'raise ValueError(f"cannot parse {number}")' in caught.value.remote_traceback
        assert isinstance(caught.value.__cause__, ValueError)
        assert [attempt.attempt for attempt in run.history] == [1, 2]
        assert run.state.is_failed()

    def test_what_only_followed_names_its_roots(self, failed: Run) -> None:
        (run,) = failed["total"]
        with pytest.raises(UpstreamFailed, match=r"because of parse\[3\]") as caught:
            run.result()
        assert caught.value.roots == run.roots == ("parse[3]",)

    def test_exception_that_cannot_be_rebuilt_is_told_as_text(self) -> None:
        keeping()
        with pytest.raises(TaskRunError, match="the shop does not sell saffron"):
            get_run()["awkward"][0].result()

    def test_value_that_was_not_kept_says_why(self) -> None:
        keeping()
        run = get_run()
        with pytest.raises(ResultNotKept, match="persist_result=False"):
            run["secret"][0].result()

    def test_large_value_that_was_not_kept_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAYSCHED_KEPT_RESULT_MAX_BYTES", "30000")
        settings.cache_clear()
        keeping()
        one = get_run()["large"][0]
        assert (one.kept, one.location) == (Kept.NOTHING, "")
        with pytest.raises(ResultNotKept, match=r"values over 30,000 are not kept; raise RAYSCHED"):
            one.result()

    def test_large_value_comes_from_the_result_storage(self) -> None:
        keeping()
        one = get_run()["large"][0]
        assert one.kept is Kept.STORED
        assert one.result() == bytes(settings().inline_result_max_bytes + 1)
        Path(parse_location(one.location).url).unlink()
        with pytest.raises(ResultLost, match="is missing"):
            one.result()

    def test_open_task_run_has_no_result_yet(self) -> None:
        kept = store()
        _, number = open_run(kept, "nightly")
        kept.commit(Batch(number, groups=[GroupRow(0, "parse", 0, 2)]))
        run = get_run()["parse"][1]
        with pytest.raises(ResultError, match=r"parse\[1\] is SCHEDULED: it has no result yet"):
            run.result()
        assert (run.started, run.ended, run.seconds, run.attempts) == (None, None, None, 0)
        kept.close()
