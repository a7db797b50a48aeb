"""Cancellations on their way to workers."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from raysched.worker.deadlines import FORCE_SECONDS

HEAR_SECONDS = 5.0
"""How long native code may hold Python's GIL before a worker that hears no order is ended."""

SLACK_SECONDS = 1.0
"""How much later than a worker would end itself its silence is taken for inability."""


class Order(NamedTuple):
    """To cancel items of a unit.

    Attributes:
        unit: The unit.
        positions: Which items, or None for all.
        force: Whether without time to clean up.
    """

    unit: int
    positions: Sequence[int] | None
    force: bool


class Orders:
    """What was cancelled, and which workers have not said that they know.

    A worker whose thread beside the user's code still runs ends by itself what does not react. One
    that holds the GIL in native code, or is stopped, does not even hear the order.
    """

    def __init__(self) -> None:
        self._given: dict[int, list[Order]] = {}
        self._due: dict[int, float] = {}

    def give(self, order: Order) -> None:
        """Take note of an order."""
        self._given.setdefault(order.unit, []).append(order)
        patience = FORCE_SECONDS if order.force else HEAR_SECONDS
        due = time.monotonic() + patience + SLACK_SECONDS
        self._due[order.unit] = min(due, self._due.get(order.unit, due))

    def given(self) -> list[Order]:
        """Return all orders of units that no worker has told of."""
        return [order for orders in tuple(self._given.values()) for order in orders]

    def known(self, unit: int) -> None:
        """Take note that the worker of a unit has its orders."""
        self._given.pop(unit, None)

    def heard(self, unit: int) -> None:
        """Take note that the worker of a unit carries its orders out."""
        self._given.pop(unit, None)
        self._due.pop(unit, None)

    def forget(self, unit: int) -> None:
        """Take note that a unit has come back; from any thread."""
        self.heard(unit)

    @property
    def due(self) -> float | None:
        """When `take_unheard` may have something (monotonic seconds), or None."""
        return min(tuple(self._due.values()), default=None)

    def take_unheard(self, now: float) -> list[int]:
        """Return the units whose worker, if they have one, should have said that it knows.

        Each of them once.

        Args:
            now: Until when (monotonic seconds).
        """
        return [
            unit
            for unit, due in tuple(self._due.items())
            if due <= now and self._due.pop(unit, None) is not None
        ]
