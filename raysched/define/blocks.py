"""Which task runs were begun in a block of a flow function, and of which ends it was told."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Union

from raysched.define.ports import RunPort, Told
from raysched.graph.calls import Member, Part
from raysched.graph.group import Group


class Block:
    """A block of a flow function.

    Attributes:
        around: The block around it, or None.
        begun: In order, the task runs that were begun in it, with their flow runs, and the blocks
            in it that it has become responsible for.
        told: Those whose outcome the flow function was told.
    """

    def __init__(self) -> None:
        self.around: Block | None = None
        self.begun: list[Union[tuple[RunPort, Part], Block]] = []  # noqa: UP007 - a forward name
        self.told: set[Member] = set()


_current: ContextVar[Block | None] = ContextVar("block", default=None)


@contextmanager
def inside(block: Block | None) -> Iterator[Block | None]:
    """Run what follows in a block, or in none; the block around it is what comes out."""
    around = _current.get()
    token = _current.set(block)
    try:
        yield around
    finally:
        _current.reset(token)


def note_begun(port: RunPort, parts: Sequence[Part]) -> None:
    """Note that task runs were begun here."""
    block = _current.get()
    if block is not None:
        block.begun.extend((port, part) for part in parts)


def note_told(group: Group, indices: Sequence[int]) -> None:
    """Note that the flow function knows how these task runs ended."""
    block = _current.get()
    while block is not None:
        block.told.update((group, index) for index in indices)
        block = block.around


def tell(port: RunPort, group: Group, indices: Sequence[int], how: Told) -> None:
    """Note that the flow was told how task runs ended (see `RunPort.told`)."""
    port.told(group, indices, how)
    note_told(group, indices)
