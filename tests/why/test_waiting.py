"""`raysched why --waiting`: what an open run waits for, told from the database alone."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cli.kept_runs import NOON, SECOND, close_run, members, open_run, store
from raysched import StateType, get_run
from raysched.client.why_waiting import Wait, Waiting
from raysched.model.rows import ENGINE_LOGGER, AttemptRow, Batch, GroupRow, LogRow
from raysched.model.values import ErrorInfo
from raysched.store.sql import SqlStore
from why.around import told

NOW = NOON + 10 * SECOND


def at(seconds: int) -> str:
    """Returns a moment so long after noon, as the tracker writes it."""
    return datetime.fromtimestamp(NOON // SECOND + seconds, UTC).isoformat()


class Open:
    """An open run, to which rows are written."""

    def __init__(self, kept: SqlStore) -> None:
        self.kept = kept
        self.id, self.number = open_run(kept, "nightly")

    def write(self, **rows: object) -> None:
        self.kept.commit(replace(Batch(self.number), **rows))  # type: ignore[arg-type]

    def waiting(self) -> Waiting:
        return get_run(self.id).waiting(NOW)

    def waits(self) -> list[tuple[str, int, StateType, str]]:
        return [(wait.key, wait.count, wait.state, wait.reason) for wait in self.waiting().waits]


@pytest.fixture
def run() -> Iterator[Open]:
    kept = store()
    yield Open(kept)
    kept.close()


def test_running_ones_tell_for_how_long_and_what_they_said_last(run: Open) -> None:
    run.write(
        groups=[GroupRow(0, "parse", 0, 2, mapped=True)],
        task_runs=[members(0, [0], StateType.RUNNING)],
        logs=[LogRow(0, 0, 1, NOW - 3 * SECOND, 20, "shop", "halfway\nthrough")],
    )
    running, ready = run.waiting().waits
    assert running == Wait(
        "parse", "parse[0]", 1, StateType.RUNNING, "runs; 3 s ago it said: halfway", 10.0
    )
    assert (ready.count, ready.state, ready.ready) == (1, StateType.SCHEDULED, True)
    assert run.waiting().verdict == "task runs: 1 running, 1 ready"


def test_silent_one_is_called_so(run: Open) -> None:
    run.write(groups=[GroupRow(0, "parse", 0, 1)], task_runs=[members(0, [0], StateType.RUNNING)])
    assert run.waits() == [("parse[0]", 1, StateType.RUNNING, "runs, and has logged nothing")]


def test_those_that_need_others_tell_how_many_of_them_are_open(run: Open) -> None:
    run.write(
        groups=[
            GroupRow(0, "parse", 0, 20, mapped=True),
            GroupRow(1, "total", 0, 1, edges='[[0, "gather", 0, 20]]'),
        ],
        task_runs=[
            members(0, range(15), StateType.COMPLETED),
            members(0, range(15, 20), StateType.RUNNING),
        ],
    )
    assert run.waits()[-1] == (
        "total[0]",
        1,
        StateType.SCHEDULED,
        "waits for parse: 5 of 20 open",
    )
    assert run.waiting().verdict == "task runs: 5 running, 1 waiting for others"


def test_what_no_node_has_is_told_as_the_engine_said_it(run: Open) -> None:
    text = "train waits: it needs num_gpus=1; the cluster has 0"
    run.write(
        groups=[GroupRow(0, "train", 0, 3, mapped=True)],
        task_runs=[members(0, range(3), StateType.PENDING, attempts=0)],
        logs=[LogRow(-1, 0, 1, NOW - 4 * SECOND, 30, ENGINE_LOGGER, text)],
    )
    (wait,) = run.waiting().waits
    assert (wait.count, wait.seconds) == (3, 4.0)
    assert wait.reason == "waits for room: it needs num_gpus=1; the cluster has 0"


def test_what_was_lacking_before_one_of_them_ran_is_over(run: Open) -> None:
    text = "train waits: it needs num_gpus=1; the cluster has 0"
    run.write(
        groups=[GroupRow(0, "train", 0, 2, mapped=True)],
        task_runs=[
            members(0, [0], StateType.RUNNING),
            members(0, [1], StateType.PENDING, attempts=0),
        ],
        logs=[LogRow(-1, 0, 1, NOON - SECOND, 30, ENGINE_LOGGER, text)],
    )
    assert (
        run.waits()[-1][-1]
        == "ready, or begun and not told yet; 1 task run of this run known to be running"
    )


def test_max_parallel_is_named(run: Open) -> None:
    run.write(
        groups=[GroupRow(0, "ask", 0, 5, mapped=True, options='{"max_parallel": 2}')],
        task_runs=[members(0, [0, 1], StateType.RUNNING)],
    )
    assert run.waits()[-1] == (
        "",
        3,
        StateType.SCHEDULED,
        "waits for its turn: 2 run, and max_parallel is 2",
    )


def test_cpus_that_others_of_the_run_have_are_told() -> None:
    kept = store()
    run_id, number = open_run(kept, "nightly", backend="Ray 2.60.0, 4 CPUs, started here")
    kept.commit(
        Batch(
            number,
            groups=[
                GroupRow(0, "long", 0, 1, options='{"num_cpus": "2"}'),
                GroupRow(1, "short", 0, 2, mapped=True),
                GroupRow(2, "wide", 0, 1, options='{"num_cpus": "1.5"}'),
                GroupRow(3, "light", 0, 1, options='{"num_cpus": "0.5"}'),
            ],
            task_runs=[members(0, [0], StateType.RUNNING), members(1, [0], StateType.RUNNING)],
        )
    )
    reasons = {wait.task: wait.reason for wait in get_run(run_id).waiting(NOW).waits}
    kept.close()
    assert reasons["wide"] == (
        "no room: it needs num_cpus=1.5, and 3 of 4 are taken by long 1, short 1"
    )
    assert reasons["light"].startswith("ready, or begun and not told yet")


def test_retries_tell_after_what(run: Open) -> None:
    error = ErrorInfo("builtins.ConnectionError", "refused")
    run.write(
        groups=[GroupRow(0, "fetch", 0, 1)],
        task_runs=[members(0, [0], StateType.AWAITING_RETRY)],
        attempts=[AttemptRow(0, 0, 1, StateType.FAILED, NOON, NOW - 2 * SECOND, error)],
    )
    (wait,) = run.waiting().waits
    assert wait.reason == "waits for attempt 2 after ConnectionError: refused"
    assert wait.seconds == 2.0


def test_time_of_the_next_attempt_is_told(run: Open) -> None:
    error = ErrorInfo("builtins.ConnectionError", "refused")
    columns = members(0, [0, 1], StateType.AWAITING_RETRY)
    columns.reasons = {0: f"next attempt at {at(40)}", 1: f"next attempt at {at(22)}"}
    run.write(
        groups=[GroupRow(0, "fetch", 0, 2)],
        task_runs=[columns],
        attempts=[
            AttemptRow(0, index, 1, StateType.FAILED, NOON, NOW, error, "retry") for index in (0, 1)
        ],
    )
    reason = "waits for attempt 2, in 12 s, after ConnectionError: refused"
    assert run.waits() == [("fetch[1]", 2, StateType.AWAITING_RETRY, reason)]


def test_attempt_that_is_due_has_no_time(run: Open) -> None:
    columns = members(0, [0], StateType.AWAITING_RETRY)
    columns.reasons = {0: f"next attempt at {at(9)}"}
    run.write(groups=[GroupRow(0, "fetch", 0, 1)], task_runs=[columns])
    assert run.waits()[0][-1] == "waits for its next attempt"


def test_reason_that_was_kept_is_told(run: Open) -> None:
    columns = members(0, [0], StateType.PAUSED)
    columns.reasons = {0: "until somebody says yes"}
    run.write(groups=[GroupRow(0, "fetch", 0, 1)], task_runs=[columns])
    assert run.waits()[0][-1] == "until somebody says yes"


def test_flow_function_that_works_itself(run: Open) -> None:
    assert run.waiting().verdict == ("no task run is open: the flow function itself is at work")


def test_subflow_tells_its_own(run: Open) -> None:
    _, number = open_run(run.kept, "inner", parent=run.id)
    groups = [GroupRow(0, "parse", 0, 1)]
    run.kept.commit(Batch(number, groups=groups, task_runs=[members(0, [0], StateType.RUNNING)]))
    waiting = run.waiting()
    assert waiting.verdict == "task runs: 1 subflow open"
    (inner,) = waiting.subflows
    assert (inner.flow, inner.verdict) == ("inner", "task runs: 1 running")


def test_run_that_has_ended_waits_for_nothing(run: Open) -> None:
    close_run(run.kept, run.number, StateType.FAILED, "1 task run failed")
    assert run.waiting().verdict == "it has ended: FAILED (1 task run failed); nothing waits"


def test_command_prints_a_table_or_json(run: Open) -> None:
    run.write(groups=[GroupRow(0, "parse", 0, 1)], task_runs=[members(0, [0], StateType.RUNNING)])
    assert "runs, and has logged nothing" in told("--waiting", run.id)
    record = json.loads(told("--waiting", run.id, "--json"))
    (wait,) = record["waits"]
    assert (record["id"], record["state"]) == (run.id, "RUNNING")
    assert (wait["key"], wait["state"], wait["count"]) == ("parse[0]", "RUNNING", 1)
    assert wait["seconds"] > 0
