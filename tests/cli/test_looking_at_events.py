"""`events` over runs that are there."""

import threading
from collections.abc import Iterator

import pytest

from cli.commands import Command
from cli.kept_runs import NOON, SECOND, close_run, keep_nightly, open_run, store
from raysched.client import get_run
from raysched.model.events import ClusterEvent, EventKind
from raysched.model.rows import Batch
from raysched.store.sql import SqlStore

REMOVED = ClusterEvent(
    EventKind.NODE_REMOVED, NOON, "node 10.0.0.7 was removed: [gone]", {"node_ip": "10.0.0.7"}
)
KILLED = ClusterEvent(
    EventKind.OUT_OF_MEMORY, NOON + SECOND, "worker 7 at 10.0.0.8: killed", {"pid": 7, "bytes": 9}
)


@pytest.fixture
def kept() -> Iterator[SqlStore]:
    kept = store()
    yield kept
    kept.close()


@pytest.fixture
def stormy(kept: SqlStore) -> str:
    run_id, number = open_run(kept, "stormy")
    kept.commit(Batch(number, events=[REMOVED]))
    kept.commit(Batch(number, events=[KILLED]))
    close_run(kept, number)
    return run_id


def test_are_told_with_time_and_kind(looking: Command, stormy: str) -> None:
    first, second = looking("events", stormy[:8]).out.splitlines()
    assert first.endswith(" node removed    node 10.0.0.7 was removed: [gone]")
    assert second.endswith(" out of memory   worker 7 at 10.0.0.8: killed")
    assert second.split()[1].endswith(":01")


def test_as_json(looking: Command, stormy: str) -> None:
    first, second = looking("events", stormy, "--json").json()
    assert first == {
        "run": stormy,
        "time": "2026-11-20T12:00:00.123456Z",
        "kind": "node removed",
        "message": "node 10.0.0.7 was removed: [gone]",
        "attributes": {"node_ip": "10.0.0.7"},
    }
    assert (second["kind"], second["attributes"]) == ("out of memory", {"pid": 7, "bytes": 9})


def test_of_a_quiet_run_are_none(looking: Command, kept: SqlStore) -> None:
    keep_nightly(kept)
    done = looking("events", "last")
    assert (done.code, done.out, done.err) == (0, "", "no events\n")
    assert looking("events", "last", "--json").json() == []


def test_of_an_unknown_run_are_refused(looking: Command, stormy: str) -> None:
    del stormy
    done = looking("events", "feed")
    assert (done.code, "no id begins so" in done.err) == (1, True)


def test_following_ends_with_the_run_and_misses_nothing(looking: Command, kept: SqlStore) -> None:
    _, number = open_run(kept, "stormy")

    def write() -> None:
        for event in (REMOVED, KILLED):
            kept.commit(Batch(number, events=[event]))
        close_run(kept, number)

    writer = threading.Timer(0.2, write)
    writer.start()
    lines = looking("events", "last", "--follow", "--json").out.splitlines()
    writer.join()
    assert [
        event.message in line for event, line in zip((REMOVED, KILLED), lines, strict=True)
    ] == [
        True,
        True,
    ]


def test_of_a_run_in_python(stormy: str) -> None:
    run = get_run(stormy)
    assert [(event.id, event.kind) for event in run.events()] == [
        (1, EventKind.NODE_REMOVED),
        (2, EventKind.OUT_OF_MEMORY),
    ]
    (last,) = run.events(after=1)
    assert (last.at, last.attributes["pid"]) == (KILLED.at, 7)
    assert [event.id for event in run.events(limit=1)] == [1]
