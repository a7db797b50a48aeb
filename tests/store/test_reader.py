from itertools import product
from pathlib import Path

import pytest

from raysched.errors import RunNotFound
from raysched.model.rows import AttemptRow, Batch, GroupRow
from raysched.model.states import StateType
from raysched.store import open_reader, open_store
from raysched.store import reader as reader_module
from raysched.store.reader import Reader
from raysched.store.sql import SqlStore
from raysched.store.views import RunView
from store.samples import ERROR, NOON, closing, flow_run, group, log, task_runs


class TestNothing:
    def test_missing_database_has_no_runs(self, reader: Reader) -> None:
        assert reader.runs() == []
        with pytest.raises(RunNotFound, match="no runs yet"):
            reader.find_run("last")

    def test_looking_creates_nothing(self, sqlite_path: Path) -> None:
        reader = open_reader(f"sqlite:///{sqlite_path}")
        assert reader.runs() == []
        reader.close()
        assert list(sqlite_path.parent.iterdir()) == []

    def test_database_is_found_when_it_comes(self, reader: Reader, url: str) -> None:
        assert reader.runs() == []
        store = open_store(url)
        row = flow_run()
        store.open_run(row)
        assert [run.id for run in reader.runs()] == [row.id]
        store.close()


class TestFindRun:
    def test_by_id_prefix_and_last(self, store: SqlStore, reader: Reader) -> None:
        first, second = flow_run(id="aa" + "0" * 30), flow_run(id="ab" + "0" * 30)
        for row in (first, second):
            store.open_run(row)
        store.open_run(flow_run(parent=second.id))
        assert reader.find_run(first.id).id == first.id
        assert reader.find_run("AA0").id == first.id
        assert reader.find_run("last").id == second.id

    def test_id_that_another_one_begins_with(self, store: SqlStore, reader: Reader) -> None:
        for name in ("abc", "abcd"):
            store.open_run(flow_run(id=name))
        assert reader.find_run("abc").id == "abc"

    def test_several_matches_are_named(self, store: SqlStore, reader: Reader) -> None:
        for name in ("aa01", "aa02", "bb03"):
            store.open_run(flow_run(id=name))
        with pytest.raises(RunNotFound, match=r"several ids begin so \(aa02, aa01\)"):
            reader.find_run("aa")

    @pytest.mark.parametrize("text", ["x", "", "%", "_a01", "aa01 "])
    def test_no_match_names_the_newest(self, store: SqlStore, reader: Reader, text: str) -> None:
        store.open_run(flow_run(id="aa01"))
        with pytest.raises(RunNotFound, match=r"the newest runs are aa01 \(nightly\)"):
            reader.find_run(text)


class TestRuns:
    def test_newest_first_and_filtered(self, store: SqlStore, reader: Reader) -> None:
        rows = [flow_run(id=f"{n:02x}", flow=f"flow-{n % 2}", started=NOON + n) for n in range(6)]
        numbers = [store.open_run(row) for row in rows]
        store.commit(closing(numbers[2], StateType.FAILED))
        store.commit(closing(numbers[3]))

        def ids(**conditions: object) -> list[str]:
            return [run.id for run in reader.runs(**conditions)]  # type: ignore[arg-type]

        assert ids() == ["05", "04", "03", "02", "01", "00"]
        assert ids(limit=2) == ["05", "04"]
        assert ids(limit=0) == []
        assert ids(flow="flow-1") == ["05", "03", "01"]
        assert ids(flow="flow-1", limit=1) == ["05"]
        assert ids(since_ns=NOON + 4) == ["05", "04"]
        assert ids(states={StateType.FAILED}) == ["02"]
        assert ids(states={StateType.FAILED, StateType.COMPLETED}) == ["03", "02"]
        assert ids(states={StateType.RUNNING}, limit=3) == ["05", "04", "01"]
        assert ids(states=[]) == []

    def test_that_are_asked_to_cancel_are_cancelling_while_they_are_open(
        self, store: SqlStore, reader: Reader
    ) -> None:
        rows = [flow_run() for _ in range(4)]
        numbers = [store.open_run(row) for row in rows]
        for by in ("me", "you"):
            reader.requests.ask(numbers[0], "cancel", by)
        reader.requests.ask(numbers[1], "cancel", "me", ["parse[0]"])
        reader.requests.ask(numbers[2], "kill", "me")
        store.commit(closing(numbers[2]))

        def ids(*states: StateType) -> list[str]:
            return [run.id for run in reader.runs(states=states)]

        assert ids(StateType.CANCELLING) == [rows[0].id]
        assert ids(StateType.RUNNING) == [rows[3].id, rows[1].id]
        assert ids(StateType.COMPLETED) == [rows[2].id]
        run = reader.find_run(rows[0].id)
        assert (run.state, run.message) == (StateType.CANCELLING, "me has asked to cancel it")
        store.close()
        assert ids(StateType.CANCELLING) == []
        assert reader.find_run(rows[0].id).state is StateType.CRASHED

    def test_many_are_listed_whole(
        self, store: SqlStore, reader: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reader_module, "PAGE", 4)
        rows = [flow_run() for _ in range(9)]
        for row in rows:
            store.open_run(row)
        assert [run.id for run in reader.runs()] == [row.id for row in reversed(rows)]

    def test_subflows_are_children(self, store: SqlStore, reader: Reader) -> None:
        parent = flow_run()
        child = flow_run(parent=parent.id, parent_key="prepare[0]")
        for row in (parent, child):
            store.open_run(row)
        assert [run.id for run in reader.runs()] == [parent.id]
        assert len(reader.runs(include_children=True)) == 2
        (found,) = reader.children(reader.find_run(parent.id))
        assert (found.id, found.parent_key) == (child.id, "prepare[0]")
        assert reader.children(found) == []


class TestCounts:
    def test_members_without_a_row_are_scheduled(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        batch = Batch(number, groups=[group(size=10)], task_runs=[task_runs(0, range(4))])
        store.commit(batch)
        expected = {StateType.SCHEDULED: 6, StateType.COMPLETED: 4}
        assert reader.find_run(row.id).counts == expected
        store.commit(closing(number))
        assert reader.find_run(row.id).counts == expected

    def test_open_rows_of_a_lost_driver(self, url: str, reader: Reader) -> None:
        store = open_store(url)
        row = flow_run()
        number = store.open_run(row)
        open_states = [state for state in StateType if not state.is_terminal]
        columns = task_runs(0, range(len(open_states)))
        columns.states = bytearray(open_states)
        store.commit(Batch(number, groups=[group(size=8)], task_runs=[columns]))
        store.close()
        run = lost_run(reader, row.id)
        assert (run.state, run.message, run.lost) == (StateType.CRASHED, "driver lost", True)
        assert run.counts == {
            StateType.CRASHED: 4,
            StateType.SCHEDULED: 3,
            StateType.PAUSED: 1,
        }
        crashed = list(reader.task_runs(run, states={StateType.CRASHED}))
        assert {view.index for view in crashed} == {
            StateType.PENDING,
            StateType.RUNNING,
            StateType.AWAITING_RETRY,
            StateType.CANCELLING,
        }
        assert {view.error and view.error.message for view in crashed} == {"driver lost"}
        assert list(reader.task_runs(run, states={StateType.RUNNING})) == []
        assert [run.id for run in reader.runs(states={StateType.CRASHED})] == [row.id]
        assert reader.runs(states={StateType.RUNNING}) == []


def lost_run(reader: Reader, run_id: str) -> RunView:
    """Return a run once it is lost: a server lets go of a lock a moment after its client left."""
    while not (run := reader.find_run(run_id)).lost:
        pass
    return run


def test_counts_by_task(url: str, reader: Reader) -> None:
    store = open_store(url)
    row = flow_run()
    number = store.open_run(row)
    groups = [group(0, 3), group(1, 2, "load"), group(2, 2, first=3)]
    columns = [task_runs(0, [0]), task_runs(2, [0, 1], StateType.RUNNING)]
    store.commit(Batch(number, groups=groups, task_runs=columns))
    run = reader.find_run(row.id)
    assert reader.task_counts(run) == {
        "parse": {StateType.SCHEDULED: 2, StateType.RUNNING: 2, StateType.COMPLETED: 1},
        "load": {StateType.SCHEDULED: 2},
    }
    store.close()
    run = lost_run(reader, row.id)
    assert reader.task_counts(run)["parse"][StateType.CRASHED] == 2


class TestTaskRuns:
    @pytest.fixture
    def run(self, store: SqlStore) -> str:
        """Two groups of `parse` around one of `load`, with holes, failures and a retry."""
        row = flow_run()
        number = store.open_run(row)
        groups = [
            GroupRow(0, "parse", 0, 5, tags=("io",)),
            GroupRow(1, "load", 0, 1),
            GroupRow(2, "parse", 5, 3),
        ]
        failed = task_runs(0, [3], StateType.FAILED)
        failed.attempts = [2]
        store.commit(
            Batch(
                number,
                groups=groups,
                task_runs=[task_runs(0, [1]), failed, task_runs(2, [0, 2])],
                attempts=[
                    AttemptRow(0, 3, 1, StateType.FAILED, NOON, NOON),
                    AttemptRow(0, 3, 2, StateType.FAILED, NOON, NOON, ERROR),
                ],
                logs=[log("a", 0, 3), log("b", 1, 0), log("c", -1), log("d", 2, 1)],
            )
        )
        return row.id

    ALL = (
        "parse[0]",
        "parse[1]",
        "parse[2]",
        "parse[3]",
        "parse[4]",
        "load[0]",
        "parse[5]",
        "parse[6]",
        "parse[7]",
    )

    def keys(self, reader: Reader, run: str, **conditions: object) -> list[str]:
        views = reader.task_runs(reader.find_run(run), **conditions)  # type: ignore[arg-type]
        return [view.key for view in views]

    def test_every_member_comes_in_order(self, reader: Reader, run: str) -> None:
        assert self.keys(reader, run) == list(self.ALL)

    def test_of_one_task(self, reader: Reader, run: str) -> None:
        assert self.keys(reader, run, task="load") == ["load[0]"]
        assert self.keys(reader, run, task="nothing") == []

    def test_in_some_states(self, reader: Reader, run: str) -> None:
        completed = ["parse[1]", "parse[5]", "parse[7]"]
        assert self.keys(reader, run, states={StateType.COMPLETED}) == completed
        assert self.keys(reader, run, states={StateType.COMPLETED}, offset=1, limit=1) == [
            "parse[5]"
        ]
        without_row = {"parse[0]", "parse[2]", "parse[4]", "load[0]", "parse[6]"}
        assert set(self.keys(reader, run, states={StateType.SCHEDULED})) == without_row
        scheduled_or_failed = {StateType.SCHEDULED, StateType.FAILED}
        assert set(self.keys(reader, run, states=scheduled_or_failed)) == without_row | {"parse[3]"}

    def test_a_part(self, reader: Reader, run: str) -> None:
        for offset, limit in product(range(11), (0, 1, 4, None)):
            expected = list(self.ALL)[offset:][:limit]
            assert self.keys(reader, run, offset=offset, limit=limit) == expected

    def test_one(self, reader: Reader, run: str) -> None:
        view = reader.find_run(run)
        failed = reader.task_run(view, "parse", 3)
        assert failed is not None
        assert (failed.error, failed.attempts, failed.tags) == (ERROR, 2, ("io",))
        waiting = reader.task_run(view, "parse", 6)
        assert waiting is not None
        assert (waiting.key, waiting.state) == ("parse[6]", StateType.SCHEDULED)
        assert reader.value(view, "parse", 6) is None
        for index in (8, -1):
            assert reader.task_run(view, "parse", index) is None
            assert reader.value(view, "parse", index) is None

    def test_is_lazy(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        number = store.open_run(row)
        store.commit(Batch(number, groups=[group(size=2 * 10**9)]))
        views = reader.task_runs(reader.find_run(row.id))
        assert [next(views).index for _ in range(3)] == [0, 1, 2]
        (far,) = reader.task_runs(reader.find_run(row.id), offset=2 * 10**9 - 1)
        assert far.key == f"parse[{2 * 10**9 - 1}]"

    def test_logs_of_a_task(self, reader: Reader, run: str) -> None:
        view = reader.find_run(run)
        assert [record.key for record in reader.logs(view)] == [
            "parse[3]",
            "load[0]",
            "",
            "parse[6]",
        ]
        assert [record.message for record in reader.logs(view, task="parse")] == ["a", "d"]
        assert [record.message for record in reader.logs(view, after=1, limit=2)] == ["b", "c"]
