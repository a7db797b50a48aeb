"""What others do to a database and to a run while it is told, on every store."""

import pytest

from raysched.errors import StoreError
from raysched.model.events import ClusterEvent, EventKind
from raysched.model.rows import AttemptRow, Batch, FlowRunRow, PlaceRow
from raysched.model.states import StateType
from raysched.store.reader import Reader
from raysched.store.replay import ROWS, replay
from raysched.store.sql import SqlStore
from store.replays import attempts, members, told
from store.samples import NOON, closing, execute, flow_run, group, log, resumed, task_runs


def open_transactions(url: str) -> int:
    """How many transactions of others keep the database from being cleaned up."""
    if url.startswith("sqlite"):
        execute(url, "UPDATE flow_run SET late = late + 1")
        ((busy, *_),) = execute(url, "PRAGMA wal_checkpoint(TRUNCATE)")
        return int(busy)
    idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    return int(execute(url, idle)[0][0])


class TestSlowConsumer:
    """Whoever is told may take as long as it likes for a batch."""

    @pytest.fixture(params=["ended", "open"])
    def row(self, store: SqlStore, request: pytest.FixtureRequest) -> FlowRunRow:
        """A run with several pages of everything."""
        size = 5 * ROWS
        row = flow_run()
        number = store.open_run(row)
        failed = task_runs(0, range(size))
        failed.attempts = [2] * size
        waiting = task_runs(1, range(size), StateType.AWAITING_RETRY)
        store.commit(
            Batch(
                number,
                groups=[group(0, size), group(1, size, "load")],
                task_runs=[failed, waiting],
                attempts=[
                    AttemptRow(grp, index, 1, StateType.FAILED, NOON, NOON + 1)
                    for grp in range(2)
                    for index in range(size)
                ],
                logs=[log(str(index)) for index in range(size)],
                places=[PlaceRow(1, "ab", "cd", 4711, "ant")],
                events=[ClusterEvent(EventKind.NODE_REMOVED, NOON + 5, "", {})],
            )
        )
        if request.param == "ended":
            store.commit(closing(number))
        return row

    def test_holds_no_transaction_open(self, row: FlowRunRow, reader: Reader, url: str) -> None:
        batches = replay(reader, reader.find_run(row.id), logs=True)
        assert {open_transactions(url) for _ in batches} == {0}

    def test_is_told_all_of_it(self, row: FlowRunRow, reader: Reader) -> None:
        batches = told(reader, row.id)
        everyone = list(range(5 * ROWS))
        assert [index for _, index, *_ in members(batches)] == everyone
        rows = [(row.group, row.index) for row in attempts(batches)]
        assert rows == [(grp, index) for grp in (1, 0) for index in everyone]
        assert sum(len(batch.logs) for _, batch in batches) == 5 * ROWS


class TestRunThatChangesMeanwhile:
    def test_open_one_is_told_as_it_was(self, store: SqlStore, reader: Reader) -> None:
        size = 2 * ROWS
        row = flow_run()
        number = store.open_run(row)
        store.commit(Batch(number, groups=[group(0, size)], task_runs=[task_runs(0, range(size))]))
        before = told(reader, row.id)
        batches = replay(reader, reader.find_run(row.id), logs=True)
        first = [next(batches), next(batches)]
        store.commit(Batch(number, groups=[group(1)], restarted=[(0, range(size))]))
        assert [*first, *batches] == before

    def test_ended_one_that_is_resumed_is_told_no_further(
        self, store: SqlStore, reader: Reader
    ) -> None:
        row = flow_run()
        number = store.open_run(row)
        store.commit(Batch(number, groups=[group(0, 1)], task_runs=[task_runs(0, [0])]))
        store.commit(closing(number, StateType.FAILED))
        batches = replay(reader, reader.find_run(row.id))
        first = [next(batches), next(batches)]
        store.take_over(row.id, resumed)
        with pytest.raises(StoreError, match=f"{row.id} was resumed or removed"):
            next(batches)
        assert [batch.flow_run is None for _, batch in first] == [False, True]
