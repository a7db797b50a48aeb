"""Executions, places and events, on every store."""

import json
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from raysched.errors import StoreVersionError
from raysched.model.events import ClusterEvent, EventKind
from raysched.model.rows import AttemptRow, Batch, Execution, GroupRow, PlaceRow
from raysched.model.states import StateType
from raysched.model.traces import Attributes, TraceParent, trace_id
from raysched.store import open_reader, open_store
from raysched.store.reader import Reader
from raysched.store.sql import SqlStore
from raysched.store.views import EventView
from store.samples import NOON, closing, execute, flow_run, group, resumed, task_runs

HERE = PlaceRow(1, "ab" * 28, "cd" * 28, 4711, "ant")
THERE = replace(HERE, id=2, worker_id="ef" * 28, host="bee é")

SAMPLED = str(TraceParent(b"t" * 16))
UNSAMPLED = str(TraceParent(b"t" * 16, sampled=False))


def event(message: str, **attributes: str | float) -> ClusterEvent:
    return ClusterEvent(EventKind.NODE_REMOVED, NOON, message, attributes)


class TestExecutions:
    def test_come_back_as_they_were_opened(self, store: SqlStore, reader: Reader) -> None:
        executions = (Execution(NOON, SAMPLED), Execution(NOON + 1))
        row = flow_run(executions=executions, traced=1)
        store.open_run(row)
        view = reader.find_run(row.id)
        assert (view.executions, view.traced) == (executions, 1)

    def test_tell_what_the_sampler_said(self, store: SqlStore, reader: Reader) -> None:
        said: Attributes = {
            "rule": "é\0",
            "share": 0.5,
            "which": ["a", "b"],
            "yes": True,
            "many": 2**40,
        }
        executions = (
            Execution(NOON, SAMPLED, "ot=th:8,vendor=a"),
            Execution(NOON, SAMPLED, "", said),
            Execution(NOON, UNSAMPLED, "ot=th:8", said),
        )
        row = flow_run(executions=executions)
        number = store.open_run(row)
        assert reader.find_run(row.id).executions == executions
        store.commit(closing(number))
        taken = store.take_over(row.id, lambda earlier: replace(earlier[-1], started=NOON + 5))
        assert taken.row.executions == (*executions, replace(executions[-1], started=NOON + 5))

    def test_without_more_are_as_short_as_can_be(self, store: SqlStore, url: str) -> None:
        row = flow_run(executions=(Execution(NOON, SAMPLED), Execution(NOON, SAMPLED, "a=b")))
        store.open_run(row)
        ((kept,),) = execute(url, "SELECT executions FROM flow_run")
        assert json.loads(kept) == [[NOON, SAMPLED], [NOON, SAMPLED, "a=b"]]

    def test_each_taker_appends_its_own(self, store: SqlStore, reader: Reader) -> None:
        first = Execution(NOON, SAMPLED)
        row = flow_run(executions=(first,))
        number = store.open_run(row)
        store.commit(closing(number))

        def second(earlier: Sequence[Execution]) -> Execution:
            assert earlier == (first,)
            return Execution(NOON + 5, str(TraceParent(trace_id(row.id, len(earlier) + 1))))

        taken = store.take_over(row.id, second)
        assert taken.row.executions == (first, second((first,)))
        assert reader.find_run(row.id).executions == (first, second((first,)))
        assert (taken.row.traced, store.records(number).next_place) == (0, 1)


class TestPlaces:
    def test_come_back_as_they_were_committed(
        self, store: SqlStore, reader: Reader, url: str
    ) -> None:
        row = flow_run()
        number = store.open_run(row)
        columns = task_runs(0, range(3))
        columns.places = [1, 2, 0]
        failed = AttemptRow(0, 1, 1, StateType.FAILED, NOON, NOON + 1, place=1)
        elsewhere = replace(failed, attempt=2, place=0)
        batch = Batch(
            number,
            groups=[group(size=3)],
            task_runs=[columns],
            attempts=[failed, elsewhere],
            places=[HERE, THERE, HERE],
        )
        store.commit(batch)
        store.commit(batch)
        view = reader.find_run(row.id)
        assert reader.places(view) == {1: HERE, 2: THERE}
        assert [each.place for each in reader.task_runs(view)] == [1, 2, 0]
        assert reader.attempts(view) == [failed, elsewhere]
        assert store.records(number).next_place == 3
        assert execute(url, "SELECT place FROM task_run ORDER BY idx")[2] == (None,)

    def test_without_any_there_are_none(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        store.commit(Batch(number, groups=[group(size=1)], task_runs=[task_runs(0, [0])]))
        view = reader.find_run(row.id)
        assert reader.places(view) == {}
        assert [each.place for each in reader.task_runs(view)] == [0]

    def test_belong_to_an_attempt(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        store.commit(Batch(number, groups=[group(size=2)]))

        def commit(attempts: int, place: int) -> list[int]:
            columns = task_runs(0, range(2))
            columns.attempts = [attempts] * 2
            # Of the second member it is known all the time.
            columns.places = [place, 7] if place else ()
            store.commit(Batch(number, task_runs=[columns]))
            return [each.place for each in reader.task_runs(reader.find_run(row.id))]

        assert commit(1, 1) == [1, 7]
        # The same attempt is told again.
        assert commit(1, 0) == [1, 7]
        assert commit(2, 0) == [0, 0]
        assert commit(2, 3) == [3, 7]

    def test_are_forgotten_by_members_that_begin_again(
        self, store: SqlStore, reader: Reader
    ) -> None:
        row = flow_run()
        number = store.open_run(row)
        columns = task_runs(0, range(2))
        columns.places = [1, 1]
        store.commit(Batch(number, groups=[group(size=2)], task_runs=[columns], places=[HERE]))
        store.commit(Batch(number, restarted=[(0, [1])]))
        assert [each.place for each in reader.task_runs(reader.find_run(row.id))] == [1, 0]

    def test_of_attempts_that_died_with_their_driver_stay(
        self, store: SqlStore, reader: Reader, url: str
    ) -> None:
        other = open_store(url)
        row = flow_run()
        number = other.open_run(row)
        columns = task_runs(0, [0], StateType.RUNNING)
        columns.places = [2]
        other.commit(Batch(number, groups=[group(size=1)], task_runs=[columns], places=[THERE]))
        other.close()
        store.take_over(row.id, resumed)
        (attempt,) = reader.attempts(reader.find_run(row.id))
        assert (attempt.state, attempt.place) == (StateType.CRASHED, 2)


class TestEvents:
    def test_are_numbered_in_order(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        number, other = store.open_run(row), store.open_run(flow_run())
        first = event("lost \ud83d", node_id="ab", bytes=2**40, share=0.5)
        second = ClusterEvent(EventKind.OUT_OF_MEMORY, NOON - 1, "killed")
        store.commit(Batch(number, events=[first]))
        store.commit(Batch(other, events=[first]))
        store.commit(Batch(number, events=[second]))
        view = reader.find_run(row.id)
        told = EventView(
            first.kind, NOON, "lost ?", {"node_id": "ab", "bytes": 2**40, "share": 0.5}, 1
        )
        assert reader.events(view) == [told, EventView(second.kind, NOON - 1, "killed", {}, 2)]
        assert [each.id for each in reader.events(view, after=1)] == [2]
        assert [each.id for each in reader.events(view, limit=1)] == [1]

    def test_committed_again_are_there_once(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        batch = Batch(number, events=[event("one"), event("two")])
        store.commit(batch)
        store.commit(batch)
        # What could not be committed comes again with what happened meanwhile.
        grown = Batch(number, events=[*batch.events, event("three")])
        store.commit(grown)
        store.commit(Batch(number, events=[event("one")]))
        said = [(each.id, each.message) for each in reader.events(reader.find_run(row.id))]
        assert said == [(1, "one"), (2, "two"), (3, "three"), (4, "one")]

    def test_go_on_counting_in_another_store(
        self, store: SqlStore, reader: Reader, url: str
    ) -> None:
        row = flow_run()
        number = store.open_run(row)
        happened = event("one")
        store.commit(replace(closing(number), events=[happened]))
        other = open_store(url)
        other.take_over(row.id, resumed)
        other.commit(Batch(number, epoch=2, events=[happened]))
        other.close()
        assert [each.id for each in reader.events(reader.find_run(row.id))] == [1, 2]


def test_times_of_groups_come_back(store: SqlStore, reader: Reader) -> None:
    row = flow_run()
    number = store.open_run(row)
    store.commit(Batch(number, groups=[GroupRow(0, "parse", 0, 1, created=NOON + 7)]))
    assert [each.created for each in reader.groups(reader.find_run(row.id))] == [NOON + 7]


def test_spans_of_the_users_are_not_kept(store: SqlStore) -> None:
    number = store.open_run(flow_run())
    store.commit(Batch(number, spans=[b"\x0a\x00"], dropped_spans=3))


class TestDelivered:
    def keep(self, url: str, *traceparents: str, ended: bool = True) -> str:
        """Keep a run of a driver that is dead; return its id."""
        row = flow_run(executions=tuple(Execution(NOON, each) for each in traceparents))
        store = open_store(url)
        number = store.open_run(row)
        if ended:
            store.commit(closing(number))
        store.close()
        return row.id

    def test_only_rises(self, url: str, reader: Reader) -> None:
        run_id = self.keep(url, SAMPLED, SAMPLED)
        for count, traced in ((1, 1), (0, 1), (2, 2), (1, 2)):
            reader.traces.delivered(run_id, count)
            assert reader.find_run(run_id).traced == traced

    def test_of_a_run_that_is_gone_is_nothing(self, store: SqlStore, reader: Reader) -> None:
        del store  # makes the tables
        reader.traces.delivered("ab" * 16, 1)

    def test_undelivered_ones_are_found(self, url: str, reader: Reader) -> None:
        assert reader.undelivered(0, limit=9) == []
        self.keep(url)
        self.keep(url, UNSAMPLED)
        self.keep(url, "")
        ended = self.keep(url, SAMPLED)
        lost = self.keep(url, "", SAMPLED, ended=False)
        half = self.keep(url, SAMPLED, UNSAMPLED, SAMPLED)
        reader.traces.delivered(half, 2)
        done = self.keep(url, SAMPLED, UNSAMPLED)
        reader.traces.delivered(done, 1)
        found = reader.undelivered(0, limit=9)
        assert [each.id for each in found] == [half, lost, ended]
        assert [each.lost for each in found] == [False, True, False]
        assert [each.id for each in reader.undelivered(0, limit=1)] == [half]
        assert reader.undelivered(NOON + 1, limit=9) == []
        assert [each.id for each in reader.undelivered(0, limit=1, only_lost=True)] == [lost]
        for run_id in (half, lost, ended):
            reader.traces.delivered(run_id, 3)
        assert reader.undelivered(0, limit=9) == []

    def test_those_of_a_living_driver_are_its_own(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run(executions=(Execution(NOON, SAMPLED),))
        number = store.open_run(row)
        assert reader.undelivered(0, limit=9) == []
        store.commit(closing(number))
        assert reader.undelivered(0, limit=9) == []
        store.close()
        assert [each.id for each in reader.undelivered(0, limit=9)] == [row.id]

    def test_another_execution_is_to_be_delivered_again(
        self, url: str, store: SqlStore, reader: Reader
    ) -> None:
        run_id = self.keep(url, SAMPLED)
        reader.traces.delivered(run_id, 1)
        taken = store.take_over(run_id, lambda _: Execution(NOON, SAMPLED))
        assert taken.row.traced == 1
        store.close()
        assert [each.id for each in reader.undelivered(0, limit=9)] == [run_id]

    def test_is_noted_while_the_driver_commits(
        self, url: str, store: SqlStore, reader: Reader
    ) -> None:
        row = flow_run(executions=(Execution(NOON, SAMPLED),) * 20)
        number = store.open_run(row)

        def note() -> None:
            other = open_reader(url)
            for count in range(1, 21):
                other.traces.delivered(row.id, count)
            other.close()

        thread = threading.Thread(target=note)
        thread.start()
        for start in range(0, 500, 10):
            store.commit(Batch(number, task_runs=[task_runs(0, range(start, start + 10))]))
        thread.join()
        view = reader.find_run(row.id)
        assert (view.traced, view.counts) == (20, {StateType.COMPLETED: 500})

    def test_of_a_newer_schema_is_refused(self, store: SqlStore, reader: Reader, url: str) -> None:
        del store
        execute(url, "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StoreVersionError, match="newer than"):
            reader.traces.delivered("ab" * 16, 1)
