"""What other processes ask of a flow run, on every store."""

import threading
from dataclasses import replace

import pytest

from raysched.engine.ports import Store
from raysched.errors import RunNotFound, StoreVersionError
from raysched.model.rows import Batch
from raysched.store import open_reader
from raysched.store.reader import Reader
from raysched.store.requests import Requests
from store.samples import execute, flow_run, task_runs


@pytest.fixture
def requests(store: Store, reader: Reader) -> Requests:
    del store  # makes the tables
    return reader.requests


def test_are_numbered_within_the_run(store: Store, requests: Requests) -> None:
    number, other = store.open_run(flow_run()), store.open_run(flow_run())
    assert store.requests(number, 0) == []
    first = requests.ask(number, "cancel", "me@here")
    requests.ask(other, "kill", "you@there")
    second = requests.ask(number, "cancel", "half \ud83d", ["load[1]", "löad[2]"])
    assert store.requests(number, 0) == [first, replace(second, by="half ?")]
    assert [row.id for row in store.requests(number, 1)] == [2]
    assert store.requests(number, 2) == []
    assert (first.id, first.kind, first.by, first.keys) == (1, "cancel", "me@here", ())
    assert second.keys == ("load[1]", "löad[2]")


def test_of_many_processes_are_each_there_once(store: Store, requests: Requests, url: str) -> None:
    number = store.open_run(flow_run())

    def ask() -> None:
        other = open_reader(url)
        for _ in range(10):
            other.requests.ask(number, "cancel", "me@here")
        other.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for start in range(0, 500, 10):
        store.commit(Batch(number, task_runs=[task_runs(0, range(start, start + 10))]))
    for thread in threads:
        thread.join()
    assert [row.id for row in store.requests(number, 0)] == list(range(1, 41))
    assert [row.id for row in store.requests(number, 39)] == [40]
    assert requests.ask(number, "cancel", "me@here").id == 41


def test_of_an_unknown_run_are_refused(requests: Requests) -> None:
    with pytest.raises(RunNotFound, match="no run with the number 4711"):
        requests.ask(4711, "cancel", "me@here")


def test_of_a_newer_schema_are_refused(store: Store, requests: Requests, url: str) -> None:
    number = store.open_run(flow_run())
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreVersionError, match="newer than"):
        requests.ask(number, "cancel", "me@here")
