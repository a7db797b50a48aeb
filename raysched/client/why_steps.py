"""What may be done next, as commands."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from raysched.client.why_facts import Cause, Step
from raysched.model.states import StateType

if TYPE_CHECKING:
    from raysched.store.views import RunView

LONGEST_PARAMETERS = 2000
"""Characters of parameters that a command is given."""

REPR = re.compile(r'"(?:[\w.]+\(.*\)|<.+>)"')
"""In JSON, what is most likely a repr: `PosixPath('a')`, `<shop.Cart object at 0x…>`."""

SHORT_ID = 8
"""Digits of a run's id in commands."""


def steps_after(run: "RunView", causes: Sequence[Cause]) -> Iterator[Step]:
    """Yield commands that may come next after a run; only such that there are."""
    short = run.id[:SHORT_ID]
    if not run.state.is_terminal:
        yield Step(f"raysched why --waiting {short}", "what it waits for")
        yield Step(f"raysched cancel {short}", "stop it")
    elif run.state is not StateType.COMPLETED and run.target and not run.parent:
        once = "" if run.state is StateType.CANCELLED else ", once the cause is gone"
        command, missing = _again(run)
        give = f"; give it {', '.join(missing)} too, which JSON cannot say" if missing else ""
        yield Step(command, f"run it again from its beginning{once}{give}")
    yield from steps_for(run, causes)


def steps_for(run: "RunView", causes: Sequence[Cause]) -> Iterator[Step]:
    """Yield commands that tell more of failures of a run."""
    short = run.id[:SHORT_ID]
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


def _again(run: "RunView") -> tuple[str, Sequence[str]]:
    """Return the command that runs a flow again with the same parameters, and those it lacks.

    What JSON does not know was kept as Python's repr, and is of no use to a command.
    """
    command = f"raysched run {shlex.quote(run.target)}"
    parameters: Mapping[str, object] = json.loads(run.parameters)
    lacking = [name for name, value in parameters.items() if REPR.search(json.dumps(value))]
    given = {name: value for name, value in parameters.items() if name not in lacking}
    text = json.dumps(given, ensure_ascii=False)
    if len(text) > LONGEST_PARAMETERS or "…" in parameters:
        return f"{command} --params-json @FILE", ()
    return f"{command} --params-json {shlex.quote(text)}" if given else command, lacking
