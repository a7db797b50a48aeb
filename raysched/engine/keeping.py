"""Writing to the store with patience, and telling the observers what was committed."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from raysched import faults
from raysched.engine.ports import Observer, Store
from raysched.errors import StoreUnavailable
from raysched.model.rows import Batch, FlowRunChange, FlowRunRow

logger = logging.getLogger("raysched.engine")

RETRY_SECONDS = 0.5
"""Pause between tries to reach the store (seconds)."""

T = TypeVar("T")


class Keeper:
    """Keeps runs in a store that may be away for a while.

    Args:
        store: The store.
        patience: How long an unreachable store is tried again (seconds).
        observers: Look at everything that was committed; what they raise is logged.
    """

    def __init__(self, store: Store, patience: float, observers: Sequence[Observer]) -> None:
        self._store = store
        self._patience = patience
        self._observers = observers

    def open_run(self, row: FlowRunRow) -> int:
        """Insert a flow run; return its number (see `Store.open_run`).

        Raises:
            StoreUnavailable: The store stayed away for longer than the patience.
        """
        number = self._insisting(partial(self._store.open_run, row))
        self._tell(row, Batch(number, flow_run=FlowRunChange(row.state)))
        return number

    def commit(self, row: FlowRunRow, batch: Batch) -> None:
        """Write a batch of one flow run (see `Store.commit`).

        Raises:
            StoreUnavailable: The store stayed away for longer than the patience.
        """
        self._insisting(partial(self._commit, batch))
        self._tell(row, batch)

    def close(self) -> None:
        """Close the store. Idempotent."""
        self._store.close()

    def _commit(self, batch: Batch) -> None:
        faults.reach("before commit")
        self._store.commit(batch)
        faults.reach("after commit")

    def _tell(self, row: FlowRunRow, batch: Batch) -> None:
        for observer in self._observers:
            try:
                observer(row, batch)
            except Exception:
                logger.exception("an observer raised")

    def _insisting(self, function: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience
        warned = False
        while True:
            try:
                return function()
            except StoreUnavailable as error:
                if time.monotonic() > deadline:
                    raise
                if not warned:
                    logger.warning("%s; nothing goes on until it is back", error)
                    warned = True
                time.sleep(RETRY_SECONDS)
