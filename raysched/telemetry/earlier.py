"""What earlier executions of a flow run have left, for those who observe only this one."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeAlias

from raysched.errors import StoreError
from raysched.model.rows import Batch, FlowRunRow

logger = logging.getLogger("raysched.telemetry")

Replay: TypeAlias = Callable[[str], Iterator[tuple[FlowRunRow, Batch]]]
"""Returns what is kept of a flow run and its subflows (see `store.replay`)."""


def nothing_kept(run_id: str) -> Iterator[tuple[FlowRunRow, Batch]]:
    """Know nothing of any flow run."""
    del run_id
    return iter(())


def earlier_batches(replay: Replay, row: FlowRunRow) -> Iterator[Batch]:
    """Yield what is kept of a flow run that goes on here; nothing for one that has just begun.

    Where the database cannot be read, what goes on in rows of an earlier execution stays unknown.
    """
    if len(row.executions) <= 1:
        return
    try:
        for earlier, batch in replay(row.id):
            if earlier.id == row.id:
                yield batch
    except StoreError as error:
        logger.debug("what run %s goes on from is not known: %s", row.id, error)
