"""What there is of a flow run, in columns: what a resume goes on from."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress, groupby
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from raysched.errors import RunNotFound
from raysched.model.records import Kept, RecordedFlowRun, RecordedGroup, Records
from raysched.model.states import StateType
from raysched.store.tables import DELIVERY, FLOW_RUN, HAS_VALUE, PLACE, TASK_GROUP, TASK_RUN

PAGE = 2_000
"""Rows of task runs that are fetched at once."""

FEW = 8
"""Groups of at most so many members, as blocking calls make, have their values read along."""

VALUES_BYTES = 8 * 1024**2
"""Most that is read along (bytes); what comes after is read when it is needed."""


def find_run(connection: Connection, run_id: str, *, locked: bool = False) -> RowMapping:
    """Return the row of a flow run.

    Args:
        connection: Of the transaction.
        run_id: Its id.
        locked: Whether nobody else may change it until the transaction ends.

    Raises:
        RunNotFound: There is no such run.
    """
    query = select(FLOW_RUN).where(FLOW_RUN.c.id == run_id, FLOW_RUN.c.removed.is_(None))
    if locked:
        query = query.with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise RunNotFound(f"run {run_id!r}: there is no such run; `raysched runs` lists them")
    return row


def read_records(connection: Connection, run: int) -> Records:
    """Return what there is of a flow run: see `engine.ports.Store.records`."""
    records = Records(run, [])
    groups: dict[int, RecordedGroup] = {}
    query = select(TASK_GROUP).where(TASK_GROUP.c.run == run).order_by(TASK_GROUP.c.id)
    for row in connection.execute(query).mappings():
        records.next_group = row["id"] + 1
        task, stop = row["task"], row["first"] + row["size"]
        records.next_index[task] = max(stop, records.next_index.get(task, 0))
        if not row["parent_key"]:
            groups[row["id"]] = _empty_group(row)
    for page in _pages(connection, run):
        _fill(groups, page)
    _read_along(connection, run, groups)
    records.groups = list(groups.values())
    records.next_place = _next_place(connection, run)
    records.deliveries = _deliveries(connection, run)
    records.flow_runs = _flow_runs(connection, run)
    return records


def _empty_group(row: RowMapping) -> RecordedGroup:
    size = row["size"]
    return RecordedGroup(
        row["id"],
        row["task"],
        row["first"],
        size,
        row["mapped"],
        bytes(row["identities"] or b""),
        row["source"],
        bytearray([StateType.SCHEDULED]) * size,
        array("H", bytes(2 * size)),
        array("q", bytes(8 * size)),
        array("q", bytes(8 * size)),
        bytearray([Kept.NOTHING]) * size,
        array("q", bytes(8 * size)),
    )


_SELECT = select(
    TASK_RUN.c.grp,
    TASK_RUN.c.idx,
    TASK_RUN.c.state,
    TASK_RUN.c.attempts,
    TASK_RUN.c.started,
    func.coalesce(TASK_RUN.c.started + TASK_RUN.c.duration, 0),
    func.coalesce(TASK_RUN.c.size, 0),
    HAS_VALUE,
    TASK_RUN.c.location,
    TASK_RUN.c.rolled_back,
    TASK_RUN.c.handled,
).order_by(TASK_RUN.c.grp, TASK_RUN.c.idx)


def _pages(connection: Connection, run: int) -> Iterator[Sequence[Sequence[Any]]]:
    """Yield columns of task runs, page by page, without SQLAlchemy's object for each row."""
    result = connection.execute(_SELECT.where(TASK_RUN.c.run == run))
    while rows := result.cursor.fetchmany(PAGE):
        yield list(zip(*rows, strict=True))


def _fill(groups: Mapping[int, RecordedGroup], page: Sequence[Sequence[Any]]) -> None:
    start = 0
    for number, members in groupby(page[0]):
        stop = start + sum(1 for _ in members)
        if number in groups:
            _fill_group(groups[number], [column[start:stop] for column in page[1:]])
        start = stop


def _fill_group(group: RecordedGroup, columns: Sequence[Sequence[Any]]) -> None:
    indices, states, attempts, started, ended, sizes, inline, locations, *marks = columns
    filled = (
        (group.states, states),
        (_array(group.attempts), attempts),
        (_array(group.started), started),
        (_array(group.ended), ended),
        (_array(group.sizes), sizes),
        (group.kept, inline),
    )
    start, stop = indices[0], indices[-1] + 1
    for column, values in filled:
        if stop - start > len(indices):
            for index, value in zip(indices, values, strict=True):
                column[index] = value
        elif isinstance(column, array):
            column[start:stop] = array(column.typecode, values)
        else:
            column[start:stop] = bytes(values)
    for index, location in compress(zip(indices, locations, strict=True), locations):
        if not group.kept[index]:
            group.kept[index] = Kept.STORED
            group.locations[index] = location
    undone, handled = (frozenset(compress(indices, mark)) for mark in marks)
    group.rolled_back |= undone
    group.handled |= handled


def _read_along(connection: Connection, run: int, groups: Mapping[int, RecordedGroup]) -> None:
    if all(group.size > FEW for group in groups.values()):
        return
    of_few = select(TASK_GROUP.c.id).where(TASK_GROUP.c.run == run, TASK_GROUP.c.size <= FEW)
    query = (
        select(TASK_RUN.c.grp, TASK_RUN.c.idx, TASK_RUN.c.value)
        .where(TASK_RUN.c.run == run, TASK_RUN.c.grp.in_(of_few), TASK_RUN.c.value.is_not(None))
        .order_by(TASK_RUN.c.grp, TASK_RUN.c.idx)
    )
    result, left = connection.execute(query), VALUES_BYTES
    while left > 0 and (rows := result.cursor.fetchmany(PAGE)):
        for number, index, value in rows:
            left -= len(value)
            if number in groups and left >= 0:
                groups[number].values[index] = bytes(value)
    result.close()


def _array(column: Sequence[int]) -> "array[int]":
    """Return a column as what `_empty_group` has made it."""
    assert isinstance(column, array)  # noqa: S101 - for the reader of types
    return column


def _next_place(connection: Connection, run: int) -> int:
    last = connection.execute(select(func.max(PLACE.c.id)).where(PLACE.c.run == run)).scalar()
    return (last or 0) + 1


def _deliveries(connection: Connection, run: int) -> list[tuple[int, int]]:
    query = select(DELIVERY.c.grp, DELIVERY.c.idx).where(DELIVERY.c.run == run)
    given = connection.execute(query.order_by(DELIVERY.c.id))
    return [(group, index) for group, index in given]


def _flow_runs(connection: Connection, run: int) -> list[RecordedFlowRun]:
    parent = select(FLOW_RUN.c.id).where(FLOW_RUN.c.number == run).scalar_subquery()
    query = (
        select(FLOW_RUN.c.id, FLOW_RUN.c.identity, FLOW_RUN.c.state, FLOW_RUN.c.result)
        .where(
            FLOW_RUN.c.parent == parent,
            # What an attempt called is evidence only.
            FLOW_RUN.c.parent_key == "",
            FLOW_RUN.c.removed.is_(None),
        )
        .order_by(FLOW_RUN.c.number)
    )
    return [
        RecordedFlowRun(run_id, identity or b"", StateType(state), result)
        for run_id, identity, state, result in connection.execute(query)
    ]
