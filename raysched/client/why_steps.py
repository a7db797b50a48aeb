"""What may be done next, as commands."""

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from raysched.client.why_facts import Cause, Step
from raysched.model.ids import SHORT_ID, some_of
from raysched.model.states import StateType
from raysched.model.values import CrashKind

if TYPE_CHECKING:
    from raysched.store.views import RunView

MOST_NAMES = 4
"""Task runs that are named at once."""


def steps_after(
    run: "RunView", causes: Sequence[Cause], begun: Sequence[tuple[str, StateType]] = ()
) -> Iterator[Step]:
    """Yield commands that may come next after a run; only such that there are.

    Args:
        run: The run.
        causes: What it failed of.
        begun: What a resume needs a person's yes to repeat (see `EarlierReader.may_have_run`).
    """
    short = run.id[:SHORT_ID]
    if not run.state.is_terminal:
        yield Step(f"raysched why --waiting {short}", "what it waits for")
        yield Step(f"raysched cancel {short}", "stop it")
    elif run.state is not StateType.COMPLETED and not run.parent:
        once = "" if run.lost or run.state is StateType.CANCELLED else ", once the cause is gone"
        where = "" if run.target else " file.py:flow"
        reused = "what completed is reused"
        yes, look = "", ""
        if begun:
            yes = " --yes"
            keys = some_of([key for key, _ in begun], MOST_NAMES)
            look = f"; first look whether {keys} (idempotent=False) had an effect already"
        yield Step(f"raysched resume {short}{where}{yes}", f"go on with it{once}: {reused}{look}")
    yield from steps_for(run, causes)


def steps_for(run: "RunView", causes: Sequence[Cause]) -> Iterator[Step]:
    """Yield commands that tell more of failures of a run."""
    short = run.id[:SHORT_ID]
    # What was lost with its driver has not failed: there is nothing to look into, or to debug.
    causes = [cause for cause in causes if cause.kind != CrashKind.DRIVER_LOST]
    others = ((cause.key, _another(cause)) for cause in causes)
    for key, another in [pair for pair in others if pair[1]][:1]:
        command = f"raysched why {short} {shlex.quote(another)}"
        yield Step(command, f"another one that failed like {key}, in full")
    tried = [cause for cause in causes if cause.key and cause.attempts]
    if tried:
        key = shlex.quote(tried[0].key)
        yield Step(
            f"raysched debug {short} {key}",
            "run just this task run again, in this process, under a debugger",
        )
    tasks = dict.fromkeys(cause.task for cause in tried if cause.logs)
    for task in list(tasks)[:1]:
        yield Step(
            f"raysched logs {short} --task {shlex.quote(task)}", "all log records of the task"
        )


def _another(cause: Cause) -> str:
    """Return the key of one that is like a failure, if there is one.

    Where they differ in why they were not tried again, it is one that differs.
    """
    if cause.stops:
        return next(stop.key for stop in cause.stops if stop.key != cause.key)
    return cause.keys[1] if len(cause.keys) > 1 else ""
