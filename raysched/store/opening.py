"""Opening a store while the process has something else to wait for."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from raysched.engine.ports import Store
from raysched.model.records import CacheAnswer, CacheClaim, Records, Takeover
from raysched.model.rows import Batch, Execution, FlowRunRow, RequestRow


class OpeningStore:
    """A store that a thread of its own opens; whoever uses it waits until it is open.

    Args:
        open_store: Opens it.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        threads = ThreadPoolExecutor(1, "raysched store")
        self._opening = threads.submit(open_store)
        threads.shutdown(wait=False)

    def opened(self) -> Store:
        """Return the store.

        Raises:
            StoreError: It cannot be opened.
        """
        return self._opening.result()

    def open_run(self, row: FlowRunRow) -> int:
        """See `Store.open_run`."""
        return self.opened().open_run(row)

    def take_over(
        self, run_id: str, execution: Callable[[Sequence[Execution]], Execution]
    ) -> Takeover:
        """See `Store.take_over`."""
        return self.opened().take_over(run_id, execution)

    def records(self, run: int) -> Records:
        """See `Store.records`."""
        return self.opened().records(run)

    def number_of(self, run_id: str) -> int:
        """See `Store.number_of`."""
        return self.opened().number_of(run_id)

    def claim(self, run: int, claims: Sequence[CacheClaim], now: int = 0) -> Sequence[CacheAnswer]:
        """See `Store.claim`."""
        return self.opened().claim(run, claims, now)

    def commit(self, batch: Batch) -> None:
        """See `Store.commit`."""
        self.opened().commit(batch)

    def values(self, run: int, group: int, start: int, stop: int) -> Mapping[int, bytes]:
        """See `Store.values`."""
        return self.opened().values(run, group, start, stop)

    def requests(self, run: int, after: int) -> Sequence[RequestRow]:
        """See `Store.requests`."""
        return self.opened().requests(run, after)

    def close(self) -> None:
        """See `Store.close`."""
        if self._opening.exception() is None:
            self.opened().close()
