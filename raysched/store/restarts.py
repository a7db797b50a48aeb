"""Clearing the rows of task runs that begin again in them."""

from collections.abc import Iterator, Sequence

from raysched.model.rows import Batch
from raysched.store.database import Execute
from raysched.store.tables import TASK_RUN

CLEARED = (
    "state = 0, started = 0, duration = NULL, size = NULL, handled = NULL, name = NULL, "
    "roots = NULL, value = NULL, reason = NULL, rolled_back = NULL, location = NULL, "
    "place = NULL"
)
"""All that an earlier execution has written, but for the number of attempts. State 0: SCHEDULED."""


def clear(execute: Execute, placeholder: str, batch: Batch) -> None:
    """Clear the rows of a batch's `restarted`.

    Args:
        execute: That of the transaction.
        placeholder: What stands for a parameter in the driver's own statements.
        batch: The batch.
    """
    if not batch.restarted:
        return
    of = placeholder
    statement = (
        f"UPDATE {TASK_RUN} SET {CLEARED} "  # noqa: S608 - our own names
        f"WHERE run = {of} AND grp = {of} AND idx BETWEEN {of} AND {of}"
    )
    for group, positions in batch.restarted:
        for first, last in _ranges(positions):
            execute(statement, (batch.run, group, first, last))


def _ranges(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of positions that are adjacent."""
    first = last = -2
    for position in sorted(positions):
        if position != last + 1:
            if first >= 0:
                yield first, last
            first = position
        last = position
    if first >= 0:
        yield first, last
