"""What is kept of a run, told once more in batches as its engine would commit them now."""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import compress, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Result, Row, Select, and_, case, select

from raysched.model.events import ClusterEvent
from raysched.model.rows import (
    AttemptRow,
    Batch,
    FlowRunChange,
    FlowRunRow,
    LogRow,
    TaskRunColumns,
)
from raysched.model.states import FIRST_TERMINAL, StateType
from raysched.store.rows import attempt
from raysched.store.snapshots import Snapshots
from raysched.store.tables import ATTEMPT, ENDED, LOG, TASK_RUN
from raysched.store.task_runs import group_row, select_groups
from raysched.store.traces import last_told, read_places
from raysched.store.views import (
    DRIVER_LOST,
    ON_THEIR_WAY,
    RunView,
    shown_state,
)

if TYPE_CHECKING:
    from raysched.store.reader import Reader

ROWS = 2_000
"""Most rows of a batch."""


def replay(
    reader: "Reader", run: RunView, *, logs: bool = False
) -> Iterator[tuple[FlowRunRow, Batch]]:
    """Yield a flow run and those that it called, as if they were committed just now.

    Of each run first the opening, then groups, places, the task runs that have ended with their
    attempts, then the runs that it called, log records, events, and last its closing. The task runs
    of a group come in the order of their ends, and before them the attempts of those that have not
    ended, but wait for the next one. Rows are read as they are asked for, so that a million task
    runs need little memory; values are not read.

    What the loss of a driver has crashed is told as a takeover would write it, with the last moment
    of which the run tells as its end. A run that goes on has no closing yet, and its open task runs
    are not told.

    Args:
        reader: Reads the database; used while this goes on.
        run: The run.
        logs: Whether to tell log records.
    """
    yield from _tree(reader, run, logs=logs)


def _tree(
    reader: "Reader", run: RunView, *, logs: bool
) -> Generator[tuple[FlowRunRow, Batch], None, int]:
    """Do what `replay` says; return when the run has ended (ns), 0 if it goes on."""
    row = _as_opened(run)
    ended = reader.last_told(run) if run.lost else run.ended
    yield row, Batch(run.number, run.epoch, FlowRunChange(StateType.RUNNING))
    for batch in reader.committed(run, ended):
        yield row, batch
    for child in reversed(reader.children(run)):
        child_ended = yield from _tree(reader, child, logs=logs)
        if run.lost:
            ended = max(ended, child_ended)
    if logs:
        for batch in reader.committed_logs(run):
            yield row, batch
    if events := reader.events(run):
        happened = [
            ClusterEvent(each.kind, each.at, each.message, each.attributes) for each in events
        ]
        yield row, Batch(run.number, run.epoch, events=happened)
    if run.state.is_terminal:
        change = FlowRunChange(run.state, run.message, ended, run.error, run.attempts, run.late)
        yield row, Batch(run.number, run.epoch, change)
    return ended


def _as_opened(run: RunView) -> FlowRunRow:
    columns = {field.name: getattr(run, field.name) for field in fields(FlowRunRow)}
    return replace(FlowRunRow(**columns), state=StateType.RUNNING, message="", ended=0, error=None)


class ReplayReader(Snapshots):
    """Reads all of a run in pages, each page as a batch."""

    def last_told(self, run: RunView) -> int:
        """Return the last moment of which a run tells (ns): its driver was alive then."""
        with self._reading() as connection:
            return last_told(connection, run.number)

    def committed(self, run: RunView, ended: int) -> Iterator[Batch]:
        """Yield groups, places, attempts, and the task runs that have ended with theirs.

        Args:
            run: The run.
            ended: Of a lost one, when its attempts ended that were under way (ns).
        """
        with self._reading() as connection:
            for page in _pages(connection, select_groups(run.number)):
                yield Batch(run.number, run.epoch, groups=[group_row(row) for row in page])
            if places := read_places(connection, run.number):
                yield Batch(run.number, run.epoch, places=places)
            for rows in _execute(connection, _select_unfinished(run)).mappings().partitions():
                yield Batch(run.number, run.epoch, attempts=[attempt(row) for row in rows])
            for page in _pages(connection, _select_ended(run, ended)):
                attempts = _attempts(connection, run, page, ended)
                task_runs = [*_columns(run, page)]
                yield Batch(run.number, run.epoch, task_runs=task_runs, attempts=attempts)

    def committed_logs(self, run: RunView) -> Iterator[Batch]:
        """Yield the log records of a run."""
        query = select(LOG).where(LOG.c.run == run.number).order_by(LOG.c.id)
        with self._reading() as connection:
            for page in _pages(connection, query):
                yield Batch(run.number, run.epoch, logs=[_log(row) for row in page])


def _pages(connection: Connection, query: Select[Any]) -> Iterator[Sequence[Row[Any]]]:
    return _execute(connection, query).partitions()


def _execute(connection: Connection, query: Select[Any]) -> Result[Any]:
    return connection.execute(query, execution_options={"yield_per": ROWS})


def _log(row: Row[Any]) -> LogRow:
    return LogRow(row.grp, row.idx, row.attempt, row.at, row.level, row.logger, row.message)


def _select_ended(run: RunView, ended: int) -> Select[Any]:
    """Return the query for all of the task runs that have ended but their values."""
    end = case((TASK_RUN.c.state < FIRST_TERMINAL, ended), else_=ENDED).label("ended")
    return (
        select(
            TASK_RUN.c.grp,
            TASK_RUN.c.idx,
            TASK_RUN.c.state,
            TASK_RUN.c.attempts,
            TASK_RUN.c.place,
            TASK_RUN.c.started,
            end,
            TASK_RUN.c.size,
            TASK_RUN.c.handled,
            TASK_RUN.c.name,
            TASK_RUN.c.roots,
            TASK_RUN.c.reason,
            TASK_RUN.c.rolled_back,
            TASK_RUN.c.location,
        )
        .where(TASK_RUN.c.run == run.number, TASK_RUN.c.state.in_(_ended_states(run)))
        .order_by(TASK_RUN.c.grp, end, TASK_RUN.c.idx)
    )


def _select_unfinished(run: RunView) -> Select[Any]:
    """Return the query for the attempts of the task runs that have not ended."""
    return (
        select(ATTEMPT)
        .join(
            TASK_RUN,
            and_(
                TASK_RUN.c.run == ATTEMPT.c.run,
                TASK_RUN.c.grp == ATTEMPT.c.grp,
                TASK_RUN.c.idx == ATTEMPT.c.idx,
            ),
        )
        .where(ATTEMPT.c.run == run.number, TASK_RUN.c.state.not_in(_ended_states(run)))
        .order_by(ATTEMPT.c.grp, ATTEMPT.c.idx, ATTEMPT.c.attempt)
    )


def _ended_states(run: RunView) -> list[int]:
    """Return the recorded states of task runs that have ended, as they are shown."""
    return [int(each) for each in StateType if shown_state(each, lost=run.lost).is_terminal]


def _columns(run: RunView, page: Sequence[Row[Any]]) -> Iterator[TaskRunColumns]:
    """Yield the task runs of a page by group."""
    columns = list(zip(*page, strict=True))
    shown = {int(state): int(shown_state(state, lost=run.lost)) for state in StateType}
    start = 0
    for group, members in groupby(columns[0]):
        stop = start + sum(1 for _ in members)
        yield _part(group, [column[start:stop] for column in columns[1:]], shown)
        start = stop


def _part(group: int, columns: Sequence[Sequence[Any]], shown: Mapping[int, int]) -> TaskRunColumns:
    indices, states, attempts, places, started, ended, sizes, handled, names, *rest = columns
    roots, reasons, rolled_back, locations = rest
    size = len(indices)
    return TaskRunColumns(
        group,
        indices,
        [shown[state] for state in states],
        attempts,
        started,
        ended,
        [None] * size,
        [each or 0 for each in sizes],
        _texts(names),
        {at: tuple(json.loads(text)) for at, text in _texts(roots).items()},
        frozenset(compress(range(size), handled)),
        _texts(reasons),
        frozenset(compress(range(size), rolled_back)),
        _texts(locations),
        [place or 0 for place in places],
    )


def _texts(column: Sequence[str | None]) -> dict[int, str]:
    return {at: text for at, text in enumerate(column) if text is not None}


def _attempts(
    connection: Connection, run: RunView, page: Sequence[Row[Any]], ended: int
) -> list[AttemptRow]:
    """Return the attempts of task runs, with those that the loss of the driver has ended."""
    eventful = [row for row in page if _is_eventful(row)]
    if not eventful:
        return []
    members = {(row.grp, row.idx) for row in eventful}
    # SQLite looks up each of two columns in its index, but not pairs of them.
    groups, indices = map(set, zip(*members, strict=True))
    query = select(ATTEMPT).where(
        ATTEMPT.c.run == run.number, ATTEMPT.c.grp.in_(groups), ATTEMPT.c.idx.in_(indices)
    )
    rows = connection.execute(query).mappings()
    found = [attempt(row) for row in rows if (row["grp"], row["idx"]) in members]
    known = {(row.group, row.index, row.attempt) for row in found}
    found += [
        AttemptRow(
            row.grp,
            row.idx,
            row.attempts,
            StateType.CRASHED,
            row.started,
            ended,
            DRIVER_LOST,
            place=row.place or 0,
        )
        for row in eventful
        if row.state in ON_THEIR_WAY and (row.grp, row.idx, row.attempts) not in known
    ]
    return sorted(found, key=attrgetter("group", "index", "attempt"))


def _is_eventful(row: Row[Any]) -> bool:
    """Whether a task run has rows of attempts; an uneventful one has none."""
    return bool(
        row.attempts and (row.attempts > 1 or row.state != StateType.COMPLETED or row.handled)
    )
