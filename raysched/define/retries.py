"""Delays between retries, as Prefect has them."""

from collections.abc import Callable

from raysched.define.options import MAX_DELAYS


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Return delays that double: for `retry_delay_seconds`.

    The n-th delay is `backoff_factor * 2 ** n`, as in Prefect (after urllib3's `Retry`).

    Args:
        backoff_factor: The first delay (seconds).
    """

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**attempt for attempt in range(min(retries, MAX_DELAYS))]

    return delays
