"""Loggers of runs, and log records and prints of flow functions.

What tasks log is captured where they run; both use the same loggers.
"""

import builtins
import functools
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from raysched.define.context import AttemptContext, FlowContext, current_scope
from raysched.errors import FutureError

FLOW_LOGGER = "raysched.flow_run"
TASK_LOGGER = "raysched.task_run"
PRINT_LOGGER = "raysched.print"
"""Logger of what `print` said, where `log_prints` is set."""

RunLogger = logging.LoggerAdapter[logging.Logger]

_formatter = logging.Formatter()


def get_run_logger() -> RunLogger:
    """Return the logger of the flow run or task run that this code belongs to.

    Its records are kept with the run, from the level `RAYSCHED_LOG_LEVEL` on, and go to the
    handlers of the `logging` module as usual. Where the run is traced, they carry `otelTraceID`,
    `otelSpanID` (hexadecimal) and `otelTraceSampled`, as with OpenTelemetry's own instrumentation
    of `logging`, for use in a format; and so do the records of all other loggers in the run.

    Raises:
        FutureError: Neither a flow nor a task is running here.
    """
    scope = current_scope()
    if scope is None:
        raise FutureError(
            "get_run_logger() only works in a flow or a task, and in threads of your own that call "
            "what raysched.in_context() returns; elsewhere, use logging.getLogger(__name__)"
        )
    if isinstance(scope, AttemptContext):
        extra = {"flow_run_id": scope.surroundings.flow_run_id, "task_run": scope.task_run_name}
        return logging.LoggerAdapter(_logger(TASK_LOGGER), extra)
    start = scope.port.start
    extra = {"flow_run_id": start.run_id, "flow_run": start.name}
    return logging.LoggerAdapter(_logger(FLOW_LOGGER), extra)


class _FlowHandler(logging.Handler):
    """Keeps the records that come from flow functions."""

    def emit(self, record: logging.LogRecord) -> None:
        scope = current_scope()
        if not isinstance(scope, FlowContext):
            return
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{_formatter.formatException(record.exc_info)}"
        at = int(record.created * 1e9)
        scope.port.log(record.levelno, record.name, message, at)


_handler = _FlowHandler()


@functools.cache
def _logger(name: str) -> logging.Logger:
    from raysched.settings import settings  # pydantic, too slow for `import raysched`

    logger = logging.getLogger(name)
    logger.setLevel(settings().log_level)
    logger.addHandler(_handler)
    return logger


class Prints:
    """The `print` of this process, while somebody keeps what is printed.

    Other libraries replace `print` too, some for good: Ray when the first output of a worker comes.
    So ours is put in front again whenever a flow run begins, and it may come to stand before a
    `print` that leads back to it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._choosers: list[Callable[[], logging.Logger | None]] = []
        self._first = self._covered = builtins.print
        self._handing_on = threading.local()

    def add(self, chooser: Callable[[], logging.Logger | None]) -> None:
        """Ask `chooser` of each `print` which logger it is for, if it is for one."""
        with self._lock:
            self._choosers.append(chooser)
        self.put_in_front()

    def remove(self, chooser: Callable[[], logging.Logger | None]) -> None:
        """Undo one `add`."""
        with self._lock:
            self._choosers.remove(chooser)
            if not self._choosers and builtins.print is _print:
                builtins.print = self._covered

    def put_in_front(self) -> None:
        """See to it that `print` is ours, if somebody keeps what is printed."""
        with self._lock:
            if not self._choosers or builtins.print is _print:
                return
            self._covered, builtins.print = builtins.print, _print

    def __call__(self, *values: object, **options: Any) -> None:
        """Log what is printed, or print it."""
        if getattr(self._handing_on, "now", False):
            self._first(*values, **options)
            return
        self._handing_on.now = True
        try:
            logger = None
            if options.get("file") in (None, sys.stdout):
                loggers = (choose() for choose in tuple(self._choosers))
                logger = next((each for each in loggers if each is not None), None)
            if logger is None:
                self._covered(*values, **options)
                return
            text = io.StringIO()
            self._first(*values, **{**options, "file": text, "flush": False})
            logger.info("%s", text.getvalue().rstrip("\n"))
        finally:
            self._handing_on.now = False


prints = Prints()
"""The one of this process."""


def _print(*values: object, **options: Any) -> None:
    prints(*values, **options)


@contextmanager
def prints_kept(*, wanted: bool) -> Iterator[None]:
    """Make log records of what the flow function in the block prints, if `wanted`."""
    if not wanted:
        prints.put_in_front()
        yield
        return
    prints.add(_logger_of_flow)
    try:
        yield
    finally:
        prints.remove(_logger_of_flow)


def _logger_of_flow() -> logging.Logger | None:
    scope = current_scope()
    logs = isinstance(scope, FlowContext) and scope.port.start.spec.log_prints
    return _logger(PRINT_LOGGER) if logs else None
