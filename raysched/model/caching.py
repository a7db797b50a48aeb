"""Cache policies: what the key of a cached result is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class CachePart(StrEnum):
    """Something that a cache key can be made of."""

    INPUTS = "inputs"
    """The content of each argument; results of other tasks by their content, too."""
    TASK_SOURCE = "task source"
    """The task's code, with the user's own functions and constants that it uses."""
    FLOW_PARAMETERS = "flow parameters"
    RUN_ID = "run id"
    FILES = "files"
    """The content of files and directories that arguments name as `pathlib.Path`."""


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How the results of a task are cached.

    Attributes:
        parts: What the key is made of; empty with a `key_fn`.
        without: Names of arguments that do not count among INPUTS.
        without_files: Names of arguments whose paths do not count among FILES.
        key_fn: `cache_key_fn(context, parameters) -> str | None`, or None.
        lifetime: How long a result may be used (ns from its end), 0 for ever.
        refresh: Whether to run whatever there is, and to replace it; None for the settings'.
    """

    parts: frozenset[CachePart] = frozenset()
    without: frozenset[str] = frozenset()
    without_files: frozenset[str] = frozenset()
    key_fn: Callable[[Any, dict[str, Any]], str | None] | None = None
    lifetime: int = 0
    refresh: bool | None = None
