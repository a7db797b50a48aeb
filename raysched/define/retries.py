"""Words about retries: delays as Prefect has them, and what a `retry_on` function may answer."""

from collections.abc import Callable
from dataclasses import dataclass

from raysched.define.checker import MAX_DELAYS, is_number
from raysched.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class Retry:
    """Answer of a `retry_on` function: try again, if there are retries left.

    Args:
        delay_seconds: Seconds until then; None for the task's own delay.
        reason: Why, for people; kept with the attempt.

    Raises:
        InvalidOption: The delay is not a number, 0 or more.
    """

    delay_seconds: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        delay = self.delay_seconds
        if delay is not None and (not is_number(delay) or delay < 0):
            raise InvalidOption(
                f"Retry(delay_seconds={delay!r}): must be seconds, 0 or more, or None for the "
                "task's own delay"
            )


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer of a `retry_on` function: do not try again, whatever retries are left.

    Args:
        reason: Why, for people; kept with the attempt.
    """

    reason: str = ""


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Return delays that double: for `retry_delay_seconds`.

    The n-th delay is `backoff_factor * 2 ** n`, as in Prefect (after urllib3's `Retry`).

    Args:
        backoff_factor: The first delay (seconds).
    """

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**attempt for attempt in range(min(retries, MAX_DELAYS))]

    return delays
