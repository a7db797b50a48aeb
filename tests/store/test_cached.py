"""The cache as people look at it, in both kinds of databases."""

from collections.abc import Iterator

import pytest

from raysched.model.records import CacheClaim
from raysched.model.rows import Batch, TaskRunColumns
from raysched.model.states import StateType
from raysched.store import open_reader
from raysched.store.cached import CacheEntryView, EntryState
from raysched.store.reader import Reader
from raysched.store.sql import SqlStore
from store.samples import NOON, flow_run, group, task_runs

HOUR = 3600 * 10**9

KEYS = [b"%016d" % number for number in range(5)]


@pytest.fixture
def reader(url: str, store: SqlStore) -> Iterator[Reader]:
    """A reader of a cache with two results, one of them for an hour, and two being made."""
    fill(store)
    reader = open_reader(url)
    yield reader
    reader.close()


def fill(store: SqlStore) -> None:
    number = store.open_run(flow_run(id="aa"))
    store.commit(Batch(number, groups=[group(0, 20, first=100)]))
    claims = [CacheClaim(KEYS[n], 0, n, "parse", HOUR * (n == 1)) for n in range(3)]
    store.claim(number, claims, NOON - HOUR)
    store.claim(number, [CacheClaim(KEYS[3], 0, 3, "total")], NOON)
    columns = task_runs(0, range(2))
    columns.started, columns.ended = [NOON - 1] * 2, [NOON] * 2
    columns.values, columns.sizes = [b"value"] * 2, [5] * 2
    store.commit(Batch(number, task_runs=[columns]))


def use(store: SqlStore, run_id: str, reason: str) -> None:
    number = store.open_run(flow_run(id=run_id))
    hit = TaskRunColumns(0, [0], [StateType.CACHED], [0], [NOON], [NOON], [b"value"], [5])
    hit.reasons = {0: reason}
    store.commit(Batch(number, groups=[group(0, 1)], task_runs=[hit]))


def states(entries: list[CacheEntryView]) -> dict[bytes, EntryState]:
    return {entry.key: entry.state for entry in entries}


def test_tasks(reader: Reader) -> None:
    found = [(each.task, each.entries, each.kept, each.bytes) for each in reader.cached_tasks(NOON)]
    assert found == [("parse", 3, 2, 10), ("total", 1, 0, 0)]
    late = reader.cached_tasks(NOON + 2 * HOUR)
    assert [each.kept for each in late] == [1, 0]
    assert (late[0].oldest, late[0].newest) == (NOON - HOUR, NOON - HOUR)


def test_entries(reader: Reader) -> None:
    entries = reader.cache_entries(NOON + 2 * HOUR)
    assert entries[0].task == "total"
    assert states(entries) == {
        KEYS[0]: EntryState.KEPT,
        KEYS[1]: EntryState.EXPIRED,
        KEYS[2]: EntryState.MAKING,
        KEYS[3]: EntryState.MAKING,
    }
    assert {entry.task_run for entry in entries if entry.task == "parse"} == {
        "parse[100]",
        "parse[101]",
        "parse[102]",
    }
    assert len(reader.cache_entries(NOON, task="parse", limit=2)) == 2
    assert states(reader.cache_entries(NOON, keys=[KEYS[3]])) == {KEYS[3]: EntryState.MAKING}
    assert reader.cache_entries(NOON, task="parse", before=NOON - HOUR) == []


def test_a_driver_that_is_gone_makes_nothing(reader: Reader, store: SqlStore) -> None:
    store.close()
    assert states(reader.cache_entries(NOON, keys=[KEYS[2]])) == {KEYS[2]: EntryState.NONE}


def test_the_entry_of_a_task_run(reader: Reader) -> None:
    run = reader.find_run("aa")
    entry = reader.cache_entry_of(run, 0, 1, NOON)
    assert entry is not None
    assert (entry.key, entry.run, entry.size) == (KEYS[1], "aa", 5)
    assert reader.cache_entry_of(run, 0, 9, NOON) is None


def test_uses(reader: Reader, store: SqlStore) -> None:
    use(store, "bb", "the result of aa/parse[100]")
    use(store, "cc", "the result of aa/parse[101]")
    use(store, "dd", "the result of parse[100]")
    (entry,) = reader.cache_entries(NOON, keys=[KEYS[0]])
    assert reader.uses(entry) == 1


def test_forgetting(reader: Reader, store: SqlStore) -> None:
    assert reader.cache_keys("total") == [KEYS[3]]
    assert sorted(reader.cache_keys(before=NOON)) == KEYS[:3]
    reader.forget(KEYS[:2])
    assert sorted(reader.cache_keys()) == KEYS[2:4]
    reader.forget([])
    # What made them keeps its result.
    assert store.values(1, 0, 0, 2) == {0: b"value", 1: b"value"}
