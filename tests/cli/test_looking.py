"""`runs`, `show` and `logs` over runs that are there."""

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from cli.commands import Command
from cli.kept_runs import (
    NOON,
    SECOND,
    TRACEBACK,
    close_run,
    keep_billing,
    keep_nightly,
    keep_queued,
    keep_sweep,
    members,
    open_run,
    store,
)
from raysched.cli.runs import parse_since
from raysched.errors import UsageError
from raysched.model.rows import Batch, GroupRow, LogRow
from raysched.model.states import StateType
from raysched.store.sql import SqlStore

STARTED, ENDED = "2026-11-20T12:00:00.123456Z", "2026-11-20T12:00:02.623456Z"


@pytest.fixture
def kept() -> Iterator[SqlStore]:
    opened = store()
    yield opened
    opened.close()


@pytest.fixture
def billing(kept: SqlStore) -> str:
    return keep_billing(kept)


class TestRuns:
    def test_as_json_are_a_list_newest_first(self, looking: Command, kept: SqlStore) -> None:
        billing, nightly = keep_billing(kept), keep_nightly(kept)
        newest, oldest = looking("runs", "--json").json()
        assert (newest["id"], oldest["id"]) == (nightly, billing)
        assert (newest["flow"], newest["state"]) == ("nightly", "COMPLETED")
        assert (newest["started"], newest["ended"]) == (STARTED, ENDED)
        assert newest["tasks"] == {"COMPLETED": 3}
        assert oldest["tasks"] == {"FAILED": 1, "UPSTREAM_FAILED": 40}
        assert oldest["error"]["type"] == "sqlite3.OperationalError"

    def test_open_run_has_no_end(self, looking: Command, kept: SqlStore) -> None:
        open_run(kept, "nightly")
        (run,) = looking("runs", "--json").json()
        assert (run["state"], run["ended"], run["tasks"]) == ("RUNNING", None, {})

    def test_without_any_are_an_empty_list(self, looking: Command) -> None:
        assert looking("runs", "--json").json() == []
        assert looking("runs").out == "No runs yet. Start one: raysched run flow.py\n"

    @pytest.mark.parametrize(
        ("options", "flows"),
        [
            (("--state", "failed"), ["billing"]),
            (("--state", "FAILED", "--state", "completed"), ["nightly", "billing"]),
            (("--flow", "nightly"), ["nightly"]),
            (("--since", "2026-11-20T12:00:00+00:00"), ["nightly", "billing"]),
            (("--since", "2026-11-20T12:00:01+00:00"), []),
            (("--limit", "1"), ["nightly"]),
            (("--limit", "0"), ["nightly", "billing"]),
        ],
    )
    def test_filters(
        self, looking: Command, kept: SqlStore, options: tuple[str, ...], flows: list[str]
    ) -> None:
        keep_billing(kept)
        keep_nightly(kept)
        assert [run["flow"] for run in looking("runs", "--json", *options).json()] == flows

    def test_table_fits_80_columns_and_says_what_it_leaves_out(
        self, looking: Command, kept: SqlStore
    ) -> None:
        for _ in range(21):
            keep_billing(kept)
        lines = looking("runs").out.splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[-1] == "… and more (--limit 0 for all)"
        assert sum("billing" in line for line in lines) == 20

    @pytest.mark.parametrize(
        ("text", "before"),
        [("30m", timedelta(minutes=30)), ("12h", timedelta(hours=12)), ("2w", timedelta(weeks=2))],
    )
    def test_since_is_a_span(self, text: str, before: timedelta) -> None:
        now = datetime.now(UTC)
        assert parse_since(text, now) == now - before

    def test_since_without_zone_is_local(self) -> None:
        moment = parse_since("2026-11-20", datetime.now(UTC))
        assert moment == datetime(2026, 11, 20).astimezone()

    def test_since_that_means_nothing_is_refused(self, looking: Command) -> None:
        with pytest.raises(UsageError, match="--since soon: give 30m"):
            parse_since("soon", datetime.now(UTC))
        assert looking("runs", "--since", "soon").code == 2


class TestShow:
    def test_as_json_adds_the_task_runs(self, looking: Command, billing: str) -> None:
        shown = looking("show", billing[:10], "--json").json()
        assert shown["id"] == billing
        root, *followers = shown["task_runs"]
        error = root.pop("error")
        assert root == {
            "name": "read_usage",
            "key": "read_usage[0]",
            "index": 0,
            "task_run_name": "read_usage[0]",
            "state": "FAILED",
            "attempts": 2,
            "started": STARTED,
            "ended": "2026-11-20T12:00:00.373456Z",
            "roots": [],
            "handled": False,
            "reason": "",
            "rolled_back": False,
            "kept": None,
            "location": None,
        }
        assert (error["type"], error["message"], error["traceback"]) == (
            "sqlite3.OperationalError",
            "no such table: usage",
            TRACEBACK,
        )
        assert len(followers) == 40
        assert [run["index"] for run in followers] == list(range(40))
        last = followers[-1]
        assert (last["state"], last["attempts"], last["error"]) == ("UPSTREAM_FAILED", 0, None)
        assert (last["started"], last["ended"], last["roots"]) == (None, None, ["read_usage[0]"])

    @pytest.mark.parametrize(
        ("options", "number"),
        [
            (("--task", "send"), 40),
            (("--state", "FAILED"), 1),
            (("--task", "send", "--state", "FAILED"), 0),
            (("--limit", "7"), 7),
            (("--task", "send", "--limit", "7"), 7),
        ],
    )
    def test_filters(
        self, looking: Command, billing: str, options: tuple[str, ...], number: int
    ) -> None:
        shown = looking("show", billing, "--json", *options).json()
        assert len(shown["task_runs"]) == number
        assert shown["tasks"] == {"FAILED": 1, "UPSTREAM_FAILED": 40}

    @pytest.mark.usefixtures("billing")
    def test_for_people_has_the_root_first_and_fits_80_columns(self, looking: Command) -> None:
        out = looking("show", "last").out
        assert max(map(len, out.splitlines())) <= 80
        root = out.index("read_usage[0]  FAILED after 2 attempts")
        assert "  /shop/flow.py:83 in read_usage\n    rows = db.execute(\n" in out[root:]
        assert "40 task runs never ran because of that: send 40" in out[root:]
        assert "month='2026-10'" in out
        assert out.endswith("… and 21 more (--limit 0 for all)\n")

    def test_tells_why_and_what_took_the_place_of_failures(
        self, looking: Command, kept: SqlStore
    ) -> None:
        keep_sweep(kept)
        out = looking("show", "last").out
        assert max(map(len, out.splitlines())) <= 80
        assert "train[0]  FAILED" in out
        # Two lines of the code, one innermost cause.
        assert "and 1 more like it: train[1]" in out
        assert "train[2]  FAILED" in out
        assert "3 task runs never ran: train 3 (stopped by max_failures=3)" in out
        assert "1 task run never ran because of that: report 1" in out
        assert "2 task runs completed by their fallback: load 2" in out
        assert "1 task run rolled back: what they did was undone: load 1" in out
        assert "2 reports of attempts that were over, refused" in out
        of_load = looking("show", "last", "--task", "load").out
        assert "COMPLETED, rolled back" in of_load
        assert "the fallback's value" in of_load
        assert "stopped by max_failures=3" in looking("show", "last", "--task", "train").out

    def test_failure_without_an_attempt_has_its_reason(
        self, looking: Command, kept: SqlStore
    ) -> None:
        keep_queued(kept, 2)
        out = looking("show", "last").out
        for group in range(2):
            assert (
                f"wait_{group}[0]  TIMED_OUT, handled by the flow\n"
                f"  queue_timeout_seconds=2 passed: it needs licence_{group}=1\n"
            ) in out

    def test_hint_at_more_failures_shows_them(self, looking: Command, kept: SqlStore) -> None:
        keep_queued(kept, 8)
        (hint,) = (line for line in looking("show", "last").out.splitlines() if "…" in line)
        told, _, command = hint.partition(": raysched ")
        assert told == "… and 3 more failed themselves"
        shown = looking(*command.split()).out
        assert all(f"wait_{group}[0]" in shown for group in range(8))

    def test_as_json_has_all_that_is_known_of_failures(
        self, looking: Command, kept: SqlStore
    ) -> None:
        keep_sweep(kept)
        shown = looking("show", "last", "--json").json()
        by_key = {run["key"]: run for run in shown["task_runs"]}
        assert shown["late"] == 2
        assert by_key["load[0]"]["reason"] == "the fallback's value"
        assert [by_key[f"load[{n}]"]["rolled_back"] for n in range(3)] == [False, False, True]
        error = by_key["train[0]"]["error"]
        assert (error["fingerprint"], error["evidence"]) == ("a" * 16, {"pid": 7})
        assert by_key["train[2]"]["error"]["fingerprint"] is None

    def test_one_task_run_has_its_attempts(self, looking: Command, billing: str) -> None:
        out = looking("show", billing, "--task", "read_usage[0]").out
        assert max(map(len, out.splitlines())) <= 80
        assert "read_usage[0]  FAILED after 2 attempts\n" in out
        assert out.count("0.25 s") == 2
        assert f"traceback of attempt 2\n{TRACEBACK}" in out
        assert out.endswith(f"why   raysched why {billing[:8]} 'read_usage[0]'\n")
        followed = looking("show", billing, "--task", "send[39]").out
        assert "send[39]  UPSTREAM_FAILED\n  because of read_usage[0]\n" in followed

    def test_one_task_run_as_json_has_its_attempts(self, looking: Command, billing: str) -> None:
        shown = looking("show", billing, "--task", "read_usage[0]", "--json").json()
        (task_run,) = shown["task_runs"]
        first, second = task_run["history"]
        assert (first["number"], second["number"]) == (1, 2)
        assert (first["state"], first["class"], first["seconds"]) == ("FAILED", "user", 0.25)
        assert first["error"] == second["error"] == task_run["error"]
        assert task_run["error"]["traceback"] == TRACEBACK

    def test_task_run_that_is_not_there_or_of_which_there_is_only_one(
        self, looking: Command, billing: str
    ) -> None:
        done = looking("show", billing, "--task", "send[40]")
        assert (done.code, done.out) == (2, "")
        assert "of that task it has send[0] to send[39]" in done.err
        done = looking("show", billing, "--task", "send[4]", "--state", "FAILED")
        assert (done.code, "--task names one" in done.err) == (2, True)

    @pytest.mark.usefixtures("billing")
    def test_all_of_a_long_list(self, looking: Command) -> None:
        out = looking("show", "last", "--task", "send", "--limit", "0").out
        assert out.count("because of read_usage[0]") == 40

    def test_prefix_of_several_runs_is_refused(self, looking: Command, kept: SqlStore) -> None:
        keep_nightly(kept)
        keep_nightly(kept)
        done = looking("show", "0")
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: run '0'")

    def test_run_or_task_that_is_not_there_is_named(self, looking: Command, billing: str) -> None:
        assert "run 'zzz'" in looking("show", "zzz").err
        done = looking("show", billing, "--task", "sent")
        assert (done.code, "has no task 'sent'; it has: read_usage, send" in done.err) == (2, True)

    def test_driver_that_died_is_told(self, looking: Command) -> None:
        kept = store()
        _, number = open_run(kept, "nightly")
        running = [members(0, [0], StateType.RUNNING)]
        kept.commit(Batch(number, groups=[GroupRow(0, "parse", 0, 2)], task_runs=running))
        kept.close()
        shown = looking("show", "last", "--json").json()
        assert (shown["state"], shown["message"]) == ("CRASHED", "driver lost")
        shown = looking("show", "last").out
        assert "CRASHED: driver lost" in shown
        assert f"pid {os.getpid()}, last known alive" in shown


class TestLogs:
    def test_records_have_their_source(self, looking: Command, billing: str) -> None:
        first, second = looking("logs", billing).out.splitlines()
        assert first.endswith(" INFO    billing starting")
        assert second.endswith(" WARNING read_usage[0] no luck [yet]")

    def test_as_json(self, looking: Command, billing: str) -> None:
        first, second = looking("logs", billing, "--json").json()
        assert (first["key"], first["level"], first["time"]) == (None, "INFO", STARTED)
        assert (second["key"], second["message"]) == ("read_usage[0]", "no luck [yet]")
        assert looking("logs", billing, "--json", "--task", "send").json() == []

    def test_of_subflows_are_among_them(self, looking: Command, kept: SqlStore) -> None:
        parent, number = open_run(kept, "around")
        _, child = open_run(kept, "inner", parent=parent)
        for run, seconds in ((number, 0), (child, 1), (number, 2)):
            row = LogRow(-1, 0, 1, NOON + seconds * SECOND, 20, "x", f"at {seconds}")
            kept.commit(Batch(run, logs=[row]))
        lines = looking("logs", parent).out.splitlines()
        assert [line.split()[3:] for line in lines] == [
            ["around", "at", "0"],
            ["inner", "at", "1"],
            ["around", "at", "2"],
        ]
        assert [each["flow"] for each in looking("logs", parent, "--json").json()] == [
            "around",
            "inner",
            "around",
        ]

    def test_of_one_task(self, looking: Command, billing: str) -> None:
        (line,) = looking("logs", billing, "--task", "read_usage").out.splitlines()
        assert "no luck" in line
        assert looking("logs", billing, "--task", "sent").code == 2
        assert "no luck" in looking("logs", billing, "--task", "read_usage[0]").out
        done = looking("logs", billing, "--task", "read_usage[1]")
        assert (done.code, "has no task run 'read_usage[1]'" in done.err) == (2, True)
        assert looking("logs", billing, "--task", "send[39]").code == 0

    def test_following_ends_with_the_run_and_misses_nothing(
        self, looking: Command, kept: SqlStore
    ) -> None:
        _, number = open_run(kept, "nightly")

        def write() -> None:
            for index in range(5):
                row = LogRow(-1, 0, 1, NOON + index * SECOND, 20, "x", f"line {index}")
                kept.commit(Batch(number, logs=[row]))
            close_run(kept, number)

        writer = threading.Timer(0.2, write)
        writer.start()
        lines = looking("logs", "last", "--follow", "--json").out.splitlines()
        writer.join()
        assert [f"line {index}" in line for index, line in enumerate(lines)] == [True] * 5
