"""Which item of which unit the running code belongs to."""

import os
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field

from raysched.worker.failures import bounded
from raysched.worker.interrupt import Interruption
from raysched.worker.progress import UnitProgress
from raysched.worker.protocol import LogRecord


@dataclass(slots=True, eq=False)
class ItemScope:
    """One item while its code runs.

    Attributes:
        progress: Where to report.
        position: Its position in the unit.
        attempt: Number of the attempt.
        log_prints: Whether its `print` becomes log records.
        interruption: How it is interrupted, or None for items on an event loop.
        thread: Its thread. Others may have a copy of its context; nothing is raised in them.
    """

    progress: UnitProgress
    position: int
    attempt: int
    log_prints: bool
    interruption: Interruption | None = None
    thread: int = field(default_factory=threading.get_ident)

    @property
    def is_here(self) -> bool:
        """Whether this is its process: a fork that user code has made reports nothing."""
        return self.progress.process == os.getpid()

    def log(self, level: int, logger: str, message: str, at: int) -> None:
        """Keep a log record; to be called where `running_item` is this item.

        Args:
            level: `logging` level number.
            logger: Name of the logger.
            message: The formatted message.
            at: When (ns since the epoch).
        """
        if self.interruption is None or threading.get_ident() != self.thread:
            self.log_from_thread(level, logger, message, at)
            return
        # An interrupt in the middle would leave half a frame on the channel.
        with self.interruption.shield():
            self.log_from_thread(level, logger, message, at)

    def log_from_thread(self, level: int, logger: str, message: str, at: int) -> None:
        """Do as `log`, in another thread than the item's."""
        if not self.is_here:
            return
        self.progress.log(
            LogRecord(self.position, self.attempt, at, level, logger, bounded(message))
        )


running_item: ContextVar[ItemScope | None] = ContextVar("running_item", default=None)
"""The item that this code runs in; not inherited by threads that the user's code starts."""
