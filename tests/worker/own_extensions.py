"""Extensions of the tests' own (see `raysched.worker.extensions.Extension`)."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raysched.worker.protocol import RunHeader

entered_as: ContextVar[tuple[str, int, int]] = ContextVar("entered_as")


class Noting:
    """An extension that reports what it was entered as."""

    def __init__(self) -> None:
        self.noted: list[bytes] = []

    def enter(self, header: RunHeader, task: str, index: int, attempt: int) -> None:
        assert entered_as.get(None) is None
        entered_as.set((task, index, attempt))
        self.noted.append(f"{header.run_id[:1]} {task} {index} {attempt}".encode())

    def collect(self) -> tuple[Sequence[bytes], int]:
        noted, self.noted = self.noted, []
        return noted, len(noted)


noting = Noting()


class Mute(Noting):
    """One that cannot report."""

    def collect(self) -> tuple[Sequence[bytes], int]:
        raise ValueError(len(self.noted))


mute = Mute()
not_one = object()
