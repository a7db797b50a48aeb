"""Writing to the store with patience, and telling the observers what was committed."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from raysched import faults
from raysched.engine.ports import Observer, Store
from raysched.errors import StoreError, StoreUnavailable
from raysched.model.records import CacheAnswer, CacheClaim, Records, Takeover
from raysched.model.rows import (
    ENGINE_LOGGER,
    Batch,
    Execution,
    FlowRunChange,
    FlowRunRow,
    LogRow,
)

logger = logging.getLogger("raysched.engine")

RETRY_SECONDS = 0.5
"""Pause between tries to reach the store (seconds)."""

T = TypeVar("T")


class _Patience:
    """Tries again while the store is away; says so once, and once when it is back.

    Args:
        seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._reason = ""
        self._since = 0.0
        self._ended = ""

    def insist(self, function: Callable[[], T]) -> T:
        """Return what a function returns, as soon as the store lets it.

        Raises:
            StoreUnavailable: It stayed away for longer.
            StoreError: This is a fork of the process that runs the flow.
        """
        if os.getpid() != self._process:
            raise StoreError(
                f"this process was forked inside a flow, from process {self._process}, which alone "
                "goes on with it: end the fork by os._exit(), or start processes by subprocess or "
                "multiprocessing instead"
            )
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                result = function()
            except StoreUnavailable as error:
                if time.monotonic() > deadline:
                    raise
                self._is_away(error)
                time.sleep(RETRY_SECONDS)
            else:
                if self._reason:
                    self._is_back()
                return result

    def take_ended(self) -> str:
        """Return what there is to note of the last absence; "" if that was done."""
        with self._lock:
            ended, self._ended = self._ended, ""
        return ended

    def _is_away(self, error: StoreUnavailable) -> None:
        with self._lock:
            if self._reason:
                return
            self._reason, self._since = str(error), time.monotonic()
        logger.warning("%s; nothing goes on until it is back", error)

    def _is_back(self) -> None:
        with self._lock:
            reason, self._reason = self._reason, ""
            if not reason:
                return
            gone = f"{time.monotonic() - self._since:.0f} s"
            self._ended = f"the database was away for {gone}: {reason}"
        logger.warning("the database is back after %s; everything goes on", gone)


class Keeper:
    """Keeps runs in a store that may be away for a while; from any thread.

    Args:
        store: The store.
        patience: How long an unreachable store is tried again (seconds).
        observers: Look at everything that was committed; what they raise is logged.
    """

    def __init__(self, store: Store, patience: float, observers: Sequence[Observer]) -> None:
        self._store = store
        self._patience = patience
        self.observers = observers
        # A database that is locked or full can still be read.
        self._reading = _Patience(patience)
        self._writing = _Patience(patience)

    def open_run(self, row: FlowRunRow) -> int:
        """Insert a flow run; return its number (see `Store.open_run`).

        Raises:
            StoreUnavailable: The store stayed away for longer than the patience.
        """
        number = self._writing.insist(partial(self._store.open_run, row))
        self._tell(row, Batch(number, flow_run=FlowRunChange(row.state)))
        return number

    def take_over(
        self, run_id: str, execution: Callable[[Sequence[Execution]], Execution]
    ) -> Takeover:
        """Own a flow run that another process has left (see `Store.take_over`).

        Raises:
            RunOwned: It is open, and its driver lives.
            RunNotFound: There is no such run.
            StoreUnavailable: The store stayed away for longer than the patience.
        """
        taken = self._writing.insist(partial(self._store.take_over, run_id, execution))
        self._tell(taken.row, Batch(taken.number, flow_run=FlowRunChange(taken.row.state)))
        return taken

    def records(self, run: int) -> Records:
        """Return what there is of a flow run (see `Store.records`).

        Raises:
            StoreUnavailable: The store stayed away for longer than the patience.
        """
        return self._reading.insist(partial(self._store.records, run))

    def number_of(self, run_id: str) -> int:
        """Return the number of a flow run (see `Store.number_of`).

        Raises:
            RunNotFound: There is no such run.
            StoreUnavailable: The store stayed away for longer than the patience.
        """
        return self._reading.insist(partial(self._store.number_of, run_id))

    def claim(self, run: int, claims: Sequence[CacheClaim], now: int = 0) -> Sequence[CacheAnswer]:
        """Return for each cache key its result, or who makes it (see `Store.claim`).

        Raises:
            StoreUnavailable: The store stayed away for longer than the patience.
        """
        return self._writing.insist(partial(self._store.claim, run, claims, now))

    def values(self, run: int, group: int, start: int, stop: int) -> Mapping[int, bytes]:
        """Return the kept values of members of a group (see `Store.values`).

        Raises:
            StoreUnavailable: The store stayed away for longer than the patience.
        """
        return self._reading.insist(partial(self._store.values, run, group, start, stop))

    def commit(self, row: FlowRunRow, batch: Batch) -> None:
        """Write a batch of one flow run (see `Store.commit`).

        Raises:
            StoreUnavailable: The store stayed away for longer than the patience.
            RunTakenOver: Another process has taken the run over.
        """
        try:
            self._writing.insist(partial(self._commit, batch))
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"{error}; it stayed away for more than {self._patience:g} s "
                "(RAYSCHED_STORE_PATIENCE_SECONDS), so this process ends. What was committed is "
                f"kept: when the database is back, go on with `raysched resume {row.id[:8]}`"
            ) from error
        ended = self._writing.take_ended()
        if ended:
            self._note(row, batch, ended)
        self._tell(row, batch)

    def close(self) -> None:
        """Close the store. Idempotent."""
        self._store.close()

    def _commit(self, batch: Batch) -> None:
        faults.reach("before commit")
        self._store.commit(batch)
        faults.reach("after commit")

    def _note(self, row: FlowRunRow, batch: Batch, text: str) -> None:
        """Keep a line in the log of a flow run, for whoever wonders later why it stood still."""
        at = time.time_ns()
        log = LogRow(-1, 0, row.attempts, at, logging.WARNING, ENGINE_LOGGER, text)
        note = Batch(batch.run, batch.epoch, logs=[log])
        with suppress(StoreUnavailable):
            self._store.commit(note)
            self._tell(row, note)

    def _tell(self, row: FlowRunRow, batch: Batch) -> None:
        for observer in self.observers:
            try:
                observer(row, batch)
            except Exception:
                logger.exception("an observer raised")
