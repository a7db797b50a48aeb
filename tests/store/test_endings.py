"""How task runs ended, counted: the same from every database."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from raysched.model.rows import AttemptRow, Batch, GroupRow
from raysched.model.states import ROOT_FAILURES, StateType
from raysched.model.values import CrashKind, ErrorInfo, FailureClass
from raysched.store import open_reader, open_store
from raysched.store.endings import Ending, Followers, Standing
from raysched.store.reader import Reader
from raysched.store.views import RunView
from store.samples import NOON, closing, flow_run, task_runs

KEY_ERROR = ErrorInfo("builtins.KeyError", "'price'", fingerprint="a" * 16)
OTHER = ErrorInfo("builtins.ValueError", "bad", fingerprint="b" * 16)


def failed(index: int, error: ErrorInfo, stopped: str = "no retries") -> AttemptRow:
    return AttemptRow(0, index, 1, StateType.FAILED, NOON, NOON + 1, error, stopped)


@pytest.fixture
def reader(url: str) -> Iterator[Reader]:
    """Of a database with one run: of ten, five failed, one fell back, one was cancelled."""
    kept = open_store(url)
    run = kept.open_run(flow_run())
    handled = replace(task_runs(0, [4], StateType.FAILED), handled=frozenset({0}))
    fallback = replace(
        task_runs(0, [5]), handled=frozenset({0}), values=[b"v"], reasons={0: "fallback"}
    )
    cancelled = replace(task_runs(0, [6], StateType.CANCELLED), reasons={0: "by me"})
    undone = replace(task_runs(0, [7, 8]), values=[b"v", b"v"], rolled_back=frozenset({1}))
    followers = replace(
        task_runs(1, [0, 1, 2], StateType.UPSTREAM_FAILED),
        roots={0: ("parse[0]",), 1: ("parse[0]",), 2: ("parse[1]", "parse[2]")},
        reasons={2: "max_failures=2"},
    )
    kept.commit(
        Batch(
            run,
            groups=[GroupRow(0, "parse", 0, 10, mapped=True), GroupRow(1, "total", 0, 3)],
            task_runs=[
                task_runs(0, range(4), StateType.FAILED),
                handled,
                fallback,
                cancelled,
                undone,
                followers,
            ],
            attempts=[
                failed(0, KEY_ERROR),
                failed(1, OTHER),
                failed(2, KEY_ERROR),
                failed(3, KEY_ERROR, "the decider said no"),
                failed(4, KEY_ERROR),
                failed(5, OTHER),
            ],
        )
    )
    kept.commit(closing(run, StateType.FAILED))
    kept.close()
    opened = open_reader(url)
    yield opened
    opened.close()


@pytest.fixture
def run(reader: Reader) -> RunView:
    return reader.find_run("last")


def of(error: ErrorInfo, count: int, first: int) -> Ending:
    return Ending(
        0,
        StateType.FAILED,
        count,
        first,
        fingerprint=error.fingerprint,
        type=error.type,
        failure_class=FailureClass.USER,
        stopped="no retries",
    )


def test_failures_are_counted_by_what_they_have_in_common(reader: Reader, run: RunView) -> None:
    assert reader.endings(run, ROOT_FAILURES) == [
        of(KEY_ERROR, 2, 0),
        of(OTHER, 1, 1),
        replace(of(KEY_ERROR, 1, 3), stopped="the decider said no"),
        replace(of(KEY_ERROR, 1, 4), handled=True),
        replace(of(OTHER, 1, 5), state=StateType.COMPLETED, handled=True, reason="fallback"),
        Ending(0, StateType.CANCELLED, 1, 6, reason="by me"),
    ]


def test_members_are_the_same_one_by_one(reader: Reader, run: RunView) -> None:
    members = list(reader.members(run, ROOT_FAILURES))
    assert [each.first for each in members] == [0, 1, 2, 3, 4, 5, 6]
    assert members[2] == of(KEY_ERROR, 1, 2)


def test_followers_are_counted_by_their_roots(reader: Reader, run: RunView) -> None:
    assert reader.followers(run) == [
        Followers(1, 2, 0, ("parse[0]",)),
        Followers(1, 1, 2, ("parse[1]", "parse[2]"), "max_failures=2"),
    ]


def test_standings_tell_what_is_kept_and_what_was_undone(reader: Reader, run: RunView) -> None:
    by_state = {(each.group, each.state): each for each in reader.standings(run)}
    completed = by_state[0, StateType.COMPLETED]
    assert completed == Standing(0, StateType.COMPLETED, 3, 2, 1, 5, NOON + 5, NOON + 8 + 1_000_000)
    assert by_state[0, StateType.FAILED].count == 5
    assert by_state[1, StateType.UPSTREAM_FAILED].count == 3


def test_what_was_under_way_when_the_driver_died_crashed(url: str) -> None:
    kept = open_store(url)
    number = kept.open_run(flow_run())
    running = task_runs(0, [0, 1], StateType.RUNNING)
    kept.commit(Batch(number, groups=[GroupRow(0, "parse", 0, 3)], task_runs=[running]))
    kept.close()
    reader = open_reader(url)
    run = reader.find_run("last")
    (ending,) = reader.endings(run, ROOT_FAILURES)
    assert (ending.state, ending.count, ending.kind) == (
        StateType.CRASHED,
        2,
        CrashKind.DRIVER_LOST,
    )
    (standing,) = reader.standings(run)
    assert (standing.state, standing.ended) == (StateType.CRASHED, 0)
    reader.close()
