"""What the digest of a function's code rests on: names and variables, and what they stood for."""

import types
from collections.abc import Mapping
from typing import Any, NamedTuple


class Lookup(NamedTuple):
    """A name that was looked up, and what it stood for."""

    namespace: Mapping[str, Any]
    name: str
    value: object

    def holds(self) -> bool:
        """Whether it still stands for the same."""
        return self.namespace.get(self.name, self) is self.value


class Captured(NamedTuple):
    """A variable that a function has captured, and what it stood for."""

    cell: types.CellType
    value: object

    def holds(self) -> bool:
        """Whether it still stands for the same."""
        try:
            return self.cell.cell_contents is self.value
        except ValueError:  # it is empty
            return False
