"""`wait` and `as_completed`: several futures at once."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

from raysched.define.driving import finish, until
from raysched.define.futures import TaskFuture, TaskFutureList
from raysched.define.ports import RunPort
from raysched.define.watching import Watch
from raysched.errors import FutureError, ResultTimeout
from raysched.graph.calls import Member, Part

R = TypeVar("R")


class DoneAndNotDoneFutures(NamedTuple, Generic[R]):
    """What `wait` returns.

    Attributes:
        done: Futures of task runs that have ended, whatever their state.
        not_done: The others.
    """

    done: set[TaskFuture[R]]
    not_done: set[TaskFuture[R]]


def wait(
    futures: Iterable[TaskFuture[R]], timeout: float | None = None
) -> DoneAndNotDoneFutures[R]:
    """Wait until all task runs have ended, or the timeout passed. Handles no failure.

    Args:
        futures: Futures of one flow run; doubled ones count once.
        timeout: Seconds, or None for no limit.

    Raises:
        FutureError: They are of several flow runs, or something is no future.
    """
    futures = futures if isinstance(futures, TaskFutureList) else list(futures)
    port, parts = _parts(futures)
    if port is not None:
        with Watch(parts) as watch:
            finish(until(port, watch.satisfied, _limit(timeout), blocking=True))
    unique = set(futures)
    done = {future for future in unique if future.done()}
    return DoneAndNotDoneFutures(done, unique - done)


def as_completed(
    futures: Iterable[TaskFuture[R]], timeout: float | None = None
) -> Iterator[TaskFuture[R]]:
    """Yield futures as their task runs end, whatever their state. Handles no failure.

    Args:
        futures: Futures of one flow run; doubled ones are yielded once.
        timeout: Seconds for all of them, or None for no limit.

    Raises:
        FutureError: They are of several flow runs, or something is no future.
        ResultTimeout: The timeout passed before all had ended.
    """
    futures = futures if isinstance(futures, TaskFutureList) else list(futures)
    port, parts = _parts(futures)
    return iter(()) if port is None else _as_completed(port, parts, _limit(timeout))


def _as_completed(
    port: RunPort, parts: list[Part], timeout: float | None
) -> Iterator[TaskFuture[Any]]:
    deadline = None if timeout is None else monotonic() + timeout

    def wait_until(done: Callable[[], bool]) -> None:
        left = None if deadline is None else max(0.0, deadline - monotonic())
        if not done() and not finish(until(port, done, left, blocking=True)):
            raise ResultTimeout(
                f"{watch.open} task runs have not ended after {timeout} s and go on"
            )

    with Watch(parts, collect=True) as watch:
        # A flow that goes on is told of them as it was told before.
        replayed: set[Member] = set()
        for group, index in port.replayed(parts):
            replayed.add((group, index))
            wait_until(partial(group.is_visible, index))
            yield TaskFuture(port, group, index)
        ended = watch.ended
        while watch.open or ended:
            wait_until(lambda: bool(ended))
            while ended:
                member = ended.popleft()
                if member not in replayed:
                    port.delivered(member)
                    yield TaskFuture(port, *member)


def _parts(futures: Iterable[Any]) -> tuple[RunPort | None, list[Part]]:
    if isinstance(futures, TaskFutureList):
        return (futures.port if len(futures) else None), list(futures.parts)
    port: RunPort | None = None
    parts: list[Part] = []
    for future in futures:
        if not isinstance(future, TaskFuture):
            raise FutureError(f"{future!r} is no future: list what .submit() or .map() returned")
        if port is not None and future.port is not port:
            raise FutureError(
                f"{future.key} belongs to another flow run than the futures before it: wait for "
                "each flow run's futures on their own"
            )
        port = future.port
        group, index = future.member
        parts.append((group, range(index, index + 1)))
    return port, parts


def _limit(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise FutureError(f"timeout={timeout}: must be seconds, 0 or more, or None")
    return timeout
