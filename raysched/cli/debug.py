"""`raysched debug`."""

import bdb
import faulthandler
import inspect
import logging
import pdb  # noqa: T100 - what this command is for
import sys
import traceback
from types import TracebackType
from typing import Any

from raysched.cli.output import say
from raysched.cli.target import find_task, load_target
from raysched.client import Run, TaskRun, get_run
from raysched.client.debug import Call, Rerun
from raysched.define.own_code import is_own
from raysched.errors import UsageError
from raysched.model.ids import SHORT_ID
from raysched.model.values import CrashKind


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
    _warn(task_run)
    # A crash in native code then says where it was.
    faulthandler.enable()
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
        own = _tell(error)
        if debugger and own is not None:
            _post_mortem(own)
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


def _warn(task_run: TaskRun) -> None:
    """Say that this process may die of what the worker died of."""
    error = task_run.error
    if error is None or error.kind != CrashKind.WORKER_DIED:
        return
    evidence = error.evidence
    how = evidence.get("signal", "")
    if not how and "exit_code" in evidence:
        how = f"exit code {evidence['exit_code']}"
    say(
        ("! ", "yellow"),
        f"its worker died{f' ({how})' if how else ''}; if that happens again, this process ends",
        stderr=True,
    )


def _tell(error: BaseException) -> TracebackType | None:
    """Print an exception from the user's own frames on; return the traceback to look at, if any.

    There is none where no code of the user raised it, as with a result that cannot be pickled: then
    the message says it all.
    """
    own: TracebackType | None = None
    link: BaseException | None = error
    seen = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        trace = _without_callers(link.__traceback__)
        link.__traceback__ = trace
        own = own or trace
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    if own is None:
        sys.stderr.writelines(traceback.format_exception_only(error))
    else:
        traceback.print_exception(error)
    return own


def _without_callers(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the user's first frame on, or None where there is none."""
    while trace is not None and not is_own(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _post_mortem(trace: TracebackType) -> None:
    """Open the debugger at the innermost frame of the user's own code, of which there is one."""
    own = [is_own(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(trace)]
    outer = own[::-1].index(True)
    debugger = pdb.Pdb()
    debugger.reset()
    if outer:
        debugger.cmdqueue.append(f"up {outer}")
    debugger.interaction(None, trace)
