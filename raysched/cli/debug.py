"""`raysched debug`."""

import bdb
import inspect
import logging
import pdb  # noqa: T100 - what this command is for
import sys
import traceback
from types import TracebackType
from typing import Any

from raysched.cli.output import SHORT_ID, say
from raysched.cli.target import find_task, load_target
from raysched.client import Run, get_run
from raysched.client.debug import Call, Rerun
from raysched.errors import UsageError
from raysched.worker.causes import is_own


def debug_task_run(text: str, key: str, target: str | None, *, trace: bool, debugger: bool) -> int:
    """Run one failed task run again in this process; return 0 if it goes well this time.

    Args:
        text: RUN.
        key: Key of the task run.
        target: Where its flow is, None for where it was.
        trace: Whether the debugger stops at the start of the function, too.
        debugger: Whether there is a debugger at all.

    Raises:
        UsageError: There is no such task run, or nobody knows where its flow is.
        RunNotFound: No run, or more than one, matches.
        ResultError: Its arguments cannot be had.
        TargetError: Its flow or task cannot be found.
    """
    run = get_run(text)
    task_run = run.task_run(key)
    place = target or _target(run)
    rerun = task_run.again(find_task(load_target(place).flow, task_run.task))
    say(
        f"{rerun.key} of {run.flow} ",
        (run.id[:SHORT_ID], "cyan"),
        " again, in this process; nothing of it is kept",
        stderr=True,
    )
    for name, value in rerun.arguments.items():
        say((f"  {name} = ", "dim"), rerun.preview(value, name), stderr=True)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    return _run(rerun, trace=trace, debugger=debugger)


def _target(run: Run) -> str:
    while not run.target and run.parent:
        run = get_run(run.parent)
    if not run.target:
        raise UsageError(
            f"run {run.id[:SHORT_ID]} was not started by raysched run, so nobody knows where its "
            "flow is: name it with --target file.py:flow"
        )
    return run.target


def _run(rerun: Rerun, *, trace: bool, debugger: bool) -> int:
    try:
        value = rerun.run(lambda call: _traced(rerun, call)) if trace else rerun.run()
    except bdb.BdbQuit:
        say("the debugger was left", stderr=True)
        return 1
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's function raises
        error.__traceback__ = _without_callers(error.__traceback__)
        traceback.print_exception(error)
        if debugger:
            _post_mortem(error.__traceback__)
        return 1
    say(
        ("✔ ", "green"),
        f"{rerun.key} went well this time, and returned ",
        rerun.preview(value),
        stderr=True,
    )
    return 0


def _traced(rerun: Rerun, call: Call) -> Any:
    """Make the call with a debugger that stops where the function begins."""
    code = getattr(inspect.unwrap(rerun.function), "__code__", None)
    if code is None:
        raise UsageError(f"--trace: {rerun.function!r} has no Python code to stop in")
    debugger = pdb.Pdb()
    lines = (line for *_, line in code.co_lines() if line is not None)
    first = min((line for line in lines if line > code.co_firstlineno), default=code.co_firstlineno)
    if problem := debugger.set_break(code.co_filename, first, temporary=True):
        raise UsageError(f"--trace: {problem}")
    debugger.reset()
    # As if it had stopped here already: what it goes on to is the breakpoint.
    debugger.botframe = sys._getframe()  # noqa: SLF001 - its documented name
    debugger.set_continue()
    sys.settrace(debugger.trace_dispatch)
    try:
        return call()
    finally:
        sys.settrace(None)


def _without_callers(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the user's first frame on, the whole of it where there is none."""
    inner = trace
    while inner is not None and not is_own(inner.tb_frame.f_code.co_filename):
        inner = inner.tb_next
    return inner or trace


def _post_mortem(trace: TracebackType | None) -> None:
    """Open the debugger at the innermost frame of the user's own code."""
    own = [is_own(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(trace)]
    outer = own[::-1].index(True) if any(own) else 0
    debugger = pdb.Pdb()
    debugger.reset()
    if outer:
        debugger.cmdqueue.append(f"up {outer}")
    debugger.interaction(None, trace)
