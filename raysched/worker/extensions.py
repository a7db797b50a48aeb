"""What takes part in items without being known here: found by its dotted path in the run's header.

The only one is telemetry, whose room this one may not know.
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Protocol

from raysched.worker.protocol import RunHeader


class Extension(Protocol):
    """Takes part in every item of a worker process; one object a process."""

    def enter(self, header: RunHeader, task: str, index: int, attempt: int) -> None:
        """Begin an item, in the context (`contextvars`) that it runs in and that ends with it.

        Args:
            header: Of its flow run.
            task: Name of the task.
            index: Position among the task runs of that name.
            attempt: Number of the attempt, from 1.
        """

    def collect(self) -> tuple[Sequence[bytes], int]:
        """Return what there is to report since the last call: `Report.spans`, `dropped_spans`."""


@cache
def extension_of(path: str) -> Extension:
    """Return the extension at a dotted path: `module:name`."""
    module, _, name = path.partition(":")
    extension: Extension = getattr(import_module(module), name)
    return extension
