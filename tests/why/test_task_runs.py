"""`raysched why RUN KEY`: one task run, whatever has become of it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from raysched import Fail, Retry, StateType, flow, skip, task
from raysched.client.why_facts import Why
from raysched.errors import UsageError
from raysched.model.values import ErrorInfo
from why import stories
from why.around import run, steady, told
from why.kept import keep_cancelled


def busy(error: BaseException) -> bool | Retry | Fail:
    match str(error):
        case "busy":
            return Retry(reason="server is busy")
        case "odd":
            raise RuntimeError("decider broken")
        case _:
            return Fail("not wanted")


@task(retries=1, retry_on=busy)
def send(text: str) -> None:
    raise ValueError(text)


@task
def confirm(sent: None) -> None: ...


@flow
def mail() -> None:
    _ = confirm.map(send.map(["busy", "odd", "403", "404"]))


@task(fallback=lambda number: number / 0)
def guess(number: int) -> float:
    raise LookupError(f"{number} is not known")


@flow
def guessing() -> None:
    _ = guess.submit(3)


FIRST: list[int] = []


@task(retries=1)
def flaky() -> int:
    FIRST.append(1)
    if len(FIRST) == 1:
        raise ConnectionError("reset")
    return 1


@task
def idle() -> None:
    skip("nothing new")


@flow
def mixed() -> None:
    FIRST.clear()
    flaky.submit().wait()
    _ = idle.submit()
    _ = stories.clean.submit(1)


def why(story: Callable[[], object], key: str) -> Why:
    return run(story).why(key)


class TestAlike:
    """Failures with one fingerprint, and different ends."""

    def test_reasons_of_stopping_are_told_with_the_first_of_each(self) -> None:
        (cause,) = run(mail).why().causes
        assert [(stop.count, stop.key, stop.reason) for stop in cause.stops] == [
            (1, "send[0]", "all 1 retries used"),
            (
                1,
                "send[1]",
                "retry_on=busy raised builtins.RuntimeError: decider broken",
            ),
            (2, "send[2]", "not wanted"),
        ]
        assert "2 (send[2]): not wanted" in told("last")

    def test_next_step_shows_one_that_stopped_otherwise(self) -> None:
        found = run(mail)
        steps = [step.command for step in found.why().steps]
        assert f"raysched why {found.id[:8]} 'send[1]'" in steps

    def test_each_of_them_can_be_looked_at(self) -> None:
        found = why(mail, "send[3]")
        (cause,) = found.causes
        assert (cause.key, cause.message, cause.stopped) == ("send[3]", "404", "not wanted")
        assert [(each.name, each.preview) for each in cause.arguments] == [("text", "'404'")]
        assert found.verdict == "`send[3]` ValueError 404 → 1 not run"
        assert cause.victims == {"confirm": 1}
        assert cause.stops == ()


def test_one_that_only_followed_tells_its_roots() -> None:
    found = why(mail, "confirm[2]")
    followed, root = found.causes
    assert (followed.key, followed.state) == ("confirm[2]", StateType.UPSTREAM_FAILED)
    assert (root.key, root.message) == ("send[2]", "403")
    assert found.verdict == "`confirm[2]` did not run because of send[2]"
    assert [(node.task, node.failed, node.not_run) for node in found.part.nodes] == [
        ("send", 1, 0),
        ("confirm", 0, 1),
    ]


def test_roots_with_one_cause_are_told_once() -> None:
    @flow
    def gathered() -> None:
        _ = stories.total.submit(stories.parse.map(range(30)))

    found = why(gathered, "total[0]")
    assert [cause.key for cause in found.causes] == ["total[0]", "parse[0]"]
    assert found.verdict == (
        "`total[0]` did not run because of parse[0], parse[1], parse[2], parse[3], parse[4] and "
        "25 more"
    )


def test_handled_one_says_so() -> None:
    found = why(stories.handled, "fetch[0]")
    assert found.verdict == (
        "`fetch[0]` ConnectionError https://b.example refused, handled by the flow"
    )


def test_one_that_its_fallback_saved() -> None:
    found = why(stories.handled, "optional[0]")
    (cause,) = found.causes
    assert found.verdict == "`optional[0]` COMPLETED: its fallback took its place"
    assert (cause.state, cause.said) == (StateType.COMPLETED, "OSError: the printer is on fire")


def test_fallback_that_failed_tells_what_it_was_called_for() -> None:
    (cause,) = run(guessing).why().causes
    assert cause.said == "ZeroDivisionError: division by zero"
    assert cause.before_fallback is not None
    assert (cause.before_fallback.number, cause.before_fallback.said) == (
        1,
        "LookupError: 3 is not known",
    )
    line = "its fallback failed so; called after attempt 1: LookupError: 3 is not known"
    assert line in told("last")
    (record,) = json.loads(told("last", "--json"))["causes"]
    assert record["before_fallback"] == record["attempts"][0]


def test_one_that_went_well_later_tells_what_went_wrong_before() -> None:
    found = why(mixed, "flaky[0]")
    (cause,) = found.causes
    assert found.verdict == "`flaky[0]` COMPLETED after 2 attempts"
    assert [each.state for each in cause.attempts] == [StateType.FAILED, StateType.COMPLETED]
    assert cause.said == "ConnectionError: reset"
    assert "fallback" not in told("last", "flaky[0]")


@pytest.mark.parametrize(
    ("key", "verdict"),
    [("clean[0]", "`clean[0]` COMPLETED"), ("idle[0]", "`idle[0]` SKIPPED: nothing new")],
)
def test_one_with_which_all_is_well_has_no_cause(key: str, verdict: str) -> None:
    found = why(mixed, key)
    assert (found.verdict, found.causes) == (verdict, ())


def test_command_takes_the_key_and_prints_json_or_a_page(tmp_path: Any) -> None:
    run(mail)
    assert steady(told("last", "send[1]")).splitlines()[:2] == [
        "✘ mail (run) FAILED",
        "`send[1]` ValueError odd → 1 not run",
    ]
    record = json.loads(told("last", "send[1]", "--json"))
    assert (record["key"], record["causes"][0]["key"]) == ("send[1]", "send[1]")
    page = tmp_path / "why.html"
    told("last", "send[1]", "--html", str(page))
    assert "decider broken" in page.read_text(encoding="utf-8")


def test_key_that_is_not_there_is_told() -> None:
    found = run(mail)
    with pytest.raises(UsageError, match=r"no task run 'send\[9\]'"):
        found.why("send[9]")


class TestStopped:
    """What a run was at when it was cancelled."""

    def test_tells_what_was_under_way_and_where(self) -> None:
        found = keep_cancelled().why()
        (held,) = found.held
        assert (held.task, held.begun, held.sent, held.waited) == ("train", 2, 1, 2)
        assert held.key == "train[1]"
        assert held.seconds == 2.0
        assert held.place is not None
        assert (held.place["line"], held.place["function"]) == (7, "train")
        assert found.place is not None
        assert found.place["line"] == 30

    def test_text(self) -> None:
        found = keep_cancelled()
        assert steady(told(found.id)).splitlines()[3:8] == [
            "when it was stopped",
            "   the flow function  shop.py:30 in training  train.map(range(5)).wait()",
            "   train  2 under way, train[1] for longest, (s), at shop.py:7 in train  step()",
            "                      1 may have begun: dispatched, and no start is known",
            "                      2 had not begun",
        ]

    def test_one_between_two_attempts_is_no_root_failure(self) -> None:
        error = ErrorInfo("builtins.ConnectionError", "refused")
        found = keep_cancelled(error)
        why = found.why()
        assert why.verdict == "cancelled by Ctrl-C → 5 cancelled, 0 results kept"
        assert why.causes == ()
        (held,) = why.held
        assert (held.begun, held.between, held.sent, held.waited) == (1, 1, 1, 2)
        assert "1 between two attempts, after ConnectionError: refused" in told(found.id)
        of_it = found.why("train[0]")
        assert of_it.verdict == "`train[0]` CANCELLED: cancelled"
        assert of_it.causes[0].said == "ConnectionError: refused"

    def test_json(self) -> None:
        record = json.loads(told(keep_cancelled().id, "--json"))["when_stopped"]
        assert record["place"]["function"] == "training"
        (held,) = record["task_runs"]
        assert (held["name"], held["begun"], held["sent"], held["waited"]) == ("train", 2, 1, 2)
