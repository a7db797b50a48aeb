"""Whether and when a failed attempt is followed by another one."""

from dataclasses import dataclass
from hashlib import blake2b

from raysched.model.options import RetryOptions
from raysched.model.values import ErrorInfo, FailureClass, RetryVerdict

NANOSECONDS = 1_000_000_000

CRASH_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before a crashed attempt is tried again, by number of the crash; the last one repeats."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again at `at` (ns since the epoch)."""

    at: int


@dataclass(frozen=True, slots=True)
class Ask:
    """The user's `retry_condition_fn` decides."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not try again; `reason` says why, for people."""

    reason: str


def decide(  # noqa: PLR0913 - the whole history that the decision rests on
    options: RetryOptions,
    error: ErrorInfo,
    *,
    failures: int,
    crashes: int,
    answer: bool | None,
    seed: str,
    now: int,
) -> Retry | Ask | Stop:
    """Decide what follows a failed attempt.

    Args:
        options: The task's retry options.
        error: Of the attempt that has just failed; with what `retry_on` said of it.
        failures: Attempts that failed by the user's code or a timeout, this one included.
        crashes: Attempts that crashed, this one included.
        answer: What `retry_condition_fn` said about this attempt, or None if it was not asked.
        seed: What the jitter is hashed from: equal for equal attempts of equal runs.
        now: The time (ns since the epoch).
    """
    if error.failure_class is FailureClass.CANCELLED:
        return Stop("cancelled")
    if error.failure_class is FailureClass.INFRASTRUCTURE:
        return _after_crash(options, crashes, now)
    verdict = error.evidence.get("retry", RetryVerdict())
    if not verdict.get("retry", True):
        return Stop(told(error) or "retry_on said no")
    if failures > options.retries:
        return Stop(_used_up(options.retries, "retries"))
    if options.condition is not None and not answer:
        return Ask() if answer is None else Stop("retry_condition_fn said no")
    delay = verdict.get("delay_seconds")
    if delay is None:
        delay = delay_seconds(options, failures, seed)
    return Retry(now + int(delay * NANOSECONDS))


def told(error: ErrorInfo) -> str:
    """Return the reason that `retry_on` gave for its verdict, or ""."""
    return error.evidence.get("retry", RetryVerdict()).get("reason", "")


def _used_up(budget: int, name: str) -> str:
    return f"all {budget} {name} used" if budget else f"no {name}"


def _after_crash(options: RetryOptions, crashes: int, now: int) -> Retry | Stop:
    if crashes > options.crash_retries:
        return Stop(_used_up(options.crash_retries, "crash_retries"))
    delay = CRASH_DELAYS[min(crashes, len(CRASH_DELAYS)) - 1]
    return Retry(now + int(delay * NANOSECONDS))


def delay_seconds(options: RetryOptions, failures: int, seed: str) -> float:
    """Return the delay before the next attempt (seconds), jitter included.

    The jitter spreads retries over [d, d * (1 + jitter_factor)], where Prefect draws from a
    clamped Poisson distribution; hashed from `seed` instead of drawn, so that it is the same when
    the decision is made again.
    """
    if not options.delays:
        return 0.0
    delay = options.delays[min(failures, len(options.delays)) - 1]
    draw = int.from_bytes(blake2b(f"{seed}/{failures}".encode(), digest_size=8).digest())
    return delay * (1.0 + options.jitter_factor * draw / 2**64)
