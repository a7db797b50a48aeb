"""What takes part in items without being known here: found by its dotted path in the run's header.

The only one is telemetry, whose room this one may not know.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from importlib import import_module
from typing import Protocol

from raysched.define.context import attempt_context
from raysched.define.correlation import correlate_logs
from raysched.worker.protocol import RunHeader
from raysched.worker.stored import header_of

COLLECT_SECONDS = 1.0
"""How often there is a look for what is to be reported of an item that runs for longer."""


class Extension(Protocol):
    """Takes part in every item of a worker process; one object a process. Thread-safe."""

    def enter(self, header: RunHeader, task: str, index: int, attempt: int) -> None:
        """Begin an item, in the context (`contextvars`) that it runs in and that ends with it.

        Of items that another attempt calls, it is that attempt which is told: they belong to it.

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


class Participation:
    """An extension in the items of one flow run. What breaks it is told once, and it is left out.

    Args:
        header: Of the flow run.
    """

    def __init__(self, header: RunHeader) -> None:
        self._header = header
        self._extension: Extension | None = None
        self._problem = ""
        try:
            self._extension = extension_of(header.extension)
        except Exception as error:  # noqa: BLE001 - of libraries in other versions than the driver's
            self._break(error)

    def enter(self, task: str, index: int, attempt: int) -> None:
        """See `Extension.enter`."""
        extension = self._extension
        if extension is None:
            return
        try:
            extension.enter(self._header, *(self._header.within or (task, index, attempt)))
        except Exception as error:  # noqa: BLE001 - no item fails for it
            self._break(error)

    def collect(self) -> tuple[Sequence[bytes], int]:
        """See `Extension.collect`."""
        extension = self._extension
        if extension is None:
            return (), 0
        try:
            return extension.collect()
        except Exception as error:  # noqa: BLE001 - no report fails for it
            self._break(error)
            return (), 0

    def take_problem(self) -> str:
        """Return what has broken it, for people, where nobody has been told yet; otherwise ""."""
        problem, self._problem = self._problem, ""
        return problem

    def _break(self, error: Exception) -> None:
        self._extension = None
        self._problem = (
            f"spans of user code are not kept in this worker: {self._header.extension} raised "
            f"{type(error).__name__}: {error}"
        )


@lru_cache(maxsize=16)
def participation(header: bytes) -> Participation | None:
    """Return the part of the extension in the flow run of an encoded header, None without one."""
    decoded = header_of(header)
    return Participation(decoded) if decoded.extension else None


def collector_of(header: bytes) -> Callable[[], tuple[Sequence[bytes], int]] | None:
    """Return what a unit that begins asks for what there is to report, or None for nothing.

    Log records tell their span from here on, where the flow run of this encoded header is traced.
    """
    if header_of(header).traceparent:
        correlate_logs()
    part = participation(header)
    # What ends inside an attempt is told by the unit of that attempt.
    return part.collect if part is not None and attempt_context.get() is None else None
