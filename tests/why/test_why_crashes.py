"""What `raysched why` tells of the infrastructure, of drivers that died, and of very many."""

import json
import os
import socket
import tracemalloc

import pytest

from cli.kept_runs import NOON, SECOND, close_run, members, open_run, store
from raysched import StateType, get_run
from raysched.cli.why_page import page
from raysched.model.rows import ENGINE_LOGGER, AttemptRow, Batch, GroupRow, LogRow
from raysched.model.values import CrashKind, ErrorInfo, Evidence, FailureClass, TimeoutKind
from raysched.store.views import BETWEEN_ATTEMPTS
from why.around import told
from why.kept import (
    ENDED,
    crash,
    keep_crashed,
    keep_equal_failures,
    keep_lost_between_attempts,
)

GIB = 1024**3


class TestEvidence:
    def test_of_a_signal(self) -> None:
        evidence = Evidence(
            exit_code=-11,
            signal="SIGSEGV",
            fatal_error="Fatal Python error: Segmentation fault\n\nCurrent thread:\n  in solve",
            host="worker-7",
            pid=4711,
            node_id="ab" * 28,
        )
        (cause,) = keep_crashed(crash(CrashKind.WORKER_DIED, evidence)).why().causes
        told_of = {each.name: each.text for each in cause.evidence}
        assert (told_of["exit code"], told_of["signal"]) == ("-11", "SIGSEGV")
        assert "in solve" in told_of["Python's last words"]
        assert (cause.attempts[0].where.host, cause.attempts[0].where.pid) == ("worker-7", 4711)
        assert [each.rule for each in cause.advice] == ["native-crash"]
        assert "Segmentation fault" in told("last")

    def test_of_memory(self) -> None:
        evidence = Evidence(used_bytes=3 * GIB, allowed_bytes=2 * GIB)
        why = keep_crashed(crash(CrashKind.OUT_OF_MEMORY, evidence)).why()
        (cause,) = why.causes
        assert {each.name: each.text for each in cause.evidence} == {
            "memory": "3.00 GiB in use, 2.00 GiB allowed"
        }
        assert why.verdict == (
            "1 root failure: `train[0]` CRASHED (out of memory) → 1 not run, 0 results kept"
        )
        assert "escalate" in cause.advice[0].code

    @pytest.mark.parametrize("kind", TimeoutKind)
    def test_of_each_limit_of_time(self, kind: TimeoutKind) -> None:
        error = ErrorInfo("raysched.errors.TaskRunTimedOut", "late", "", FailureClass.TIMEOUT, kind)
        why = keep_crashed(error, state=StateType.TIMED_OUT).why()
        assert f"TIMED_OUT ({kind}) late" in why.verdict
        assert why.causes[0].advice


class TestMinuteBefore:
    def test_has_what_raysched_said_and_crashes_of_other_runs_on_its_node(self) -> None:
        node_died = crash(CrashKind.NODE_DIED, Evidence(node_id="7"), "node 7 went away")
        other = keep_crashed(node_died, flow="other")
        keep_crashed(crash(CrashKind.NODE_DIED, Evidence(node_id="8")), flow="elsewhere")
        keep_crashed(crash(CrashKind.NODE_DIED), flow="unknown")
        said = [
            LogRow(-1, 0, 1, ENDED - 61 * SECOND, 30, ENGINE_LOGGER, "long ago"),
            LogRow(-1, 0, 1, ENDED - SECOND, 30, ENGINE_LOGGER, "train waits: it needs num_gpus=1"),
            LogRow(-1, 0, 1, ENDED - SECOND, 30, "shop", "what the flow said"),
        ]
        run = keep_crashed(node_died, logs=said)
        (cause,) = run.why().causes
        assert [(each.run, each.key, each.text) for each in cause.before] == [
            (run.id, "", "train waits: it needs num_gpus=1"),
            (other.id, "train[0]", "TaskRunCrashed: node 7 went away"),
        ]


class TestDriverLost:
    def test_tells_what_was_under_way(self) -> None:
        kept = store()
        run_id, number = open_run(kept, "nightly")
        kept.commit(
            Batch(
                number,
                groups=[GroupRow(0, "parse", 0, 6, mapped=True)],
                task_runs=[
                    members(0, [0, 1], StateType.COMPLETED),
                    members(0, [2, 3], StateType.RUNNING),
                ],
            )
        )
        kept.close()
        why = get_run(run_id).why()
        assert why.verdict == (
            "its driver died with 2 under way, 2 not begun → 0 of 2 results kept"
        )
        (cause,) = why.causes
        assert (cause.kind, cause.count) == (CrashKind.DRIVER_LOST, 2)
        assert [each.rule for each in cause.advice] == ["driver-lost"]

    def test_is_not_blamed_on_what_was_to_be_tried_again(self) -> None:
        run = keep_lost_between_attempts()
        why = run.why()
        assert why.verdict == (
            "its driver died with 1 under way, 2 waiting for a retry, 2 not begun; before that "
            "1 failure: `fetch[3]` shop.SourceDown 503 → 0 results kept"
        )
        assert [(each.message, each.keys, each.stopped) for each in why.causes] == [
            ("driver lost", ("fetch[0]", "fetch[1]"), BETWEEN_ATTEMPTS),
            ("driver lost", ("fetch[2]",), ""),
            ("503", ("fetch[3]",), "tried out"),
        ]
        assert [each.text for each in why.causes[0].before] == ["the disk is nearly full"]
        assert [step.command for step in why.steps] == [
            f"raysched resume {run.id[:8]} file.py:flow",
            f"raysched debug {run.id[:8]} 'fetch[3]'",
        ]
        assert {each.key: each.reason for each in run.failures} == {
            "fetch[0]": BETWEEN_ATTEMPTS,
            "fetch[1]": BETWEEN_ATTEMPTS,
            "fetch[2]": "",
            "fetch[3]": "",
        }

    @pytest.mark.parametrize("key", ["fetch[0]", "fetch[2]"])
    def test_of_one_task_run(self, key: str) -> None:
        why = keep_lost_between_attempts().why(key)
        assert why.verdict == f"`{key}` CRASHED (driver lost)"
        assert why.causes[0].attempts[0].said == "shop.SourceDown: 503"

    def test_process_is_named_with_when_it_was_known_to_live(self) -> None:
        run = keep_lost_between_attempts()
        driver = f"{socket.gethostname()}, pid {os.getpid()}, last known alive 2026-11-20 12:00:01"
        assert f"driver {driver}" in told(run.id)
        assert json.loads(told(run.id, "--json"))["driver"] == {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "alive": "2026-11-20T12:00:01.123456Z",
            "under_way": 1,
            "between": 2,
        }
        assert driver in page(run.why())


class TestHowLongItTook:
    """How long an attempt took whose worker broke: its loss is its end, and perhaps its start."""

    @pytest.mark.parametrize(("started", "seconds"), [(NOON, 0.25), (ENDED, None)])
    def test_is_told_if_the_start_is_known(self, started: int, seconds: float | None) -> None:
        kept = store()
        run_id, number = open_run(kept, "training")
        columns = members(0, [0], StateType.CRASHED)
        columns.started = [started]
        error = crash(CrashKind.WORKER_DIED)
        batch = Batch(
            number,
            groups=[GroupRow(0, "train", 0, 1)],
            task_runs=[columns],
            attempts=[AttemptRow(0, 0, 1, StateType.CRASHED, started, ENDED, error, "no retries")],
        )
        kept.commit(batch)
        close_run(kept, number, StateType.FAILED, "1 task run failed")
        kept.close()
        run = get_run(run_id)
        assert run["train"][0].seconds == seconds
        assert run.why().causes[0].attempts[0].seconds == seconds


class TestVeryMany:
    @pytest.mark.parametrize("count", [10, 10_000])
    def test_equal_failures_are_one_cause_in_little_memory(self, count: int) -> None:
        run = keep_equal_failures(count)
        run.why()
        tracemalloc.start()
        why = run.why()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        (cause,) = why.causes
        assert (cause.count, cause.victims, why.not_run) == (count, {"rate": count}, count)
        assert len(cause.keys) == 5
        assert peak < 8_000_000
        assert len(told("last", "--json")) < 10_000

    def test_causes_beyond_the_first_are_counted(self) -> None:
        why = keep_equal_failures(1000, kinds=50).why()
        assert (len(why.causes), why.more_causes, why.failures) == (10, 40, 1000)
        assert why.verdict.startswith("1,000 root failures of 50 kinds: ")
        assert [cause.count for cause in why.causes] == [20] * 10


class TestOpen:
    def test_tells_what_failed_so_far(self) -> None:
        kept = store()
        run_id, number = open_run(kept, "nightly")
        error = ErrorInfo("builtins.ValueError", "bad row", fingerprint="f" * 16)
        kept.commit(
            Batch(
                number,
                groups=[GroupRow(0, "parse", 0, 3, mapped=True)],
                task_runs=[members(0, [0], StateType.FAILED), members(0, [1], StateType.RUNNING)],
                attempts=[AttemptRow(0, 0, 1, StateType.FAILED, NOON, ENDED, error, "no retries")],
            )
        )
        why = get_run(run_id).why()
        assert why.verdict == (
            "still RUNNING, 2 task runs open; 1 root failure: `parse[0]` ValueError bad row "
            "→ 0 results kept"
        )
        assert why.steps[0].command == f"raysched why --waiting {run_id[:8]}"
        close_run(kept, number)
        kept.close()


def test_cancelled_ones_are_told_by_who_did_it() -> None:
    kept = store()
    _, number = open_run(kept, "nightly")
    columns = members(0, [0, 1, 2], StateType.CANCELLED, attempts=0)
    columns.reasons = dict.fromkeys(range(3), "cancelled by me@there")
    kept.commit(Batch(number, groups=[GroupRow(0, "parse", 0, 3)], task_runs=[columns]))
    close_run(kept, number, StateType.CANCELLED, "cancelled by me@there")
    kept.close()
    record = json.loads(told("last", "--json"))
    assert record["verdict"] == "cancelled by me@there → 3 cancelled, 0 results kept"
    assert record["reasons"] == {"cancelled by me@there": 3}
    assert record["causes"] == []
