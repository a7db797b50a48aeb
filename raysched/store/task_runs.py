"""Task runs as a lazy stream: rows where there are some, SCHEDULED members where there is none."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice, starmap
from typing import Any, TypeAlias

from sqlalchemy import Connection, Row, Select, select

from raysched.model.ids import task_run_key
from raysched.model.records import Kept
from raysched.model.rows import GroupRow
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo
from raysched.store.rows import error_info
from raysched.store.tables import ATTEMPT, HAS_VALUE, TASK_GROUP, TASK_RUN
from raysched.store.views import (
    BETWEEN_ATTEMPTS,
    DRIVER_LOST,
    RunView,
    TaskRunView,
    shown_state,
)

PAGE = 2000
"""Rows fetched at once."""

Reading: TypeAlias = Callable[[], AbstractContextManager[Connection]]
"""Opens a transaction that reads."""

Values: TypeAlias = dict[int, bytes]
"""Envelopes by position."""

_Errors: TypeAlias = dict[tuple[int, int], ErrorInfo | None]
"""Errors by member and number of the attempt."""


def read_groups(connection: Connection, run: int) -> list[GroupRow]:
    """Return the groups of a run by id, without their identities, which are long."""
    return [group_row(row) for row in connection.execute(select_groups(run))]


def select_groups(run: int) -> Select[Any]:
    """Return the query for the groups of a run by id, without their identities."""
    columns = [column for column in TASK_GROUP.c if column is not TASK_GROUP.c.identities]
    return select(*columns).where(TASK_GROUP.c.run == run).order_by(TASK_GROUP.c.id)


def group_row(row: Row[Any]) -> GroupRow:
    """Return the group in a row of `select_groups`."""
    return GroupRow(
        row.id,
        row.task,
        row.first,
        row.size,
        row.mapped,
        row.edges,
        tuple(json.loads(row.tags)),
        row.options,
        row.parent_key,
        row.plan,
        row.units,
        source=row.source,
        created=row.created,
    )


def stream(
    reading: Reading,
    run: RunView,
    *,
    task: str | None,
    states: Collection[StateType] | None,
    window: slice,
) -> Iterator[TaskRunView]:
    """Yield the task runs of a window of positions: see `Reader.task_runs`."""
    offset, stop = window.start, window.stop
    with reading() as connection:
        groups = read_groups(connection, run.number)
    wanted = [group for group in groups if task is None or group.task == task]
    members = _Members(reading, run, states, PAGE if stop is None else min(stop - offset, PAGE))
    if states is None:
        # Every member counts, so the first one is found without looking at those before it.
        starts = list(_starts(wanted, offset))
        offset, stop = 0, None if stop is None else stop - offset
    else:
        starts = [(group, 0) for group in wanted]
    found = chain.from_iterable(starmap(members.of, starts))
    return islice(found, offset, stop)


def find(reading: Reading, run: RunView, task: str, index: int) -> TaskRunView | None:
    """Return one task run: see `Reader.task_run`."""
    with reading() as connection:
        groups = read_groups(connection, run.number)
    for group in groups:
        if group.task == task and group.first <= index < group.first + group.size:
            return next(_Members(reading, run, None, 1).of(group, index - group.first))
    return None


def members(
    reading: Reading, run: RunView, group: GroupRow, start: int, stop: int
) -> list[TaskRunView]:
    """Return the members of a group from a position to another: see `Reader.members_of`."""
    size = max(stop - start, 0)
    of_group = _Members(reading, run, None, min(size, PAGE) or 1).of(group, start)
    return list(islice(of_group, size))


def read_values(connection: Connection, run: int, group: int, start: int, stop: int) -> Values:
    """Return the kept values of members of a group, by position."""
    query = select(TASK_RUN.c.idx, TASK_RUN.c.value).where(
        TASK_RUN.c.run == run,
        TASK_RUN.c.grp == group,
        TASK_RUN.c.idx >= start,
        TASK_RUN.c.idx < stop,
        TASK_RUN.c.value.is_not(None),
    )
    return {index: bytes(value) for index, value in connection.execute(query)}


def _starts(groups: Sequence[GroupRow], offset: int) -> Iterator[tuple[GroupRow, int]]:
    for group in groups:
        if offset < group.size:
            yield group, offset
        offset = max(0, offset - group.size)


class _Members:
    """The members of a run's groups that are in some states."""

    def __init__(
        self, reading: Reading, run: RunView, states: Collection[StateType] | None, page: int
    ) -> None:
        self._reading = reading
        self._run = run.number
        self._states = states
        self._page = page
        self._shown = {state: shown_state(state, lost=run.lost) for state in StateType}

    def of(self, group: GroupRow, start: int) -> Iterator[TaskRunView]:
        """Yield members from position `start` on."""
        with_holes = self._states is None or StateType.SCHEDULED in self._states
        position = start
        for rows, errors in self._pages(group.id, start, with_holes=with_holes):
            for row in rows:
                member = row[0]
                if with_holes and position < member:
                    yield from _without_rows(group, range(position, member))
                position = member + 1
                view = self._view(group, row, errors)
                if self._states is None or view.state in self._states:
                    yield view
        if with_holes:
            yield from _without_rows(group, range(position, group.size))

    def _pages(
        self, group: int, start: int, *, with_holes: bool
    ) -> Iterator[tuple[Sequence[Row[Any]], _Errors]]:
        query = _SELECT.where(TASK_RUN.c.run == self._run, TASK_RUN.c.grp == group)
        if not with_holes:
            query = query.where(TASK_RUN.c.state.in_(self._recorded_codes()))
        query = query.order_by(TASK_RUN.c.idx).limit(self._page)
        while True:
            with self._reading() as connection:
                rows = connection.execute(query.where(TASK_RUN.c.idx >= start)).all()
                errors = self._errors(connection, group, rows) if rows else {}
            yield rows, errors
            if len(rows) < self._page:
                return
            start = rows[-1][0] + 1

    def _recorded_codes(self) -> list[int]:
        states = self._states or ()
        return [int(state) for state, shown in self._shown.items() if shown in states]

    def _errors(self, connection: Connection, group: int, rows: Sequence[Row[Any]]) -> _Errors:
        query = select(ATTEMPT).where(
            ATTEMPT.c.run == self._run,
            ATTEMPT.c.grp == group,
            ATTEMPT.c.idx.between(rows[0].idx, rows[-1].idx),
        )
        found = connection.execute(query).mappings()
        return {(row["idx"], row["attempt"]): error_info(row) for row in found}

    def _view(self, group: GroupRow, row: Sequence[Any], errors: _Errors) -> TaskRunView:
        (
            member,
            code,
            attempts,
            started,
            duration,
            size,
            handled,
            name,
            roots,
            reason,
            rolled_back,
            location,
            inline,
            place,
        ) = row
        state = self._shown[code]
        index = group.first + member
        key = task_run_key(group.task, index)
        error = errors.get((member, attempts))
        if state != code:
            reason = "" if error is None else BETWEEN_ATTEMPTS
            error = DRIVER_LOST
        return TaskRunView(
            group.task,
            key,
            index,
            state,
            attempts,
            started,
            0 if duration is None else started + duration,
            name or key,
            tuple(json.loads(roots)) if roots else (),
            size or 0,
            bool(handled),
            group.tags,
            error,
            group.id,
            member,
            reason or "",
            bool(rolled_back),
            location or "",
            Kept.INLINE if inline else Kept.STORED if location else Kept.NOTHING,
            place or 0,
        )


_SELECT: Select[Any] = select(
    TASK_RUN.c.idx,
    TASK_RUN.c.state,
    TASK_RUN.c.attempts,
    TASK_RUN.c.started,
    TASK_RUN.c.duration,
    TASK_RUN.c.size,
    TASK_RUN.c.handled,
    TASK_RUN.c.name,
    TASK_RUN.c.roots,
    TASK_RUN.c.reason,
    TASK_RUN.c.rolled_back,
    TASK_RUN.c.location,
    HAS_VALUE,
    TASK_RUN.c.place,
)
"""Without the value, which may be large."""


def _without_rows(group: GroupRow, positions: range) -> Iterator[TaskRunView]:
    for position in positions:
        index = group.first + position
        key = task_run_key(group.task, index)
        yield TaskRunView(
            group.task,
            key,
            index,
            StateType.SCHEDULED,
            name=key,
            tags=group.tags,
            group=group.id,
            member=position,
        )
