"""The order in which task runs have ended, and reading them in it, a page at a time."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    case,
    cast,
    select,
)

from raysched.model.states import FIRST_TERMINAL
from raysched.store.tables import ENDED, TASK_RUN

COLUMNS = (
    "grp",
    "idx",
    "state",
    "attempts",
    "place",
    "started",
    "ended",
    "size",
    "handled",
    "name",
    "roots",
    "reason",
    "rolled_back",
    "location",
)
"""What is read of a task run: all but its value."""

_GROUP = 2**32
"""How far the keys of two groups are apart: a group has fewer members."""

_FETCHED = 10_000
"""Keys fetched at once."""


class Order:
    """The task runs of a run that have ended, by group and the moment of their end.

    No index of the database leads to them in this order: they are sorted once, and their keys are
    kept, 8 bytes for each.

    Args:
        connection: Of a transaction.
        run: Number of the flow run.
        states: The recorded states of those that have ended.
        ended: When those ended that are recorded as open (ns).
    """

    def __init__(
        self, connection: Connection, run: int, states: Collection[int], ended: int
    ) -> None:
        end = case((TASK_RUN.c.state < FIRST_TERMINAL, ended), else_=ENDED).label("ended")
        columns = [end if name == "ended" else TASK_RUN.c[name] for name in COLUMNS]
        ended_ones = select(*columns).where(TASK_RUN.c.run == run, TASK_RUN.c.state.in_(states))
        self._query = ended_ones.order_by(TASK_RUN.c.grp, end, TASK_RUN.c.idx)
        key = cast(TASK_RUN.c.grp, BigInteger) * _GROUP + TASK_RUN.c.idx
        keys = connection.execute(
            self._query.with_only_columns(key), execution_options={"yield_per": _FETCHED}
        )
        self._keys = array("q", keys.scalars())

    def __len__(self) -> int:
        return len(self._keys)

    def page(self, connection: Connection, start: int, size: int) -> Sequence[Row[Any]]:
        """Return so many task runs from a place in the order on: their `COLUMNS`."""
        keys = self._keys[start : start + size]
        parts = (self._query.where(part) for part in _parts(keys))
        rows = [*chain.from_iterable(connection.execute(part).all() for part in parts)]
        if len(rows) == len(keys):
            return rows
        wanted = set(keys)
        return [row for row in rows if row.grp * _GROUP + row.idx in wanted]


def _parts(keys: Sequence[int]) -> Iterator[ColumnElement[bool]]:
    """Yield what leads to task runs by the primary key, in their order; there may be others."""
    groups, indices = zip(*(divmod(key, _GROUP) for key in keys), strict=True)
    first, last = groups[0], groups[-1]
    after_first, to_last = bisect_right(groups, first), bisect_left(groups, last)
    yield and_(TASK_RUN.c.grp == first, _within(indices[:after_first]))
    if after_first < to_last:
        yield and_(TASK_RUN.c.grp > first, TASK_RUN.c.grp < last)
    if first < last:
        yield and_(TASK_RUN.c.grp == last, _within(indices[to_last:]))


def _within(indices: Sequence[int]) -> ColumnElement[bool]:
    """Return what is true for these positions, and perhaps for as many others."""
    low, high = min(indices), max(indices)
    if high - low < 2 * len(indices):
        return TASK_RUN.c.idx.between(low, high)
    # As literals: parameters would take longer than the database.
    return TASK_RUN.c.idx.in_(
        bindparam("indices", [*indices], expanding=True, literal_execute=True)
    )
