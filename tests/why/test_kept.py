"""What `raysched why` tells of runs that were written as the engine writes them."""

import json

import pytest

from cli.kept_runs import NOON, SECOND, close_run, members, open_run, store
from raysched import StateType, flow, get_run, task
from raysched.client import Run
from raysched.model.rows import AttemptRow, Batch, GroupRow
from raysched.model.values import CrashKind, ErrorInfo, Evidence
from why import stories
from why.around import run, steady, told
from why.kept import crash

RAYS_ACCOUNT = """Task was killed due to the node running low on memory.
Object store memory usage: [- bytes spillable: 0
- bytes unsealed: 0
]
OOM kill reason: 1 tasks of this owner were retriable, and it was the newest.
To adjust the kill threshold, set the environment variable
"""


@task(teardown=True)
def down(value: int, fails: bool) -> None:
    if fails:
        raise OSError("the cluster does not answer")


@task
def work(fails: bool) -> int:
    if fails:
        raise ValueError("work failed")
    return 1


@flow
def cleaning(fails: bool) -> None:
    done = work.submit(fails)
    _ = down.submit(1, True, wait_for=[done])  # noqa: FBT003 - as a user writes it


@flow
def partly() -> None:
    _ = stories.total.submit(work.map([False, False, True], min_success=0.9))


def test_map_that_missed_its_min_success_says_so() -> None:
    found = run(partly)
    (missed,) = found.why().shortfalls
    assert (missed.task, missed.succeeded, missed.size, missed.needed) == ("work", 2, 3, 3)
    assert "work 2 of 3 succeeded, and min_success asks for 3" in told(found.id).splitlines()
    assert json.loads(told(found.id, "--json"))["shortfalls"] == [
        {"name": "work", "size": 3, "needed": 3, "succeeded": 2}
    ]


class TestTeardown:
    def test_that_fails_is_no_root_failure(self) -> None:
        found = run(lambda: cleaning(fails=True)).why()
        assert found.verdict == (
            "1 root failure: `work[0]` ValueError work failed; "
            "1 teardown failed, too: `down[0]` OSError the cluster does not answer → "
            "0 results kept"
        )
        assert [cause.key for cause in found.causes] == ["work[0]", "down[0]"]

    def test_of_a_run_that_went_well(self) -> None:
        found = run(lambda: cleaning(fails=False)).why()
        assert found.state is StateType.COMPLETED
        assert found.verdict == (
            "it completed, with 1 failed teardown: `down[0]` OSError the cluster does not answer "
            "→ 1 result kept"
        )


def test_what_could_not_be_undone_is_in_the_verdict() -> None:
    kept = store()
    run_id, number = open_run(kept, "trip")
    kept.commit(
        Batch(
            number,
            groups=[GroupRow(0, "book", 0, 2, mapped=True)],
            task_runs=[members(0, [0, 1], StateType.COMPLETED)],
        )
    )
    undone = "1 of 2 rolled back, not book[1] (cancel[0] FAILED)"
    close_run(kept, number, StateType.FAILED, f"ValueError: card declined; {undone}")
    kept.close()
    assert f" → {undone}, " in get_run(run_id).why().verdict


class TestMemory:
    """What each attempt asked for is told where attempts differ in it."""

    @pytest.fixture
    def killed(self) -> Run:
        kept = store()
        run_id, number = open_run(kept, "training")
        errors = [
            crash(
                CrashKind.OUT_OF_MEMORY,
                Evidence(asked={"memory": str(2**30 * step)}, death_reason=RAYS_ACCOUNT),
            )
            for step in (1, 2)
        ]
        batch = Batch(
            number,
            groups=[GroupRow(0, "train", 0, 1, options='{"memory": "1", "on_oom": {"factor": 2}}')],
            task_runs=[members(0, [0], StateType.CRASHED, attempts=2)],
            attempts=[
                AttemptRow(0, 0, at, StateType.CRASHED, NOON, NOON + SECOND, error, "")
                for at, error in enumerate(errors, 1)
            ],
        )
        kept.commit(batch)
        close_run(kept, number, StateType.FAILED, "1 task run failed")
        kept.close()
        return get_run(run_id)

    def test_text(self, killed: Run) -> None:
        lines = steady(told(killed.id)).splitlines()
        start = lines.index("   attempt  state  class  took  asked for  where")
        assert lines[start + 1 : start + 3] == [
            "   1  CRASHED  out of memory  (s)  memory 1 GiB",
            "   2  CRASHED  out of memory  (s)  memory 2 GiB",
        ]

    def test_json(self, killed: Run) -> None:
        (cause,) = json.loads(told(killed.id, "--json"))["causes"]
        assert [each["asked"] for each in cause["attempts"]] == [
            {"memory": str(2**30)},
            {"memory": str(2**31)},
        ]

    def test_of_rays_account_only_the_reason_is_told(self, killed: Run) -> None:
        (cause,) = killed.why().causes
        told_of = {each.name: each.text for each in cause.evidence}
        assert told_of["death reason"] == (
            "OOM kill reason: 1 tasks of this owner were retriable, and it was the newest."
        )

    def test_advice_names_no_amount_that_no_node_may_have(self, killed: Run) -> None:
        (cause,) = killed.why().causes
        assert [(each.rule, each.code) for each in cause.advice] == [
            ("out-of-memory-again", "on_oom=escalate(factor=..., up_to=...)")
        ]


@pytest.mark.parametrize(
    ("before", "now", "is_same"),
    [
        ("/srv/1/flow.py:nightly", "/srv/2/flow.py:nightly", True),
        ("", "/srv/flow.py:nightly", True),
        ("/srv/flow.py:nightly", "", True),
        ("/srv/other.py:nightly", "/srv/flow.py:nightly", False),
    ],
)
def test_last_success_is_one_of_the_same_file(before: str, now: str, is_same: bool) -> None:
    kept = store()
    _, number = open_run(kept, "nightly", target=before)
    close_run(kept, number)
    run_id, number = open_run(kept, "nightly", target=now)
    error = ErrorInfo("builtins.ValueError", "no")
    close_run(kept, number, StateType.FAILED, "ValueError: no", error)
    kept.close()
    assert (get_run(run_id).why().comparison is not None) == is_same


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("queue_timeout_seconds=2 passed: it needs num_gpus=1; the cluster has 0", "queued"),
        ("total_timeout_seconds=3 passed", "total"),
    ],
)
def test_limit_that_passed_before_the_first_attempt_is_known(reason: str, kind: str) -> None:
    kept = store()
    run_id, number = open_run(kept, "training")
    columns = members(0, [0], StateType.TIMED_OUT, attempts=0)
    columns.reasons = {0: reason}
    kept.commit(Batch(number, groups=[GroupRow(0, "train", 0, 1)], task_runs=[columns]))
    close_run(kept, number, StateType.FAILED, "1 task run failed")
    kept.close()
    (cause,) = get_run(run_id).why().causes
    assert (cause.kind, cause.message) == (kind, reason)
    assert [each.rule for each in cause.advice] == ["queue-timeout"]
    assert told(run_id).count(reason) == 2, (
        "in the verdict and as its message, but not as a fact once more"
    )
