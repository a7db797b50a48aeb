"""Log records and prints of user code, kept with the task run that they came from."""

import logging
import threading

from raysched.define.logs import PRINT_LOGGER, prints
from raysched.worker.scope import ItemScope, running_item

_formatter = logging.Formatter()


class LogCapture(logging.Handler):
    """Handler on the root logger, and a chooser of `print`, that know the running item.

    Shared by all that capture in this process, in a worker or nested in it: it is there from the
    first `acquire` to the last `release`. Records of threads that user code started go to the item
    that runs alone in a worker, if one does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._users = 0
        self._root_level = logging.WARNING
        self._alone: ItemScope | None = None
        self._users_lock = threading.Lock()

    def createLock(self) -> None:  # noqa: N802 - its name in logging.Handler
        """Do without: `UnitProgress` is thread-safe, and an interrupted holder would block all."""
        self.lock = None

    def acquire_for(self, level: int) -> None:
        """Begin to capture; lets records of `level` and above pass the root logger."""
        with self._users_lock:
            self._users += 1
            if self._users > 1:
                return
            root = logging.getLogger()
            self._root_level = root.level
            self.setLevel(level)
            root.addHandler(self)
            if root.level > level:
                root.setLevel(level)
            prints.add(_logger_of_item)

    def release_one(self) -> None:
        """Undo one `acquire_for`; the last one restores what was there before."""
        with self._users_lock:
            self._users -= 1
            if self._users:
                return
            root = logging.getLogger()
            root.removeHandler(self)
            root.setLevel(self._root_level)
            prints.remove(_logger_of_item)

    def attribute_threads_to(self, scope: ItemScope | None) -> None:
        """Say which item runs alone in this process, if one does."""
        self._alone = scope

    def emit(self, record: logging.LogRecord) -> None:
        """Give the record to its item."""
        scope, alone = running_item.get(), self._alone
        try:
            if scope is not None and scope.is_here:
                scope.log(*_convert(record))
            elif scope is None and alone is not None and alone.is_here:
                alone.log_from_thread(*_convert(record))
            elif not self._has_company(record):
                _say(record)
        except Exception:  # noqa: BLE001 - as in logging.StreamHandler.emit
            self.handleError(record)

    def _has_company(self, record: logging.LogRecord) -> bool:
        """Whether another handler gets the record."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


capture = LogCapture()
"""The one of this process."""


def _say(record: logging.LogRecord) -> None:
    """Do what `logging` does with a record that nobody handles: that we listen is no reason not to.

    Source: logging.Logger.callHandlers.
    """
    last = logging.lastResort
    if last is not None and record.levelno >= last.level:
        last.handle(record)


def _convert(record: logging.LogRecord) -> tuple[int, str, str, int]:
    message = record.getMessage()
    if record.exc_info:
        message = f"{message}\n{_formatter.formatException(record.exc_info)}"
    if record.stack_info:
        message = f"{message}\n{record.stack_info}"
    return record.levelno, record.name, message, int(record.created * 1e9)


def _logger_of_item() -> logging.Logger | None:
    scope = running_item.get()
    if scope is None or not scope.log_prints or not scope.is_here:
        return None
    return logging.getLogger(PRINT_LOGGER)
