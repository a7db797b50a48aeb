"""Why a flow run ended as it did: the verdict, where, with what evidence, and what to do."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from raysched.client.why_causes import Keys, Kind, find_failures, name_some
from raysched.client.why_changes import compare
from raysched.client.why_details import cause_of, flow_cause
from raysched.client.why_facts import Cause, Comparison, Step, Why
from raysched.client.why_graph import locate
from raysched.client.why_verdict import verdict_on
from raysched.client.words import OWN_FAILURES, error_type, utc
from raysched.model.states import StateType
from raysched.model.values import FailureClass

if TYPE_CHECKING:
    from raysched.store.reader import Reader
    from raysched.store.views import RunView

MOST_CAUSES = 10
"""Causes that are told in full; the others are counted."""

MOST_SUBFLOWS = 5
"""Subflows that are told of a run."""

DEEPEST = 3
"""Subflows in subflows are told down to here."""

LONGEST_PARAMETERS = 2000
"""Characters of parameters that a command is given."""

REPR = re.compile(r'"(?:[\w.]+\(.*\)|<.+>)"')
"""In JSON, what is most likely a repr: `PosixPath('a')`, `<shop.Cart object at 0x…>`."""

SHORT_ID = 8
"""Digits of a run's id in commands."""


def explain(reader: "Reader", run: "RunView", *, depth: int = 0) -> Why:
    """Return why a flow run is as it is.

    Args:
        reader: Where it is kept.
        run: The run.
        depth: How many subflows it is in that are told, too.
    """
    failures = find_failures(reader, run)
    shown = failures.kinds[:MOST_CAUSES]
    name_some(reader, run, shown, Keys(failures.groups))
    subflows = tuple(_subflows(reader, run, depth))
    causes = [cause_of(reader, run, kind, number) for number, kind in enumerate(shown, 1)]
    if run.error is not None and not _is_told(run, causes, subflows):
        causes.append(flow_cause(reader, run, len(causes) + 1))
    standings = reader.standings(run)
    own = [kind for kind in failures.kinds if kind.state is not StateType.CANCELLED]
    why = Why(
        run=run.id,
        flow=run.flow,
        name=run.name,
        state=run.state,
        message=run.message,
        started=utc(run.started),
        ended=utc(run.ended),
        target=run.target,
        backend=run.backend,
        verdict="",
        counts=dict(run.counts),
        failures=sum(kind.count for kind in own),
        handled=sum(kind.handled for kind in own),
        not_run=failures.not_run,
        skipped=run.counts.get(StateType.SKIPPED, 0),
        rolled_back=sum(standing.rolled_back for standing in standings),
        kept=sum(standing.kept for standing in standings),
        reasons=failures.reasons,
        causes=tuple(causes),
        more_causes=len(failures.kinds) - len(shown),
        part=locate(failures.groups, failures.touched),
        comparison=_comparison(reader, run, shown),
        steps=tuple(_steps(run, causes)),
        subflows=subflows,
    )
    return replace(why, verdict=verdict_on(why))


def _comparison(reader: "Reader", run: "RunView", kinds: Sequence[Kind]) -> Comparison | None:
    """Return what differs from the last success; of a run that ended well nothing is asked."""
    if run.state is StateType.COMPLETED and not kinds:
        return None
    failed = None
    if kinds:
        group = kinds[0].group
        failed = reader.task_run(run, group.task, group.first + kinds[0].first)
    return compare(reader, run, failed)


def _subflows(reader: "Reader", run: "RunView", depth: int) -> Iterator[Why]:
    if depth == DEEPEST:
        return
    ended_badly = (*OWN_FAILURES, StateType.CANCELLED)
    found = [child for child in reversed(reader.children(run)) if child.state in ended_badly]
    for child in found[:MOST_SUBFLOWS]:
        yield explain(reader, child, depth=depth + 1)


def _is_told(run: "RunView", causes: Iterable[Cause], subflows: Sequence[Why]) -> bool:
    """Whether the flow function only raised what task runs or subflows say already."""
    error = run.error
    if error is None or error.failure_class in {FailureClass.UPSTREAM, FailureClass.CANCELLED}:
        return True
    told = [(cause.type, cause.message) for cause in causes]
    for subflow in subflows:
        told += [(cause.type, cause.message) for cause in subflow.causes]
    if error.type.startswith("raysched.errors.") and (told or subflows):
        return True
    if run.state in {StateType.CANCELLED, StateType.TIMED_OUT}:
        # Its message says it all.
        return True
    return (error_type(error), error.message) in told


def _steps(run: "RunView", causes: Sequence[Cause]) -> Iterator[Step]:
    """Yield commands that may come next; only such that there are."""
    short = run.id[:SHORT_ID]
    if not run.state.is_terminal:
        yield Step(f"raysched why --waiting {short}", "what it waits for")
        yield Step(f"raysched cancel {short}", "stop it")
    elif run.state is not StateType.COMPLETED and run.target and not run.parent:
        once = "" if run.state is StateType.CANCELLED else ", once the cause is gone"
        command, missing = _again(run)
        give = f"; give it {', '.join(missing)} too, which JSON cannot say" if missing else ""
        yield Step(command, f"run it again from its beginning{once}{give}")
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
