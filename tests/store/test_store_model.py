"""Random batches, some committed twice, against a plain dict."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysched.model.records import Kept
from raysched.model.rows import AttemptRow, Batch, TaskRunColumns
from raysched.model.states import StateType
from raysched.store.reader import Reader
from raysched.store.sql import SqlStore
from store.samples import ERROR, NOON, flow_run, group, log

GROUPS = 3
SIZE = 6

states = st.sampled_from(StateType)
members = st.lists(st.integers(0, SIZE - 1), unique=True, min_size=1, max_size=SIZE)
values = st.none() | st.binary(max_size=40)


@dataclass
class Model:
    """What the reader must show."""

    task_runs: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    attempts: dict[tuple[int, int, int], AttemptRow] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, batch: Batch) -> None:
        for columns in batch.task_runs:
            for position, index in enumerate(columns.indices):
                self._write(
                    columns, position, self.task_runs.setdefault((columns.group, index), {})
                )
        for row in batch.attempts:
            self.attempts[row.group, row.index, row.attempt] = row
        self.messages += [record.message for record in batch.logs]

    @staticmethod
    def _write(columns: TaskRunColumns, position: int, row: dict[str, Any]) -> None:
        place = columns.places[position] if columns.places else 0
        if columns.attempts[position] == row.get("attempts"):
            place = place or row["place"]
        row["place"] = place
        row["state"] = columns.states[position]
        row["attempts"] = columns.attempts[position]
        row["started"] = columns.started[position]
        row["ended"] = columns.ended[position]
        row["size"] = columns.sizes[position] or row.get("size", 0)
        row["handled"] = position in columns.handled or row.get("handled", False)
        row["roots"] = columns.roots.get(position) or row.get("roots", ())
        row["value"] = _first(columns.values[position], row.get("value"))
        row["name"] = columns.names.get(position) or row.get("name")
        row["reason"] = columns.reasons.get(position) or row.get("reason", "")
        row["rolled_back"] = position in columns.rolled_back or row.get("rolled_back", False)
        row["location"] = columns.locations.get(position) or row.get("location", "")


def _first(new: bytes | None, old: bytes | None) -> bytes | None:
    return old if new is None else new


@st.composite
def some_columns(draw: st.DrawFn) -> TaskRunColumns:
    indices = draw(members)
    positions = st.integers(0, len(indices) - 1)

    def column(elements: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(elements, min_size=len(indices), max_size=len(indices)))

    times = st.just(0) | st.integers(NOON, NOON + 2**40)
    return TaskRunColumns(
        draw(st.integers(0, GROUPS - 1)),
        indices,
        bytearray(column(states)),
        column(st.integers(0, 5)),
        column(times),
        column(times),
        column(values),
        column(st.just(0) | st.integers(1, 2**40)),
        draw(st.dictionaries(positions, st.just("parse é"), max_size=3)),
        draw(st.dictionaries(positions, st.just(("load[1]",)), max_size=3)),
        frozenset(draw(st.sets(positions, max_size=3))),
        draw(st.dictionaries(positions, st.just("skipped: not today ü"), max_size=3)),
        frozenset(draw(st.sets(positions, max_size=3))),
        draw(st.dictionaries(positions, st.just("file:///r/é#0+9:ab"), max_size=3)),
        column(st.integers(0, 3)) if draw(st.booleans()) else (),
    )


some_attempts = st.builds(
    AttemptRow,
    st.integers(0, GROUPS - 1),
    st.integers(0, SIZE - 1),
    st.integers(1, 3),
    states,
    st.just(NOON),
    st.integers(NOON, NOON + 2**40),
    st.none() | st.just(ERROR),
    st.sampled_from(["", "no retries left"]),
    st.integers(0, 3),
)

batches = st.builds(
    Batch,
    st.just(0),
    task_runs=st.lists(some_columns(), max_size=4),
    attempts=st.lists(some_attempts, max_size=4),
    logs=st.lists(
        st.builds(log, st.text(st.characters(codec="ascii", exclude_characters="\0"))), max_size=3
    ),
)


# Each example has a run of its own, so they may share the database.
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=st.lists(st.tuples(batches, st.booleans()), max_size=6))
def test_store_is_a_dict(
    store: SqlStore, reader: Reader, history: list[tuple[Batch, bool]]
) -> None:
    row = flow_run()
    number = store.open_run(row)
    model = Model()
    first = 0
    groups = []
    for id_ in range(GROUPS):
        groups.append(group(id_, SIZE, "parse", first))
        first += SIZE
    store.commit(Batch(number, groups=groups))
    for batch, again in history:
        batch.run = number
        store.commit(batch)
        if again:
            store.commit(batch)
        model.commit(batch)
    check(reader, row.id, model)


def kept(row: dict[str, Any]) -> Kept:
    if row["value"] is not None:
        return Kept.INLINE
    return Kept.STORED if row["location"] else Kept.NOTHING


def check(reader: Reader, run_id: str, model: Model) -> None:
    run = reader.find_run(run_id)
    views = list(reader.task_runs(run))
    assert [view.index for view in views] == list(range(GROUPS * SIZE))
    for view in views:
        expected = model.task_runs.get((view.group, view.member))
        if expected is None:
            assert (view.state, view.attempts) == (StateType.SCHEDULED, 0)
            continue
        assert view.state == expected["state"]
        assert (view.attempts, view.started) == (expected["attempts"], expected["started"])
        assert view.ended == expected["ended"]
        assert (view.size, view.handled) == (expected["size"], expected["handled"])
        assert (view.roots, view.place) == (expected["roots"], expected["place"])
        assert (view.reason, view.rolled_back) == (expected["reason"], expected["rolled_back"])
        assert view.name == expected["name"] or view.name == view.key
        assert reader.value(run, "parse", view.index) == expected["value"]
        assert (view.kept, view.location) == (kept(expected), expected["location"])
        attempt = model.attempts.get((view.group, view.member, view.attempts))
        assert view.error == (attempt.error if attempt else None)
    assert reader.attempts(run) == [model.attempts[key] for key in sorted(model.attempts)]
    assert [record.message for record in reader.logs(run)] == model.messages
    counted = [view.state for view in views]
    assert run.counts == {state: counted.count(state) for state in set(counted)}
