"""What a reader tells about failures."""

from dataclasses import replace

from raysched.model.rows import ENGINE_LOGGER, AttemptRow, Batch, InputRow
from raysched.model.states import StateType
from raysched.store.reader import Reader
from raysched.store.sql import SqlStore
from raysched.store.views import SeenView
from store.samples import ERROR, NOON, closing, execute, flow_run, group, log, task_runs


def failed(index: int, begun: int, fingerprint: str = "f" * 16) -> AttemptRow:
    error = replace(ERROR, fingerprint=fingerprint)
    return AttemptRow(0, index, 1, StateType.FAILED, NOON + begun, NOON + begun + 1, error)


class TestSeen:
    def test_counts_over_all_runs(self, store: SqlStore, reader: Reader) -> None:
        rows = [flow_run() for _ in range(3)]
        numbers = [store.open_run(row) for row in rows]
        store.commit(Batch(numbers[0], attempts=[failed(0, 5), failed(1, 3)]))
        store.commit(Batch(numbers[1], attempts=[failed(0, 9), failed(1, 20, "e" * 16)]))
        store.commit(Batch(numbers[2], attempts=[failed(0, 30, "")]))
        first, second = rows[0].id, rows[1].id
        assert reader.seen("f" * 16) == SeenView(NOON + 3, first, NOON + 9, second, 3, 2)
        assert reader.seen("e" * 16) == SeenView(NOON + 20, second, NOON + 20, second, 1, 1)

    def test_nothing_was_seen(self, store: SqlStore, reader: Reader) -> None:
        store.commit(Batch(store.open_run(flow_run()), attempts=[failed(0, 0, "")]))
        assert reader.seen("0" * 16) is None
        assert reader.seen("") is None

    def test_no_attempt_is_read_to_count_them(self, store: SqlStore, url: str) -> None:
        del store
        if url.startswith("sqlite"):
            plan = execute(
                url,
                "EXPLAIN QUERY PLAN SELECT count(*), count(DISTINCT run), min(started), "
                "max(started) FROM attempt WHERE error_fingerprint = 'f'",
            )
            assert "USING COVERING INDEX ix_attempt_error_fingerprint" in str(plan)


class TestEarlierRuns:
    def test_last_completed_is_of_the_same_flow_and_before(
        self, store: SqlStore, reader: Reader
    ) -> None:
        rows = [flow_run() for _ in range(4)]
        rows[1] = flow_run(flow="weekly")
        numbers = [store.open_run(row) for row in rows]
        for number in (numbers[0], numbers[1], numbers[3]):
            store.commit(closing(number))
        before = reader.last_completed(reader.find_run(rows[2].id))
        assert before is not None
        assert before.id == rows[0].id
        assert reader.last_completed(before) is None

    def test_last_success_is_that_of_the_same_index_where_it_can_be(
        self, store: SqlStore, reader: Reader
    ) -> None:
        rows = [flow_run() for _ in range(3)]
        numbers = [store.open_run(row) for row in rows]
        groups = [group(0, 2), group(1, 3, first=2), group(2, 2, "load")]
        completed = [task_runs(0, range(1, 2)), task_runs(1, [0, 2])]
        store.commit(Batch(numbers[0], groups=groups, task_runs=completed))
        # The run between ended without any success of that task.
        others = [task_runs(0, range(2), StateType.FAILED), task_runs(2, range(2))]
        store.commit(Batch(numbers[1], groups=groups, task_runs=others))
        run = reader.find_run(rows[2].id)

        def success(task: str, index: int) -> tuple[str, str]:
            found = reader.last_success(run, task, index)
            assert found is not None
            return found[0].id, found[1].key

        assert success("parse", 4) == (rows[0].id, "parse[4]")
        assert success("parse", 3) == (rows[0].id, "parse[1]")
        assert success("parse", 99) == (rows[0].id, "parse[1]")
        assert success("load", 1) == (rows[1].id, "load[1]")
        assert reader.last_success(run, "other", 0) is None
        assert reader.last_success(reader.find_run(rows[0].id), "parse", 4) is None


class TestCrashes:
    def test_of_all_runs_that_were_open_then(self, store: SqlStore, reader: Reader) -> None:
        ended, going_on = flow_run(), flow_run(flow="weekly")
        numbers = [store.open_run(row) for row in (ended, going_on)]
        for number, shift in zip(numbers, (0, 10), strict=True):
            attempts = [
                replace(failed(index, shift + index), state=state)
                for index, state in enumerate([StateType.CRASHED] * 3 + [StateType.FAILED])
            ]
            store.commit(Batch(number, groups=[group(first=7)], attempts=attempts))
        store.commit(closing(numbers[0]))

        def keys(since: int, until: int, limit: int = 100) -> list[tuple[str, str]]:
            crashes = reader.crashes(NOON + since, NOON + until, limit=limit)
            assert all(
                crash.attempt.error == replace(ERROR, fingerprint="f" * 16) for crash in crashes
            )
            return [(crash.flow, crash.key) for crash in crashes]

        assert keys(2, 11) == [
            ("nightly", "parse[8]"),
            ("nightly", "parse[9]"),
            ("weekly", "parse[7]"),
        ]
        assert keys(2, 11, limit=1) == [("weekly", "parse[7]")]
        assert keys(100, 200) == []


class TestOfOneTaskRun:
    def test_attempts_of_some_members(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        attempts = [failed(index, index) for index in range(5)]
        store.commit(Batch(store.open_run(row), attempts=attempts))
        run = reader.find_run(row.id)
        assert reader.attempts(run, 0, [3, 1]) == [attempts[1], attempts[3]]
        assert reader.attempts(run, 0, []) == []

    def test_arguments_with_those_of_its_group(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        shared, single = InputRow(0, -1, b"\0shared", "[]"), InputRow(0, 3, b"", '[["gather"]]')
        store.commit(Batch(store.open_run(row), inputs=[single, shared, InputRow(1, 0, b"other")]))
        run = reader.find_run(row.id)
        assert reader.inputs(run, 0, 3) == (single, shared)
        assert reader.inputs(run, 0, 4) == (None, shared)
        assert reader.inputs(run, 1, 0) == (InputRow(1, 0, b"other"), InputRow(1, -1, b""))

    def test_last_log_records(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        logs = [log(f"{index} {n}", index=index) for n in range(5) for index in range(2)]
        store.commit(Batch(store.open_run(row), groups=[group(first=10)], logs=logs))
        run = reader.find_run(row.id)
        found = reader.last_logs(run, 0, 1, 3)
        assert [record.message for record in found] == ["1 2", "1 3", "1 4"]
        assert {record.key for record in found} == {"parse[11]"}

    def test_what_the_engine_said_in_a_span_of_time(self, store: SqlStore, reader: Reader) -> None:
        row = flow_run()
        users = replace(log("user", group=-1), at=NOON + 5)
        engines = [
            replace(users, at=NOON + at, logger=ENGINE_LOGGER, message=str(at)) for at in range(9)
        ]
        store.commit(Batch(store.open_run(row), logs=[users, *engines]))
        run = reader.find_run(row.id)

        def said(limit: int = 100) -> list[str]:
            found = reader.logs_between(run, NOON + 3, NOON + 6, logger=ENGINE_LOGGER, limit=limit)
            return [record.message for record in found]

        assert said() == ["3", "4", "5", "6"]
        assert said(2) == ["5", "6"]
