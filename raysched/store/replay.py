"""What is kept of a run, told once more in batches as its engine would commit them now."""

import json
import pickle
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from functools import partial
from itertools import compress, groupby
from operator import attrgetter
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, Row, Select, and_, func, select, tuple_

from raysched.errors import StoreError
from raysched.model.events import ClusterEvent
from raysched.model.rows import (
    AttemptRow,
    Batch,
    FlowRunChange,
    FlowRunRow,
    LogRow,
    TaskRunColumns,
)
from raysched.model.states import StateType
from raysched.store.order import Order
from raysched.store.rows import attempt
from raysched.store.snapshots import Snapshots
from raysched.store.tables import ATTEMPT, FLOW_RUN, LOG, TASK_GROUP, TASK_RUN
from raysched.store.task_runs import Reading, group_row, select_groups
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

_AHEAD = 4
"""Batches of task runs that are read in one transaction: most of its cost is its beginning."""

SPOOLED = 8 * 1024**2
"""From this size on (bytes), what was read of an open run is in a file."""


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
    """Reads all of a run in pages, each page as a batch.

    No transaction is open while whoever asks for batches has one: a collector that is slow keeps
    nobody from cleaning up in the database.
    """

    def last_told(self, run: RunView) -> int:
        """Return the last moment of which a run tells (ns): its driver was alive then."""
        with self._reading() as connection:
            return last_told(connection, run.number)

    def committed(self, run: RunView, ended: int) -> Iterator[Batch]:
        """Yield groups, places, attempts, and the task runs that have ended with theirs.

        The rows of a run that has ended stay as they are, until somebody goes on with it. Those of
        an open one are read at one moment, and kept in a file until they are asked for: one that
        goes on with an earlier execution's begins again in rows of task runs that had ended.

        Args:
            run: The run.
            ended: Of a lost one, when its attempts ended that were under way (ns).

        Raises:
            StoreError: A run that had ended is worked on again, or was removed, before all of it
                was read.
        """
        if run.state.is_terminal:
            yield from _batches(partial(self._unchanged, run), run, ended)
            return
        # In memory as long as it is small.
        with SpooledTemporaryFile(SPOOLED) as file:
            with self._reading() as connection:
                for batch in _batches(lambda: nullcontext(connection), run, ended):
                    _keep(file, batch)
            size = file.tell()
            file.seek(0)
            while file.tell() < size:
                yield pickle.load(file)

    def committed_logs(self, run: RunView) -> Iterator[Batch]:
        """Yield the log records of a run that there are now."""
        of_run = LOG.c.run == run.number
        with self._reading() as connection:
            last = connection.execute(select(func.max(LOG.c.id)).where(of_run)).scalar() or 0
        query = select(LOG).where(of_run, LOG.c.id <= last).order_by(LOG.c.id)
        for page in _pages(self._reading, query, LOG.c.id):
            yield Batch(run.number, run.epoch, logs=[_log(row) for row in page])

    @contextmanager
    def _unchanged(self, run: RunView) -> Iterator[Connection]:
        """Open a transaction in which a run is as it was when it was looked at."""
        epoch = select(FLOW_RUN.c.epoch).where(
            FLOW_RUN.c.number == run.number, FLOW_RUN.c.removed.is_(None)
        )
        with self._reading() as connection:
            if connection.execute(epoch).scalar() != run.epoch:
                raise StoreError(
                    f"run {run.id} was resumed or removed while it was read; look at it again"
                )
            yield connection


def _keep(file: IO[bytes], batch: Batch) -> None:
    try:
        pickle.dump(batch, file, pickle.HIGHEST_PROTOCOL)
    except OSError as error:
        raise StoreError(
            f"what was read of a run cannot be kept in {gettempdir()} ({error.strerror}): "
            "set TMPDIR to a directory with room"
        ) from error


def _batches(reading: Reading, run: RunView, ended: int) -> Iterator[Batch]:
    """Do what `ReplayReader.committed` says; none of the transactions is open at a `yield`.

    Args:
        reading: Opens a transaction; all of them see the same rows of this run.
        run: The run.
        ended: Of a lost one, when its attempts ended that were under way (ns).
    """
    for page in _pages(reading, select_groups(run.number), TASK_GROUP.c.id):
        yield Batch(run.number, run.epoch, groups=[group_row(row) for row in page])
    with reading() as connection:
        places = read_places(connection, run.number)
    if places:
        yield Batch(run.number, run.epoch, places=places)
    for page in _pages(reading, _select_unfinished(run), *ATTEMPT.primary_key.columns):
        waiting = [attempt(row._mapping) for row in page]  # noqa: SLF001 - its public name
        yield Batch(run.number, run.epoch, attempts=waiting)
    with reading() as connection:
        order = Order(connection, run.number, _ended_states(run), ended)
    for start in range(0, len(order), _AHEAD * ROWS):
        with reading() as connection:
            members = order.page(connection, start, _AHEAD * ROWS)
            pages = [members[at : at + ROWS] for at in range(0, len(members), ROWS)]
            attempts_of = [_attempts(connection, run, page, ended) for page in pages]
        for page, attempts in zip(pages, attempts_of, strict=True):
            task_runs = [*_columns(run, page)]
            yield Batch(run.number, run.epoch, task_runs=task_runs, attempts=attempts)


def _pages(reading: Reading, query: Select[Any], *key: Column[Any]) -> Iterator[Sequence[Row[Any]]]:
    """Yield the rows of a query, each page in a transaction of its own.

    Args:
        reading: Opens a transaction.
        query: The query.
        key: The columns that the query is ordered by, which no two rows have in common.
    """
    query = following = query.limit(ROWS)
    while True:
        with reading() as connection:
            page = connection.execute(following).all()
        if page:
            yield page
        if len(page) < ROWS:
            return
        last = [getattr(page[-1], column.name) for column in key]
        following = query.where(tuple_(*key) > tuple_(*last))


def _log(row: Row[Any]) -> LogRow:
    return LogRow(row.grp, row.idx, row.attempt, row.at, row.level, row.logger, row.message)


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
        .order_by(*ATTEMPT.primary_key.columns)
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
