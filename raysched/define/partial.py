"""The futures of a `.map(..., min_success=)`."""

from collections.abc import Generator, Sequence
from typing import Any, TypeVar, overload

from raysched.define.blocks import tell
from raysched.define.driving import until
from raysched.define.futures import TaskFutureList
from raysched.define.ports import RunPort, Told
from raysched.define.successes import Successes
from raysched.define.watching import Watch
from raysched.errors import ResultTimeout
from raysched.graph.calls import Member, Part
from raysched.graph.group import Group
from raysched.model.states import FAILURES, SUCCESSES

R_co = TypeVar("R_co", covariant=True)


class PartialFutureList(TaskFutureList[R_co]):
    """The futures of a map that may lose some of its task runs.

    A slice of it is an ordinary list of futures.

    Args:
        port: The flow run.
        parts: Groups with positions in them, in order.
        needed: How many have to succeed.
    """

    __slots__ = ("_needed",)

    def __init__(self, port: RunPort, parts: Sequence[Part], needed: int) -> None:
        super().__init__(port, parts)
        self._needed = needed

    @overload
    def result(self, timeout: float | None = None) -> Successes[R_co]: ...

    @overload
    def result(
        self,
        timeout: float | None = None,
        raise_on_failure: bool = ...,  # noqa: FBT001 - as in Prefect
    ) -> list[R_co | BaseException]: ...

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:  # noqa: FBT001, FBT002
        """Wait for all task runs and return the values of those that succeeded, in order.

        The failures of the others then count as handled, and are in the list's `failures`.

        Args:
            timeout: Seconds for all of them, or None for no limit.
            raise_on_failure: False returns a list with exceptions in the places of missing values,
                however many there are.

        Raises:
            ResultTimeout: The timeout passed first; the task runs go on.
            Exception: Too few succeeded: the first failure, with a note of how many there are.
        """
        return super().result(timeout, raise_on_failure)

    def __await__(self) -> Generator[Any, Any, Successes[R_co]]:
        return super().__await__()  # type: ignore[return-value] # see `outcome`

    async def outcome(self, seconds: float | None, *, raising: bool, blocking: bool) -> Any:
        """Wait and return the values (see `result`)."""
        if not raising:
            return await super().outcome(seconds, raising=False, blocking=blocking)
        with Watch(self.parts) as watch:
            ended = await until(self.port, watch.satisfied, seconds, blocking=blocking)
        if not ended:
            raise ResultTimeout(
                f"{watch.open} of {len(self)} task runs have not ended after {seconds} s and go "
                "on: ask again, or with a longer timeout"
            )
        values: list[Any] = []
        failed: list[Member] = []
        for group, indices in self.parts:
            ended_well = [index for index in indices if group.visible[index] in SUCCESSES]
            values.extend(self.port.values(group, ended_well))
            failed.extend((group, index) for index in indices if group.visible[index] in FAILURES)
        enough = len(values) >= self._needed
        for group, indices in self.parts:
            tell(self.port, group, indices, Told.RETURNED if enough else Told.RAISED)
        if not enough:
            raise self._too_few(len(values), failed)
        return Successes(values, map(self.port.error, failed))

    def _too_few(self, succeeded: int, failed: Sequence[Member]) -> BaseException:
        # Without a failure there are too few because some were skipped.
        first = next(iter(failed), None) or next(
            member for member in self.members() if member[0].visible[member[1]] not in SUCCESSES
        )
        error = self.port.error(first)
        error.add_note(
            f"{succeeded} of {len(self)} task runs succeeded, and min_success asks for "
            f"{self._needed}"
        )
        return error


def has_enough(group: Group) -> bool:
    """Whether so many of a group have succeeded that the failures of the others do not matter."""
    if group.min_success is None:
        return False
    return sum(code in SUCCESSES for code in group.visible) >= group.min_success
