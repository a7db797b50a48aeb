"""Running a flow from the command line: show live what it does, sum it up, and heed Ctrl-C."""

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
from typing import Any, NoReturn, Self, TypeAlias

from raysched import client, wiring
from raysched.cli.display import Display, open_display
from raysched.cli.output import console, print_json
from raysched.cli.parameters import describe_parameters
from raysched.cli.progress import Progress
from raysched.cli.records import run_record
from raysched.cli.summary import print_summary
from raysched.cli.target import AnyFlow, Target
from raysched.errors import InternalError, ParameterError, StoreError, StoreUnavailable

FAILURE = 1

STOP_SECONDS = 3.0
"""How long the engine may take to end the workers after a second Ctrl-C."""

SHOW_CURSOR = b"\x1b[?25h\n"
"""What a live display would send at its end (ECMA-48, DECTCEM)."""

Call: TypeAlias = Callable[[AnyFlow], object]
"""Begins a run of a flow; of an asynchronous one it returns the coroutine."""

Teller: TypeAlias = Callable[[client.Run], None]
"""Tells more of a run that has ended."""


@dataclass(frozen=True, slots=True)
class Options:
    """How flows are run.

    Attributes:
        address: Ray address, or None for the settings'.
        backend: `ray`, `inline` or None for the settings'.
        max_parallel: Most task runs at once, or None for the flow's own limit.
        as_json: Whether the end is told as JSON, and everything else on standard error.
    """

    address: str | None = None
    backend: str | None = None
    max_parallel: int | None = None
    as_json: bool = False


def run_flow(
    target: Target,
    call: Call,
    options: Options,
    *,
    progress: Progress | None = None,
    tell: Teller | None = None,
) -> int:
    """Run a flow; return the exit code: 0 only if it completed.

    Args:
        target: The flow.
        call: Begins the run.
        options: How.
        progress: What counts; it may know something already.
        tell: What to say beside the summary, for people.

    Raises:
        UsageError: A parameter or an option cannot be right; nothing was started.
        RayschedError: The run could not be started, or not be kept.
    """
    progress = progress or Progress()
    wiring.configure(
        wiring.Configuration(
            backend=options.backend or "",
            address=options.address or "",
            code_path=target.code_path,
            observers=[progress],
            target=target.text,
        )
    )
    display = open_display(progress, console(stderr=options.as_json), target.flow.name)
    flow = target.flow.with_options(max_parallel=options.max_parallel)
    with Interrupts(display, progress):
        try:
            with display:
                result, error = _called(call, flow)
            run = _kept(progress, target, error)
            if options.as_json:
                print_json(run_record(run, failures=True))
            else:
                print_summary(run, short(result), tell)
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


def _called(call: Call, flow: AnyFlow) -> tuple[object, BaseException | None]:
    """Call the flow; return its value, or what it raised."""
    try:
        result = call(flow)
        if asyncio.iscoroutine(result):
            result = asyncio.run(result)
    except BaseException as error:  # noqa: BLE001 - of the user's code, sys.exit too
        return None, error
    return result, None


def _kept(progress: Progress, target: Target, error: BaseException | None) -> client.Run:
    """Return the run that has ended, or raise why there is none or why it is still open."""
    row = progress.snapshot().run
    try:
        run = None if row is None else client.get_run(row.id)
    except StoreUnavailable as unread:
        # Of a driver that gave up because the database is away, its own error says what to do.
        raise (error if isinstance(error, StoreError) else unread) from None
    if run is not None and run.state.is_final():
        return run
    if run is None and isinstance(error, ParameterError):
        signature = describe_parameters(target.flow.fn, target.flow.name)
        raise ParameterError(f"{error}\n\n  {signature}") from error
    # Not the user's error: that would have ended the run.
    raise error or InternalError(f"{target.text} returned, but its run has not ended")


def short(result: object) -> str:
    """Return a value in one line, None as ""."""
    if result is None:
        return ""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 120
    with suppress(Exception):  # any user's __repr__ may raise anything
        return shortener.repr(result).replace("\n", " ")
    return f"a {type(result).__name__}"
