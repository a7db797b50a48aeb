"""Loggers of runs, and log records and prints of flow functions.

What tasks log is captured where they run; both use the same loggers.
"""

import builtins
import functools
import io
import logging
import sys
import threading
from collections.abc import Iterator
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
    handlers of the `logging` module as usual.

    Raises:
        FutureError: Neither a flow nor a task is running here.
    """
    scope = current_scope()
    if scope is None:
        raise FutureError(
            "get_run_logger() only works in a flow or a task; elsewhere, and in threads of your "
            "own, use logging.getLogger(__name__)"
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


_lock = threading.Lock()
_users = 0
_original = builtins.print


@contextmanager
def prints_kept(*, wanted: bool) -> Iterator[None]:
    """Make log records of what the flow function in the block prints, if `wanted`."""
    if not wanted:
        yield
        return
    _install(+1)
    try:
        yield
    finally:
        _install(-1)


def _install(users: int) -> None:
    global _users, _original  # noqa: PLW0603 - as `print` is one for the process
    with _lock:
        _users += users
        if _users and builtins.print is not _print:
            _original, builtins.print = builtins.print, _print
        elif not _users and builtins.print is _print:
            builtins.print = _original


def _print(*values: object, **options: Any) -> None:
    scope = current_scope()
    logs = isinstance(scope, FlowContext) and scope.port.start.spec.log_prints
    if not logs or options.get("file") not in (None, sys.stdout):
        _original(*values, **options)
        return
    text = io.StringIO()
    _original(*values, **{**options, "file": text, "flush": False})
    _logger(PRINT_LOGGER).info("%s", text.getvalue().rstrip("\n"))
