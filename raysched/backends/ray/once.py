"""Telling each thing once."""

from collections import OrderedDict
from collections.abc import Hashable

KEPT = 10_000
"""How many things are remembered."""


class Once:
    """Remembers what was told lately."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, None] = OrderedDict()

    def is_new(self, key: Hashable) -> bool:
        """Return whether this is the first time; it is known from now on."""
        is_new = key not in self._known
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return is_new
