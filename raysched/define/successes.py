"""What a task gets of a map that may lose some of its members."""

from collections.abc import Iterable
from typing import TypeVar

R = TypeVar("R")


class Successes(list[R]):
    """The values of the task runs of a `.map(..., min_success=)` that completed, in order.

    A list like any other, with what is missing from it beside it. It equals a plain list of the
    same values.

    Attributes:
        failures: The exceptions of the task runs that did not complete, in order: the user's own
            where they can be rebuilt, otherwise a `TaskRunError` with the task run's `key`.
    """

    failures: list[BaseException]

    def __init__(self, values: Iterable[R] = (), failures: Iterable[BaseException] = ()) -> None:
        super().__init__(values)
        self.failures = list(failures)

    def __repr__(self) -> str:
        return f"Successes({super().__repr__()}, failures={self.failures!r})"
