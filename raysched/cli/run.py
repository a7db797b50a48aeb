"""`raysched run`: load the target, call the flow, show what happens, sum it up."""

import asyncio
import os
import reprlib
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from raysched import client, wiring
from raysched.cli.display import Display, open_display
from raysched.cli.output import console, print_json
from raysched.cli.parameters import describe_parameters, read_parameters
from raysched.cli.progress import Progress
from raysched.cli.records import run_record
from raysched.cli.summary import print_summary
from raysched.cli.target import Target, load_target
from raysched.errors import InternalError, ParameterError

FAILURE = 1

STOP_SECONDS = 3.0
"""How long the engine may take to end the workers after a second Ctrl-C."""

SHOW_CURSOR = b"\x1b[?25h\n"
"""What a live display would send at its end (ECMA-48, DECTCEM)."""


@dataclass(frozen=True, slots=True)
class Order:
    """What `raysched run` was told.

    Attributes:
        target: TARGET.
        pairs: `name=value` of each `--param`.
        document: What `--params-json` was given, or None.
        address: Ray address, or None for the settings'.
        backend: `ray`, `inline` or None for the settings'.
        max_parallel: Most task runs at once, or None for the flow's own limit.
        as_json: Whether the end is told as JSON, and everything else on standard error.
    """

    target: str
    pairs: tuple[str, ...]
    document: str | None
    address: str | None
    backend: str | None
    max_parallel: int | None
    as_json: bool


def run_target(order: Order) -> int:
    """Run the flow that was ordered; return the exit code.

    Raises:
        UsageError: The target, a parameter or an option cannot be right; nothing was started.
        RayschedError: The run could not be started, or not be kept.
    """
    target = load_target(order.target)
    parameters = read_parameters(target.flow.fn, order.pairs, order.document)
    progress = Progress()
    wiring.configure(
        wiring.Configuration(
            backend=order.backend or "",
            address=order.address or "",
            code_path=target.code_path,
            observers=[progress],
            target=target.text,
        )
    )
    display = open_display(progress, console(stderr=order.as_json), target.flow.name)
    with Interrupts(display, progress):
        try:
            with display:
                result, error = _call(order, target, parameters)
            run = _kept(progress, target, error)
            _tell(run, result, as_json=order.as_json)
        finally:
            wiring.disconnect()
    return 0 if run.state.is_completed() else FAILURE


class Interrupts:
    """Ctrl-C: once cancels the run, twice stops it at once, a third time ends this process.

    Before a run has begun there is nothing to cancel, and already the first one ends the process.

    Args:
        display: Tells people.
        progress: Knows whether the run has begun and ended.
    """

    def __init__(self, display: Display, progress: Progress) -> None:
        self._display = display
        self._progress = progress
        self._presses = 0
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        self._presses += 1
        # An exception while it starts makes Ray's C++ crash; its processes end with this one.
        if self._presses > 2 or not self._progress.has_begun:  # noqa: PLR2004 - as the class says
            _exit_at_once()
        if self._progress.has_ended:
            return
        if self._presses == 1:
            self._display.note("Cancelling … press Ctrl-C again to stop at once")
        else:
            self._display.note("Stopping at once")
            # User code that holds on to this thread must not hold up the person.
            watchdog = threading.Timer(STOP_SECONDS, self._give_up)
            watchdog.daemon = True
            watchdog.start()
        raise KeyboardInterrupt

    def _give_up(self) -> None:
        if not self._progress.has_ended:
            _exit_at_once()


def _exit_at_once() -> NoReturn:
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), SHOW_CURSOR)
    os._exit(FAILURE)


def _call(
    order: Order, target: Target, parameters: dict[str, Any]
) -> tuple[object, BaseException | None]:
    """Call the flow; return its value, or what it raised."""
    flow: Callable[..., Any] = target.flow.with_options(max_parallel=order.max_parallel)
    try:
        result = flow(**parameters)
        if asyncio.iscoroutine(result):
            result = asyncio.run(result)
    except BaseException as error:  # noqa: BLE001 - of the user's code, sys.exit too
        return None, error
    return result, None


def _kept(progress: Progress, target: Target, error: BaseException | None) -> client.Run:
    """Return the run that has ended, or raise why there is none or why it is still open."""
    row = progress.snapshot().run
    run = None if row is None else client.get_run(row.id)
    if run is not None and run.state.is_final():
        return run
    if run is None and isinstance(error, ParameterError):
        signature = describe_parameters(target.flow.fn, target.flow.name)
        raise ParameterError(f"{error}\n\n  {signature}") from error
    # Not the user's error: that would have ended the run.
    raise error or InternalError(f"{target.text} returned, but its run has not ended")


def _tell(run: client.Run, result: object, *, as_json: bool) -> None:
    if as_json:
        print_json(run_record(run, failures=True))
    else:
        print_summary(run, _short(result))


def _short(result: object) -> str:
    """Return a value in one line, None as ""."""
    if result is None:
        return ""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 120
    with suppress(Exception):  # any user's __repr__ may raise anything
        return shortener.repr(result).replace("\n", " ")
    return f"a {type(result).__name__}"
